-- instances_live with the filter inside. The winner of a window may stand outside the
-- interval, so it is looked for among all rows, in columns that are cheap to read.
SELECT r.* REPLACE (
${filled})
FROM `${project}.${dataset}.${instances}` AS r
WHERE r.event IN ('finalized', 'metadataUpdated')
  AND r.ingested_at >= since
  AND r.ingested_at < until
  AND NOT EXISTS (
    SELECT 1
    FROM `${project}.${dataset}.${instances}` AS m
    WHERE m.event IN ('deleted', 'archived')
      AND m.path = r.path
      AND CAST(m.version AS INT64) >= CAST(r.version AS INT64)
  )
  AND NOT EXISTS (
    SELECT 1
    FROM `${project}.${dataset}.${instances}` AS s
    WHERE s.event IN ('finalized', 'metadataUpdated')
      AND s.path = r.path
      AND s.StudyInstanceUID IS NOT DISTINCT FROM r.StudyInstanceUID
      AND s.SeriesInstanceUID IS NOT DISTINCT FROM r.SeriesInstanceUID
      AND s.SOPInstanceUID IS NOT DISTINCT FROM r.SOPInstanceUID
      AND CAST(s.version AS INT64) >= CAST(r.version AS INT64)
      AND (
        CAST(s.version AS INT64) > CAST(r.version AS INT64)
        OR s.timestamp > r.timestamp
        OR (s.timestamp = r.timestamp AND s.ingested_at > r.ingested_at)
      )
  )
QUALIFY ROW_NUMBER() OVER (
  PARTITION BY r.StudyInstanceUID, r.SeriesInstanceUID, r.SOPInstanceUID, r.path
  ORDER BY CAST(r.version AS INT64) DESC, r.timestamp DESC, r.ingested_at DESC
) = 1
