-- instances_live with the filter inside. A study can be filtered before `newest` chooses, since
-- rows that supersede each other have the same UIDs.
SELECT r.* REPLACE (
${filled})
FROM `${project}.${dataset}.${instances}` AS r
WHERE r.event IN ('finalized', 'metadataUpdated')
  AND r.StudyInstanceUID = uid
  AND NOT EXISTS (
    SELECT 1
    FROM `${project}.${dataset}.${instances}` AS m
    WHERE
${hides})
${newest}
