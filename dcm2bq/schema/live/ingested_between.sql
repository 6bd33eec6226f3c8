-- instances_live with the filter inside. The row that supersedes another one may be outside the
-- interval, so it is looked up among all rows, in columns that are cheap to read.
SELECT r.* REPLACE (
${filled})
FROM `${project}.${dataset}.${instances}` AS r
WHERE r.event IN ('finalized', 'metadataUpdated')
  AND r.ingested_at >= since
  AND r.ingested_at < until
  AND NOT EXISTS (
    SELECT 1
    FROM `${project}.${dataset}.${instances}` AS m
    WHERE
${hides})
  AND NOT EXISTS (
    SELECT 1
    FROM `${project}.${dataset}.${instances}` AS s
    WHERE
${supersedes})
${newest}
