-- The rows of ingested_between, and the rows that delete markers of the interval hide. A row's key
-- is its path, member and UIDs. Each key appears once, in its present state: live or removed.
SELECT 'upsert' AS change, live.*
FROM (
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
) AS live
UNION ALL
SELECT 'remove' AS change, gone.*
FROM (
  -- Each key that has no live row left is represented by the highest marker of the interval that
  -- hides a row of it. A marker has all columns and no header, so it costs little to read.
  SELECT m.* REPLACE (
    held.StudyInstanceUID AS StudyInstanceUID,
    held.SeriesInstanceUID AS SeriesInstanceUID,
    held.SOPInstanceUID AS SOPInstanceUID,
    held.member AS member
  )
  FROM `${project}.${dataset}.${instances}` AS m
  INNER JOIN (
    SELECT
      path,
      member,
      StudyInstanceUID,
      SeriesInstanceUID,
      SOPInstanceUID,
      MIN(CAST(version AS INT64)) AS lowest,
      MAX(CAST(version AS INT64)) AS highest
    FROM `${project}.${dataset}.${instances}`
    WHERE event IN ('finalized', 'metadataUpdated')
    GROUP BY path, member, StudyInstanceUID, SeriesInstanceUID, SOPInstanceUID
  ) AS held ON held.path = m.path
  INNER JOIN (
    SELECT path, MAX(CAST(version AS INT64)) AS highest
    FROM `${project}.${dataset}.${instances}`
    WHERE event IN ('deleted', 'archived')
    GROUP BY path
  ) AS marked ON marked.path = m.path
  WHERE m.event IN ('deleted', 'archived')
    AND m.ingested_at >= since
    AND m.ingested_at < until
    AND CAST(m.version AS INT64) >= held.lowest
    AND held.highest <= marked.highest
  QUALIFY ROW_NUMBER() OVER (
    PARTITION BY
      held.StudyInstanceUID, held.SeriesInstanceUID, held.SOPInstanceUID, held.path, held.member
    ORDER BY CAST(m.version AS INT64) DESC, m.timestamp DESC, m.ingested_at DESC
  ) = 1
) AS gone
