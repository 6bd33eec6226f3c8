-- One row for each series of each study; where its objects disagree, the greatest value. The
-- header is read in each of the forms that the jsonOutput options give it.
SELECT
  StudyInstanceUID,
  SeriesInstanceUID,
  MAX(PatientID) AS PatientID,
  MAX(StudyDate) AS StudyDate,
  MAX(Modality) AS Modality,
  MAX(SAFE_CAST(COALESCE(
    JSON_VALUE(metadata.SeriesNumber),
    JSON_VALUE(metadata.SeriesNumber[0]),
    JSON_VALUE(metadata.`00200011`),
    JSON_VALUE(metadata.`00200011`[0]),
    JSON_VALUE(metadata.`00200011`.Value[0])
  ) AS INT64)) AS SeriesNumber,
  MAX(COALESCE(
    JSON_VALUE(metadata.SeriesDescription),
    JSON_VALUE(metadata.SeriesDescription[0]),
    JSON_VALUE(metadata.`0008103E`),
    JSON_VALUE(metadata.`0008103E`[0]),
    JSON_VALUE(metadata.`0008103E`.Value[0])
  )) AS SeriesDescription,
  MAX(COALESCE(
    JSON_VALUE(metadata.BodyPartExamined),
    JSON_VALUE(metadata.BodyPartExamined[0]),
    JSON_VALUE(metadata.`00180015`),
    JSON_VALUE(metadata.`00180015`[0]),
    JSON_VALUE(metadata.`00180015`.Value[0])
  )) AS BodyPartExamined,
  COUNT(DISTINCT SOPInstanceUID) AS NumberOfSeriesRelatedInstances,
  SUM(info.input.size) AS bytes,
  MIN(timestamp) AS first_timestamp,
  MAX(timestamp) AS last_timestamp
FROM `${project}.${dataset}.instances_live`
WHERE SeriesInstanceUID IS NOT NULL
GROUP BY StudyInstanceUID, SeriesInstanceUID
