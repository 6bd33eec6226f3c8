-- One row for each path, member, version and event that is still open; a dead letter without a path
-- is identified by its message. The columns may hold anything: no dead letter makes the view fail or
-- is missing from it.
WITH parsed AS (
  SELECT
    subscription_name,
    message_id,
    publish_time,
    SAFE.PARSE_JSON(attributes, wide_number_mode => 'round') AS attribute,
    SAFE.PARSE_JSON(SAFE_CONVERT_BYTES_TO_STRING(data), wide_number_mode => 'round') AS content
  FROM `${project}.${dataset}.${dead_letter}`
),

letters AS (
  SELECT
    message_id,
    publish_time,
    COALESCE(publish_time, TIMESTAMP '1970-01-01 00:00:00+00:00') AS seen,
    CONCAT(
      'gs://',
      COALESCE(JSON_VALUE(content.bucket), JSON_VALUE(attribute.bucketId)),
      '/',
      COALESCE(JSON_VALUE(content.name), JSON_VALUE(attribute.objectId))
    ) AS path,
    COALESCE(
      JSON_VALUE(content.generation), JSON_VALUE(attribute.objectGeneration)
    ) AS version,
    JSON_VALUE(attribute.member) AS member,
    COALESCE(
      REPLACE(JSON_VALUE(attribute['ce-type']), 'google.cloud.storage.object.v1.', ''),
      CASE JSON_VALUE(attribute.eventType)
        WHEN 'OBJECT_FINALIZE' THEN 'finalized'
        WHEN 'OBJECT_DELETE' THEN 'deleted'
        WHEN 'OBJECT_ARCHIVE' THEN 'archived'
        WHEN 'OBJECT_METADATA_UPDATE' THEN 'metadataUpdated'
        ELSE JSON_VALUE(attribute.eventType)
      END
    ) AS event,
    -- The attributes of a forwarded message are its sender's: they resolve nothing.
    subscription_name IS NULL
      AND COALESCE(JSON_VALUE(attribute.resolved) = 'true', FALSE) AS resolved,
    IF(subscription_name IS NULL, 'function', 'subscription') AS source,
    COALESCE(
      JSON_VALUE(attribute.error_type),
      IF(subscription_name IS NULL, 'Unknown', 'DeliveryExhausted')
    ) AS reason,
    COALESCE(
      JSON_VALUE(attribute.error),
      CONCAT(
        JSON_VALUE(attribute.CloudPubSubDeadLetterSourceDeliveryCount),
        ' deliveries failed; subscription ',
        JSON_VALUE(attribute.CloudPubSubDeadLetterSourceSubscription)
      )
    ) AS message
  FROM parsed
),

keyed AS (
  SELECT *, IF(path IS NULL, message_id, NULL) AS unnamed
  FROM letters
),

unresolved AS (
  -- A resolution is not later than itself, so it is left out, too.
  SELECT *
  FROM keyed
  WHERE TRUE
  QUALIFY COALESCE(
    seen > MAX(IF(resolved, seen, NULL)) OVER (PARTITION BY path, member, version, event, unnamed),
    TRUE
  )
),

open AS (
  SELECT
    path,
    member,
    version,
    event,
    unnamed,
    MIN(publish_time) AS first_seen,
    MAX(publish_time) AS last_seen,
    COUNT(*) AS attempts,
    ARRAY_AGG(
      STRUCT(
        reason AS reason, message AS message, source AS source, message_id AS message_id
      )
      ORDER BY seen DESC, message_id DESC
      LIMIT 1
    ) AS last_letter
  FROM unresolved AS d
  WHERE NOT EXISTS (
    SELECT 1
    FROM `${project}.${dataset}.${instances}` AS i
    WHERE
${closes})
  GROUP BY path, member, version, event, unnamed
)

SELECT
  path,
  version,
  event,
  last_letter[OFFSET(0)].reason AS reason,
  last_letter[OFFSET(0)].message AS message,
  first_seen,
  last_seen,
  attempts,
  last_letter[OFFSET(0)].source AS source,
  last_letter[OFFSET(0)].message_id AS message_id,
  member
FROM open
