-- One row for each PatientID and issuer: two hospitals may give the same id to two people.
WITH identified AS (
  SELECT
    *,
    COALESCE(
      JSON_VALUE(metadata.IssuerOfPatientID),
      JSON_VALUE(metadata.IssuerOfPatientID[0]),
      JSON_VALUE(metadata.`00100021`),
      JSON_VALUE(metadata.`00100021`[0]),
      JSON_VALUE(metadata.`00100021`.Value[0])
    ) AS IssuerOfPatientID
  FROM `${project}.${dataset}.instances_live`
  WHERE PatientID IS NOT NULL
)

SELECT
  PatientID,
  IssuerOfPatientID,
  IFNULL(
    ARRAY_AGG(DISTINCT PatientName IGNORE NULLS ORDER BY PatientName), ARRAY<STRING>[]
  ) AS names,
  IFNULL(
    ARRAY_AGG(DISTINCT PatientBirthDate IGNORE NULLS ORDER BY PatientBirthDate), ARRAY<DATE>[]
  ) AS birth_dates,
  IFNULL(
    ARRAY_AGG(DISTINCT PatientSex IGNORE NULLS ORDER BY PatientSex), ARRAY<STRING>[]
  ) AS sexes,
  COUNT(DISTINCT StudyInstanceUID) AS NumberOfPatientRelatedStudies,
  COUNT(DISTINCT SeriesInstanceUID) AS NumberOfPatientRelatedSeries,
  COUNT(DISTINCT SOPInstanceUID) AS NumberOfPatientRelatedInstances,
  MIN(StudyDate) AS first_study_date,
  MAX(StudyDate) AS last_study_date,
  SUM(info.input.size) AS bytes,
  MIN(timestamp) AS first_timestamp,
  MAX(timestamp) AS last_timestamp
FROM identified
GROUP BY PatientID, IssuerOfPatientID
