-- ingested_between, and with it what the markers of the interval removed. The key of a row is
-- its path and UIDs; each comes once, as it is now: with its live row, or gone.
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
) AS live
UNION ALL
SELECT 'remove' AS change, gone.*
FROM (
  -- The highest marker of the interval stands for each key that it hides a row of, if no row of
  -- that key is left. It is a narrow row, and has all columns.
  SELECT m.* REPLACE (
    held.StudyInstanceUID AS StudyInstanceUID,
    held.SeriesInstanceUID AS SeriesInstanceUID,
    held.SOPInstanceUID AS SOPInstanceUID
  )
  FROM `${project}.${dataset}.${instances}` AS m
  INNER JOIN (
    SELECT
      path,
      StudyInstanceUID,
      SeriesInstanceUID,
      SOPInstanceUID,
      MIN(CAST(version AS INT64)) AS lowest,
      MAX(CAST(version AS INT64)) AS highest
    FROM `${project}.${dataset}.${instances}`
    WHERE event IN ('finalized', 'metadataUpdated')
    GROUP BY path, StudyInstanceUID, SeriesInstanceUID, SOPInstanceUID
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
    PARTITION BY held.StudyInstanceUID, held.SeriesInstanceUID, held.SOPInstanceUID, held.path
    ORDER BY CAST(m.version AS INT64) DESC, m.timestamp DESC, m.ingested_at DESC
  ) = 1
) AS gone
