-- What `compaction` can remove, by month, of the months before @until: rows that a marker hides, and
-- at most that many markers, since one that still hides a row of another month stays.
WITH marked AS (
  SELECT path, MAX(CAST(version AS INT64)) AS gone
  FROM `${project}.${dataset}.${instances}`
  WHERE event IN ('deleted', 'archived')
  GROUP BY path
)

SELECT
  TIMESTAMP_TRUNC(i.ingested_at, MONTH) AS month,
  COUNT(*) AS row_count,
  COUNTIF(
    i.event IN ('finalized', 'metadataUpdated', 'expanded') AND CAST(i.version AS INT64) <= m.gone
  ) AS hidden,
  COUNTIF(i.event IN ('deleted', 'archived')) AS markers
FROM `${project}.${dataset}.${instances}` AS i
LEFT JOIN marked AS m ON m.path = i.path
WHERE i.ingested_at < @until
GROUP BY month
HAVING hidden > 0 OR markers > 0
ORDER BY month
