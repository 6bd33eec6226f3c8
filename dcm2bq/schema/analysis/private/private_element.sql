SELECT *
FROM `${project}.${dataset}.private_elements`
WHERE private_creator = creator
  AND ENDS_WITH(tag, UPPER(SUBSTR(element, -2)))
  AND (LENGTH(element) = 2 OR STARTS_WITH(tag, UPPER(SUBSTR(element, 1, 4))))
