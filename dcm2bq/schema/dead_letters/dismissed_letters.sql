-- One row for each path, member, version and event that somebody has dismissed and that has neither
-- failed nor succeeded since. A dismissal records these as dead_letters showed them.
WITH dismissals AS (
  SELECT
    JSON_VALUE(attribute.dismissed.path) AS path,
    JSON_VALUE(attribute.dismissed.member) AS member,
    JSON_VALUE(attribute.dismissed.version) AS version,
    JSON_VALUE(attribute.dismissed.event) AS event,
    JSON_VALUE(attribute.dismissed.because) AS because,
    publish_time AS seen,
    message_id
  FROM (
    SELECT
      message_id,
      publish_time,
      SAFE.PARSE_JSON(attributes, wide_number_mode => 'round') AS attribute
    FROM `${project}.${dataset}.${dead_letter}`
  )
)

SELECT path, version, event, because, seen AS dismissed_at, message_id, member
FROM dismissals AS d
WHERE because IS NOT NULL
  AND NOT EXISTS (
    SELECT 1
    FROM `${project}.${dataset}.dead_letters` AS o
    WHERE COALESCE(o.path, o.message_id, '') = COALESCE(d.path, d.message_id, '')
      AND COALESCE(o.member, '') = COALESCE(d.member, '')
      AND COALESCE(o.version, '') = COALESCE(d.version, '')
      AND COALESCE(o.event, '') = COALESCE(d.event, '')
  )
  AND NOT EXISTS (
    SELECT 1
    FROM `${project}.${dataset}.${instances}` AS i
    WHERE
${closes})
QUALIFY ROW_NUMBER() OVER (
  PARTITION BY COALESCE(path, message_id), member, version, event
  ORDER BY seen DESC
) = 1
