SELECT r.* REPLACE (
${filled})
FROM `${project}.${dataset}.${instances}` AS r
WHERE r.event IN ('finalized', 'metadataUpdated')
  AND NOT EXISTS (
    SELECT 1
    FROM `${project}.${dataset}.${instances}` AS m
    WHERE
${hides})
${newest}
