-- One row for each result of a measurement group. What belongs to a group or to a result is found
-- among its children by windows, not joins: a result needs neither a site nor a tracking id, and
-- the reports are read once. Of several objects with the same instance, only the first counts.
WITH items AS (
  SELECT
    *,
    CONCAT(concept_scheme, ':', concept_code) AS concept,
    STRUCT(code_scheme AS scheme, code_value AS code, code_meaning AS meaning) AS coded,
    IFNULL(parent_concept_scheme = 'DCM' AND parent_concept_code = '125007', FALSE) AS in_group,
    IFNULL(
      CONCAT(parent_concept_scheme, ':', parent_concept_code) IN ('SCT:363698007', 'SRT:G-C0E3'),
      FALSE
    ) AS in_site,
    REGEXP_EXTRACT(parent, '^(.+)[.]') AS grandparent
  FROM `${project}.${dataset}.sr_content`
  WHERE depth > 0
  QUALIFY DENSE_RANK() OVER (
    PARTITION BY
      StudyInstanceUID,
      SeriesInstanceUID,
      SOPInstanceUID,
      IF(SOPInstanceUID IS NULL, CONCAT(path, ' ', IFNULL(member, '')), NULL)
    ORDER BY path, member
  ) = 1
),

owners AS (
  SELECT
    *,
    IF(in_group, parent, grandparent) AS group_position,
    CASE
      WHEN in_group THEN position
      WHEN in_site THEN grandparent
      ELSE parent
    END AS result_position
  FROM items
),

results AS (
  SELECT
    *,
    FIRST_VALUE(IF(in_group AND concept = 'DCM:112039', TextValue, NULL) IGNORE NULLS)
      OVER of_group AS tracking_id,
    FIRST_VALUE(IF(in_group AND concept = 'DCM:112040', UID, NULL) IGNORE NULLS)
      OVER of_group AS tracking_uid,
    FIRST_VALUE(IF(in_group AND concept = 'DCM:121071', coded, NULL) IGNORE NULLS)
      OVER of_group AS finding,
    FIRST_VALUE(
      IF(in_group AND concept IN ('SCT:363698007', 'SRT:G-C0E3'), coded, NULL) IGNORE NULLS
    ) OVER of_group AS group_site,
    FIRST_VALUE(
      IF((in_group OR in_site) AND concept IN ('SCT:272741003', 'SRT:G-C171'), coded, NULL)
      IGNORE NULLS
    ) OVER of_group AS group_laterality,
    FIRST_VALUE(
      IF(in_group AND concept IN ('SCT:370129005', 'SRT:G-C036'), coded, NULL) IGNORE NULLS
    ) OVER of_group AS group_method,
    FIRST_VALUE(
      IF(
        in_group AND concept IN ('DCM:121191', 'DCM:121214'),
        STRUCT(
          ReferencedSOPInstanceUID AS instance, ReferencedSegmentNumber[SAFE_OFFSET(0)] AS number
        ),
        NULL
      )
      IGNORE NULLS
    ) OVER of_group AS segment,
    FIRST_VALUE(
      IF(NOT in_group AND concept IN ('SCT:363698007', 'SRT:G-C0E3'), coded, NULL) IGNORE NULLS
    ) OVER of_result AS own_site,
    FIRST_VALUE(
      IF(NOT in_group AND concept IN ('SCT:272741003', 'SRT:G-C171'), coded, NULL) IGNORE NULLS
    ) OVER of_result AS own_laterality,
    FIRST_VALUE(
      IF(NOT in_group AND concept IN ('SCT:370129005', 'SRT:G-C036'), coded, NULL) IGNORE NULLS
    ) OVER of_result AS own_method,
    FIRST_VALUE(IF(NOT in_group AND concept = 'DCM:121401', coded, NULL) IGNORE NULLS)
      OVER of_result AS derivation
  FROM owners
  WINDOW
    of_group AS (
      PARTITION BY path, member, group_position
      ORDER BY reading_order
      ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING
    ),
    of_result AS (
      PARTITION BY path, member, result_position
      ORDER BY reading_order
      ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING
    )
)

SELECT
  path,
  member,
  StudyInstanceUID,
  SeriesInstanceUID,
  SOPInstanceUID,
  PatientID,
  StudyDate,
  group_position,
  tracking_id,
  tracking_uid,
  finding.scheme AS finding_scheme,
  finding.code AS finding_code,
  finding.meaning AS finding_meaning,
  COALESCE(own_site, group_site).scheme AS site_scheme,
  COALESCE(own_site, group_site).code AS site_code,
  COALESCE(own_site, group_site).meaning AS site_meaning,
  IF(own_site IS NULL, COALESCE(own_laterality, group_laterality), own_laterality).code
    AS laterality_code,
  IF(own_site IS NULL, COALESCE(own_laterality, group_laterality), own_laterality).meaning
    AS laterality_meaning,
  position,
  ValueType,
  concept_scheme AS name_scheme,
  concept_code AS name_code,
  concept_meaning AS name_meaning,
  NumericValue AS value,
  unit,
  code_scheme,
  code_value,
  code_meaning,
  TextValue,
  derivation.code AS derivation_code,
  derivation.meaning AS derivation_meaning,
  COALESCE(own_method, group_method).code AS method_code,
  COALESCE(own_method, group_method).meaning AS method_meaning,
  segment.instance AS segmentation,
  segment.number AS ReferencedSegmentNumber
FROM results
WHERE in_group
  AND (
    ValueType = 'NUM'
    -- the finding and its category describe the group
    OR (
      ValueType IN ('CODE', 'TEXT')
      AND RelationshipType = 'CONTAINS'
      AND IFNULL(concept, '') NOT IN (
        'DCM:121071', 'SCT:276214006', 'SRT:G-C0E3', 'SCT:363698007', 'DCM:112039'
      )
    )
  )
