-- Removes from the month from @since to @until the rows that a marker hides, and the markers that hide
-- no row of another month. A marker at the path of a dead letter closes it, so it stays; the path is
-- computed as in the view dead_letters.
DELETE FROM `${project}.${dataset}.${instances}` AS i
WHERE i.ingested_at >= @since
  AND i.ingested_at < @until
  AND EXISTS (
    SELECT 1
    FROM (
      SELECT
        marked.path,
        marked.gone,
        marked.lowest_elsewhere,
        lettered.path IS NOT NULL AS is_lettered
      FROM (
        SELECT
          path,
          MAX(IF(event IN ('deleted', 'archived'), CAST(version AS INT64), NULL)) AS gone,
          MIN(
            IF(
              event IN ('finalized', 'metadataUpdated', 'expanded')
              AND (ingested_at < @since OR ingested_at >= @until),
              CAST(version AS INT64),
              NULL
            )
          ) AS lowest_elsewhere
        FROM `${project}.${dataset}.${instances}`
        GROUP BY path
      ) AS marked
      LEFT JOIN (
        SELECT DISTINCT
          CONCAT(
            'gs://',
            COALESCE(JSON_VALUE(content.bucket), JSON_VALUE(attribute.bucketId)),
            '/',
            COALESCE(JSON_VALUE(content.name), JSON_VALUE(attribute.objectId))
          ) AS path
        FROM (
          SELECT
            SAFE.PARSE_JSON(attributes, wide_number_mode => 'round') AS attribute,
            SAFE.PARSE_JSON(SAFE_CONVERT_BYTES_TO_STRING(data), wide_number_mode => 'round') AS content
          FROM `${project}.${dataset}.${dead_letter}`
        )
      ) AS lettered ON lettered.path = marked.path
      WHERE marked.gone IS NOT NULL
    ) AS m
    WHERE m.path = i.path
      AND (
        (
          i.event IN ('finalized', 'metadataUpdated', 'expanded')
          AND CAST(i.version AS INT64) <= m.gone
        )
        OR (
          i.event IN ('deleted', 'archived')
          AND NOT m.is_lettered
          AND (m.lowest_elsewhere IS NULL OR m.lowest_elsewhere > CAST(i.version AS INT64))
        )
      )
  )
