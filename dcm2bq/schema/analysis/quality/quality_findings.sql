-- One row for each finding, beginning with the kinds that do not read metadata. They are parts of a
-- union, so that a filter on `kind` can leave the others out. No detail has a value of a header, only
-- numbers and names of attributes.

-- Contents of one SOPInstanceUID, by checksum. Members of archives have none of their own.
SELECT
  'several_contents' AS kind,
  MAX(PatientID) AS PatientID,
  CAST(NULL AS STRING) AS IssuerOfPatientID,
  MAX(StudyInstanceUID) AS StudyInstanceUID,
  MAX(SeriesInstanceUID) AS SeriesInstanceUID,
  SOPInstanceUID,
  MIN(path) AS path,
  CAST(NULL AS STRING) AS member,
  FORMAT('distinct contents: %d, objects: %d', COUNT(DISTINCT info.input.crc32c), COUNT(*)) AS detail
FROM `${project}.${dataset}.instances_live`
WHERE SOPInstanceUID IS NOT NULL AND member IS NULL
GROUP BY SOPInstanceUID
HAVING COUNT(DISTINCT info.input.crc32c) > 1

UNION ALL

SELECT
  'several_parents',
  MAX(PatientID),
  CAST(NULL AS STRING),
  MAX(StudyInstanceUID),
  MAX(SeriesInstanceUID),
  SOPInstanceUID,
  MIN(path),
  ARRAY_AGG(member ORDER BY path, member LIMIT 1)[SAFE_OFFSET(0)],
  FORMAT(
    'distinct StudyInstanceUID: %d, SeriesInstanceUID: %d',
    COUNT(DISTINCT StudyInstanceUID),
    COUNT(DISTINCT SeriesInstanceUID)
  )
FROM `${project}.${dataset}.instances_live`
WHERE SOPInstanceUID IS NOT NULL
GROUP BY SOPInstanceUID
HAVING COUNT(DISTINCT SeriesInstanceUID) > 1 OR COUNT(DISTINCT StudyInstanceUID) > 1

UNION ALL

SELECT
  'several_parents',
  MAX(PatientID),
  CAST(NULL AS STRING),
  MAX(StudyInstanceUID),
  SeriesInstanceUID,
  CAST(NULL AS STRING),
  MIN(path),
  ARRAY_AGG(member ORDER BY path, member LIMIT 1)[SAFE_OFFSET(0)],
  FORMAT('distinct StudyInstanceUID: %d', COUNT(DISTINCT StudyInstanceUID))
FROM `${project}.${dataset}.instances_live`
WHERE SeriesInstanceUID IS NOT NULL
GROUP BY SeriesInstanceUID
HAVING COUNT(DISTINCT StudyInstanceUID) > 1

UNION ALL

SELECT
  'uid_reused',
  MAX(PatientID),
  CAST(NULL AS STRING),
  MAX(IF(level = 'StudyInstanceUID', uid, NULL)),
  MAX(IF(level = 'SeriesInstanceUID', uid, NULL)),
  MAX(IF(level = 'SOPInstanceUID', uid, NULL)),
  MIN(path),
  ARRAY_AGG(member ORDER BY path, member LIMIT 1)[SAFE_OFFSET(0)],
  CONCAT('one UID as ', STRING_AGG(DISTINCT level, ', ' ORDER BY level))
FROM
  `${project}.${dataset}.instances_live`,
  UNNEST([
    STRUCT('StudyInstanceUID' AS level, StudyInstanceUID AS uid),
    STRUCT('SeriesInstanceUID' AS level, SeriesInstanceUID AS uid),
    STRUCT('SOPInstanceUID' AS level, SOPInstanceUID AS uid)
  ])
WHERE uid IS NOT NULL
GROUP BY uid
HAVING COUNT(DISTINCT level) > 1

UNION ALL

SELECT
  'several_patients',
  MAX(PatientID),
  CAST(NULL AS STRING),
  StudyInstanceUID,
  CAST(NULL AS STRING),
  CAST(NULL AS STRING),
  CAST(NULL AS STRING),
  CAST(NULL AS STRING),
  FORMAT('distinct PatientID: %d', COUNT(DISTINCT PatientID))
FROM `${project}.${dataset}.instances_live`
WHERE StudyInstanceUID IS NOT NULL
GROUP BY StudyInstanceUID
HAVING COUNT(DISTINCT PatientID) > 1

UNION ALL

SELECT
  difference.kind,
  PatientID,
  IssuerOfPatientID,
  CAST(NULL AS STRING),
  CAST(NULL AS STRING),
  CAST(NULL AS STRING),
  CAST(NULL AS STRING),
  CAST(NULL AS STRING),
  FORMAT('distinct %s: %d', difference.attribute, difference.number)
FROM
  `${project}.${dataset}.patients`,
  UNNEST([
    STRUCT(
      'several_names' AS kind, 'PatientName' AS attribute, ARRAY_LENGTH(names) AS number
    ),
    STRUCT(
      'several_birth_dates' AS kind,
      'PatientBirthDate' AS attribute,
      ARRAY_LENGTH(birth_dates) AS number
    ),
    STRUCT('several_sexes' AS kind, 'PatientSex' AS attribute, ARRAY_LENGTH(sexes) AS number)
  ]) AS difference
WHERE difference.number > 1

UNION ALL

-- Dates of acquired images only: a report or a segmentation may be made months later.
SELECT
  'dates_disagree',
  MAX(PatientID),
  CAST(NULL AS STRING),
  StudyInstanceUID,
  SeriesInstanceUID,
  CAST(NULL AS STRING),
  MIN(path),
  ARRAY_AGG(member ORDER BY path, member LIMIT 1)[SAFE_OFFSET(0)],
  FORMAT(
    '%s (days from StudyDate: %d)', attribute, MAX(ABS(DATE_DIFF(day, StudyDate, DAY)))
  )
FROM (
  SELECT
    PatientID,
    StudyInstanceUID,
    SeriesInstanceUID,
    path,
    member,
    StudyDate,
    written.attribute,
    SAFE_CAST(
      REGEXP_REPLACE(
        written.day, '^([0-9]{4})[.]?([0-9]{2})[.]?([0-9]{2}).*', '\\1-\\2-\\3'
      ) AS DATE
    ) AS day
  FROM
    `${project}.${dataset}.instances_live`,
    UNNEST([
      STRUCT('SeriesDate' AS attribute, JSON_VALUE(metadata.SeriesDate) AS day),
      STRUCT('AcquisitionDate' AS attribute, JSON_VALUE(metadata.AcquisitionDate) AS day),
      STRUCT('AcquisitionDateTime' AS attribute, JSON_VALUE(metadata.AcquisitionDateTime) AS day)
    ]) AS written
  WHERE JSON_VALUE(metadata.Rows) IS NOT NULL
    AND NOT REGEXP_CONTAINS(IFNULL(TO_JSON_STRING(metadata.ImageType), ''), '^[[]?"DERIVED')
)
WHERE ABS(DATE_DIFF(day, StudyDate, DAY)) > 1
GROUP BY StudyInstanceUID, SeriesInstanceUID, attribute

UNION ALL

-- Headers can only rank the risk: BurnedInAnnotation is often absent, and sometimes wrong.
SELECT
  'burned_in_risk',
  MAX(PatientID),
  CAST(NULL AS STRING),
  StudyInstanceUID,
  SeriesInstanceUID,
  CAST(NULL AS STRING),
  MIN(path),
  ARRAY_AGG(member ORDER BY path, member LIMIT 1)[SAFE_OFFSET(0)],
  FORMAT('%s (objects: %d)', reason, COUNT(*))
FROM (
  SELECT
    PatientID,
    StudyInstanceUID,
    SeriesInstanceUID,
    path,
    member,
    CASE
      WHEN JSON_VALUE(metadata.BurnedInAnnotation) = 'YES' THEN 'BurnedInAnnotation is YES'
      WHEN REGEXP_CONTAINS(TO_JSON_STRING(metadata.ImageType), 'SAVE|SCREEN')
        THEN 'ImageType names a saved screen'
      WHEN STARTS_WITH(SOPClassUID, '1.2.840.10008.5.1.4.1.1.7') THEN 'secondary capture'
      WHEN JSON_VALUE(metadata.ConversionType) IS NOT NULL THEN 'converted from another source'
      WHEN JSON_VALUE(metadata.BurnedInAnnotation) = 'NO' THEN NULL
      WHEN Modality = 'US' THEN 'ultrasound image'
      WHEN REGEXP_CONTAINS(TO_JSON_STRING(metadata.ImageType), 'SECONDARY')
        THEN 'ImageType is SECONDARY'
      WHEN Manufacturer IS NULL AND ManufacturerModelName IS NULL THEN 'no device is named'
    END AS reason
  FROM `${project}.${dataset}.instances_live`
  WHERE JSON_VALUE(metadata.Rows) IS NOT NULL
)
WHERE reason IS NOT NULL
GROUP BY StudyInstanceUID, SeriesInstanceUID, reason

UNION ALL

SELECT
  finding.kind,
  PatientID,
  CAST(NULL AS STRING),
  StudyInstanceUID,
  SeriesInstanceUID,
  CAST(NULL AS STRING),
  CAST(NULL AS STRING),
  CAST(NULL AS STRING),
  finding.detail
FROM
  (
    SELECT
      *,
      ARRAY_TO_STRING(why_not, ', ') AS reasons,
      REGEXP_CONTAINS(
        ARRAY_TO_STRING(why_not, ', '), 'no_position|differs|not_orthogonal|lateral_shift'
      ) AS is_irregular
    FROM `${project}.${dataset}.series_geometry`
  ),
  UNNEST([
    STRUCT(
      'missing_slices' AS kind,
      missing > 0 AS applies,
      FORMAT('missing: %d, positions: %d', missing, positions) AS detail
    ),
    STRUCT(
      'duplicate_positions' AS kind,
      fewest_at_position < most_at_position AS applies,
      FORMAT('slices: %d, positions: %d', slices - unplaced, positions) AS detail
    ),
    STRUCT(
      'irregular_geometry' AS kind,
      is_irregular AS applies,
      reasons AS detail
    )
  ]) AS finding
WHERE finding.applies
