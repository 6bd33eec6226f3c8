-- One row for each study; where its objects have different values, the greatest one. ARRAY_AGG of
-- no rows is NULL, hence IFNULL.
SELECT
  StudyInstanceUID,
  MAX(PatientID) AS PatientID,
  MAX(StudyDate) AS StudyDate,
  MAX(StudyDescription) AS StudyDescription,
  MAX(AccessionNumber) AS AccessionNumber,
  IFNULL(
    ARRAY_AGG(DISTINCT Modality IGNORE NULLS ORDER BY Modality), ARRAY<STRING>[]
  ) AS ModalitiesInStudy,
  COUNT(DISTINCT SeriesInstanceUID) AS NumberOfStudyRelatedSeries,
  COUNT(DISTINCT SOPInstanceUID) AS NumberOfStudyRelatedInstances,
  SUM(info.input.size) AS bytes,
  MIN(timestamp) AS first_timestamp,
  MAX(timestamp) AS last_timestamp,
  MAX(PatientName) AS PatientName,
  MAX(PatientBirthDate) AS PatientBirthDate,
  MAX(PatientSex) AS PatientSex,
  MAX(StudyTime) AS StudyTime
FROM `${project}.${dataset}.instances_live`
WHERE StudyInstanceUID IS NOT NULL
GROUP BY StudyInstanceUID
