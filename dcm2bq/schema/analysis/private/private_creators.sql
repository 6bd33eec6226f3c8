-- One row for each private creator by group and manufacturer. In JSON text a quote within a value has
-- a backslash before it, so that no value can look like a key.
WITH slot AS (
  SELECT
    SOPInstanceUID,
    Manufacturer,
    path,
    SUBSTR(pair, 2, 4) AS private_group,
    SUBSTR(pair, 8, 2) AS block,
    JSON_VALUE(PARSE_JSON(SUBSTR(pair, 12))) AS private_creator
  FROM
    `${project}.${dataset}.instances_live`,
    UNNEST(
      REGEXP_EXTRACT_ALL(
        TO_JSON_STRING(metadata),
        r'"[0-9A-F]{3}[13579BDF]00[1-9A-F][0-9A-F]":"(?:[^"\\]|\\.)+"'
      )
    ) AS pair
)

SELECT
  private_creator,
  private_group,
  Manufacturer,
  ARRAY_AGG(DISTINCT block ORDER BY block) AS blocks,
  COUNT(DISTINCT SOPInstanceUID) AS instances,
  MIN(path) AS for_example
FROM slot
GROUP BY private_creator, private_group, Manufacturer
