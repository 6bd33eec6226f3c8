-- One row for each content item of each report, the root included. An item carries its concept
-- apart: if its children took their parent's from the item, each would have a copy of it, 1.2 GB of
-- a root of 2 MB with 600 children. A number is NULL unless its text begins like one and is finite:
-- FLOAT64 would accept `nan`, `inf` and `1e999`, and one of them would spoil a sum.
WITH RECURSIVE items AS (
  SELECT
    path,
    member,
    StudyInstanceUID,
    SeriesInstanceUID,
    SOPInstanceUID,
    SOPClassUID,
    PatientID,
    StudyDate,
    Manufacturer,
    ManufacturerModelName,
    StationName,
    JSON_VALUE(metadata.DeviceSerialNumber) AS DeviceSerialNumber,
    '1' AS position,
    CAST(NULL AS STRING) AS parent,
    '0000001' AS reading_order,  -- 7 digits: limits.elements is 2,000,000
    0 AS depth,
    CAST(NULL AS JSON) AS parent_concept,
    metadata.ConceptNameCodeSequence AS concept,
    metadata AS item
  FROM `${project}.${dataset}.instances_live`
  WHERE JSON_VALUE(metadata.ValueType) IS NOT NULL
    OR JSON_TYPE(metadata.ContentSequence) = 'array'
  UNION ALL
  SELECT
    p.path,
    p.member,
    p.StudyInstanceUID,
    p.SeriesInstanceUID,
    p.SOPInstanceUID,
    p.SOPClassUID,
    p.PatientID,
    p.StudyDate,
    p.Manufacturer,
    p.ManufacturerModelName,
    p.StationName,
    p.DeviceSerialNumber,
    CONCAT(p.position, '.', CAST(n + 1 AS STRING)) AS position,
    p.position AS parent,
    CONCAT(p.reading_order, '.', LPAD(CAST(n + 1 AS STRING), 7, '0')) AS reading_order,
    p.depth + 1 AS depth,
    p.concept AS parent_concept,
    child.ConceptNameCodeSequence AS concept,
    child AS item
  FROM
    items AS p,
    UNNEST(
      IF(
        JSON_TYPE(p.item.ContentSequence) = 'array', JSON_QUERY_ARRAY(p.item.ContentSequence), NULL
      )
    ) AS child WITH OFFSET AS n
),

-- The local BigQuery loses the type of a column in a recursion, and indexes only into JSON.
typed AS (
  SELECT
    * EXCEPT (parent_concept, concept, item),
    CAST(parent_concept AS JSON) AS parent_concept,
    CAST(concept AS JSON) AS concept,
    CAST(item AS JSON) AS item
  FROM items
),

parts AS (
  SELECT
    *,
    JSON_VALUE(concept[0].CodingSchemeDesignator) AS concept_scheme,
    COALESCE(
      JSON_VALUE(concept[0].CodeValue),
      JSON_VALUE(concept[0].LongCodeValue),
      JSON_VALUE(concept[0].URNCodeValue)
    ) AS concept_code,
    JSON_VALUE(concept[0].CodeMeaning) AS concept_meaning,
    JSON_VALUE(parent_concept[0].CodingSchemeDesignator) AS parent_concept_scheme,
    COALESCE(
      JSON_VALUE(parent_concept[0].CodeValue),
      JSON_VALUE(parent_concept[0].LongCodeValue),
      JSON_VALUE(parent_concept[0].URNCodeValue)
    ) AS parent_concept_code,
    item.ConceptCodeSequence[0] AS code,
    SAFE_CAST(
      REGEXP_EXTRACT(
        COALESCE(
          JSON_VALUE(item.MeasuredValueSequence[0].NumericValue),
          JSON_VALUE(item.MeasuredValueSequence[0].NumericValue[0]),
          JSON_VALUE(item.MeasuredValueSequence[0].FloatingPointValue)
        ),
        '^[-+]?[0-9.].*'
      ) AS FLOAT64
    ) AS number,
    item.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0] AS units,
    item.ReferencedSOPSequence[0] AS reference,
    -- closed by a semicolon: an end that patterns can name without the sign of a placeholder
    CONCAT(JSON_VALUE(item.DateTime), ';') AS moment,
    CONCAT(JSON_VALUE(item.Date), ';') AS day,
    CONCAT(JSON_VALUE(item.Time), ';') AS clock
  FROM typed
),

texts AS (
  SELECT
    *,
    REGEXP_EXTRACT(
      moment, '^((?:[0-9]{2}){2,7})(?:[.][0-9]{1,6})?(?:[-+][0-9]{4})?;'
    ) AS moment_digits,
    REGEXP_EXTRACT(clock, '^((?:[0-9]{2}){1,3})(?:[.][0-9]{1,6})?;') AS clock_digits
  FROM parts
)

SELECT
  path,
  member,
  StudyInstanceUID,
  SeriesInstanceUID,
  SOPInstanceUID,
  SOPClassUID,
  PatientID,
  StudyDate,
  Manufacturer,
  ManufacturerModelName,
  StationName,
  DeviceSerialNumber,
  position,
  parent,
  reading_order,
  depth,
  JSON_VALUE(item.RelationshipType) AS RelationshipType,
  JSON_VALUE(item.ValueType) AS ValueType,
  concept_scheme,
  concept_code,
  concept_meaning,
  parent_concept_scheme,
  parent_concept_code,
  IF(IS_INF(number), NULL, number) AS NumericValue,
  COALESCE(JSON_VALUE(units.CodeValue), JSON_VALUE(units.LongCodeValue)) AS unit,
  JSON_VALUE(item.TextValue) AS TextValue,
  JSON_VALUE(code.CodingSchemeDesignator) AS code_scheme,
  COALESCE(
    JSON_VALUE(code.CodeValue), JSON_VALUE(code.LongCodeValue), JSON_VALUE(code.URNCodeValue)
  ) AS code_value,
  JSON_VALUE(code.CodeMeaning) AS code_meaning,
  SAFE_CAST(
    CONCAT(
      REGEXP_REPLACE(
        CONCAT(moment_digits, SUBSTR('00000101000000', LENGTH(moment_digits) + 1)),
        '^(....)(..)(..)(..)(..)(..)',
        '\\1-\\2-\\3 \\4:\\5:\\6'
      ),
      IFNULL(REGEXP_EXTRACT(moment, '^[0-9]{14}([.][0-9]{1,6})'), '')
    ) AS DATETIME
  ) AS DateTime,
  SAFE_CAST(
    REGEXP_REPLACE(
      REGEXP_EXTRACT(day, '^([0-9]{8});'), '^(....)(..)(..)', '\\1-\\2-\\3'
    ) AS DATE
  ) AS Date,
  SAFE_CAST(
    CONCAT(
      REGEXP_REPLACE(RPAD(clock_digits, 6, '0'), '^(..)(..)(..)', '\\1:\\2:\\3'),
      IFNULL(REGEXP_EXTRACT(clock, '^[0-9]{6}([.][0-9]{1,6})'), '')
    ) AS TIME
  ) AS Time,
  JSON_VALUE(item.UID) AS UID,
  JSON_VALUE(item.PersonName) AS PersonName,
  JSON_VALUE(reference.ReferencedSOPClassUID) AS ReferencedSOPClassUID,
  JSON_VALUE(reference.ReferencedSOPInstanceUID) AS ReferencedSOPInstanceUID,
  ARRAY(
    SELECT SAFE_CAST(JSON_VALUE(frame) AS INT64)
    FROM UNNEST(
      IF(
        JSON_TYPE(reference.ReferencedFrameNumber) = 'array',
        JSON_QUERY_ARRAY(reference.ReferencedFrameNumber),
        [reference.ReferencedFrameNumber]
      )
    ) AS frame WITH OFFSET AS n
    WHERE SAFE_CAST(JSON_VALUE(frame) AS INT64) IS NOT NULL
    ORDER BY n
  ) AS ReferencedFrameNumber,
  ARRAY(
    SELECT SAFE_CAST(JSON_VALUE(segment) AS INT64)
    FROM UNNEST(
      IF(
        JSON_TYPE(reference.ReferencedSegmentNumber) = 'array',
        JSON_QUERY_ARRAY(reference.ReferencedSegmentNumber),
        [reference.ReferencedSegmentNumber]
      )
    ) AS segment WITH OFFSET AS n
    WHERE SAFE_CAST(JSON_VALUE(segment) AS INT64) IS NOT NULL
    ORDER BY n
  ) AS ReferencedSegmentNumber,
  IF(
    JSON_TYPE(item.ReferencedContentItemIdentifier) = 'array',
    ARRAY_TO_STRING(JSON_VALUE_ARRAY(item.ReferencedContentItemIdentifier), '.'),
    JSON_VALUE(item.ReferencedContentItemIdentifier)
  ) AS ReferencedContentItemIdentifier
FROM texts
