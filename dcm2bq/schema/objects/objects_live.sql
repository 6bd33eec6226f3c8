-- The rows of `objects`, and those of the log since; each object is shown by the newer of the two.
-- No window or join comes between the rows of `objects` and a filter, so that its blocks are skipped.
WITH since AS (
  SELECT
${object_key} AS key,
    CAST(r.version AS INT64) AS generation,
${object_columns}
  FROM `${project}.${dataset}.${instances}` AS r
  WHERE r.event IN ('finalized', 'metadataUpdated')
    AND r.ingested_at >= TIMESTAMP_SUB(CURRENT_TIMESTAMP(), ${overlap})
${newest}
),

markers AS (
  SELECT path, CAST(version AS INT64) AS gone
  FROM `${project}.${dataset}.${instances}`
  WHERE event IN ('deleted', 'archived')
    AND ingested_at >= TIMESTAMP_SUB(CURRENT_TIMESTAMP(), ${overlap})
  UNION ALL
  SELECT marked_path AS path, gone
  FROM `${project}.${dataset}.objects`
  WHERE marked_path IS NOT NULL
),

-- One row, or none of the last seven days: the rest of the overlap is for rows that appear late.
refresh AS (
  SELECT
    IFNULL(
      MAX(refreshed_at) >= TIMESTAMP_SUB(CURRENT_TIMESTAMP(), INTERVAL 7 DAY), FALSE
    ) AS is_recent
  FROM `${project}.${dataset}.objects`
),

-- No row, but an error if the answer may be incomplete. Each column carries it, since a filter on a
-- column may be applied before WHERE.
refusal AS (
  SELECT IF(is_recent, CAST(NULL AS STRING), ERROR(
    'objects was not refreshed in the last 7 days: run dcm2bq refresh'
  )) AS message
  FROM refresh
)

SELECT
  o.timestamp,
  o.ingested_at,
  o.event,
  o.path,
  o.version,
  o.StudyInstanceUID,
  o.SeriesInstanceUID,
  o.SOPInstanceUID,
  o.SOPClassUID,
  o.Modality,
  o.PatientID,
  o.StudyDate,
  o.size,
  o.storage_class,
  o.transfer_syntax_uid,
  o.member
FROM `${project}.${dataset}.objects` AS o
WHERE o.path IS NOT NULL
  AND NOT EXISTS (
    SELECT 1
    FROM markers AS m
    WHERE m.path = o.path
      AND m.gone >= CAST(o.version AS INT64)
  )
  AND NOT EXISTS (
    SELECT 1
    FROM since AS s
    WHERE s.key = o.key
      AND (
        s.generation > CAST(o.version AS INT64)
        OR (s.generation = CAST(o.version AS INT64) AND s.timestamp >= o.timestamp)
      )
  )
UNION ALL
SELECT
  s.timestamp,
  s.ingested_at,
  s.event,
  s.path,
  s.version,
  s.StudyInstanceUID,
  s.SeriesInstanceUID,
  s.SOPInstanceUID,
  s.SOPClassUID,
  s.Modality,
  s.PatientID,
  s.StudyDate,
  s.size,
  s.storage_class,
  s.transfer_syntax_uid,
  s.member
FROM since AS s
WHERE NOT EXISTS (
  SELECT 1
  FROM markers AS m
  WHERE m.path = s.path
    AND m.gone >= s.generation
)
  AND NOT EXISTS (
    SELECT 1
    FROM `${project}.${dataset}.objects` AS o
    WHERE o.key = s.key
      AND (
        CAST(o.version AS INT64) > s.generation
        OR (CAST(o.version AS INT64) = s.generation AND o.timestamp > s.timestamp)
      )
  )
UNION ALL
SELECT
  TIMESTAMP(message),
  TIMESTAMP(message),
  message,
  message,
  message,
  message,
  message,
  message,
  message,
  message,
  message,
  DATE(message),
  CAST(message AS INT64),
  message,
  message,
  message
FROM refusal
WHERE message IS NOT NULL
