-- instances_live with the filter inside: rows that compete in the window share their study.
SELECT r.* REPLACE (
${filled})
FROM `${project}.${dataset}.${instances}` AS r
WHERE r.event IN ('finalized', 'metadataUpdated')
  AND r.StudyInstanceUID = uid
  AND NOT EXISTS (
    SELECT 1
    FROM `${project}.${dataset}.${instances}` AS m
    WHERE m.event IN ('deleted', 'archived')
      AND m.path = r.path
      AND CAST(m.version AS INT64) >= CAST(r.version AS INT64)
  )
QUALIFY ROW_NUMBER() OVER (
  PARTITION BY r.StudyInstanceUID, r.SeriesInstanceUID, r.SOPInstanceUID, r.path
  ORDER BY CAST(r.version AS INT64) DESC, r.timestamp DESC, r.ingested_at DESC
) = 1
