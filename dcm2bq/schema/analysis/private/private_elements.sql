-- One row for each private element of an object. A key may be a tag that is known only at run time. In
-- JSON text a quote within a value has a backslash before it, so that no value can look like a key. The
-- local BigQuery forgets that a derived column is JSON, hence the cast.
WITH keyed AS (
  SELECT
    path,
    member,
    StudyInstanceUID,
    SeriesInstanceUID,
    SOPInstanceUID,
    Modality,
    Manufacturer,
    tag,
    JSON_VALUE(metadata[CONCAT(SUBSTR(tag, 1, 4), '00', SUBSTR(tag, 5, 2))]) AS private_creator,
    CAST(metadata[tag] AS JSON) AS value
  FROM
    `${project}.${dataset}.instances_live`,
    UNNEST(
      ARRAY(
        SELECT DISTINCT key
        FROM
          UNNEST(
            REGEXP_EXTRACT_ALL(
              TO_JSON_STRING(metadata),
              r'"([0-9A-F]{3}[13579BDF](?:1[0-9A-F]|[2-9A-F][0-9A-F])[0-9A-F]{2})":'
            )
          ) AS key
      )
    ) AS tag
)

-- Without a value, the key belongs to an item of a sequence.
SELECT
  path,
  member,
  StudyInstanceUID,
  SeriesInstanceUID,
  SOPInstanceUID,
  Modality,
  Manufacturer,
  private_creator,
  tag,
  value,
  CASE
    WHEN JSON_TYPE(value[0]) = 'object' THEN NULL
    WHEN JSON_TYPE(value) = 'array'
      THEN NULLIF(ARRAY_TO_STRING(JSON_VALUE_ARRAY(value), '\\', ''), '')
    ELSE JSON_VALUE(value)
  END AS text
FROM keyed
WHERE value IS NOT NULL
