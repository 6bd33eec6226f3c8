-- One row for each study; where its objects disagree, the greatest value. The header is read
-- in each of the forms that the jsonOutput options give it. Within a query an array of nothing
-- would be null, not empty.
SELECT
  StudyInstanceUID,
  MAX(PatientID) AS PatientID,
  MAX(StudyDate) AS StudyDate,
  MAX(COALESCE(
    JSON_VALUE(metadata.StudyDescription),
    JSON_VALUE(metadata.StudyDescription[0]),
    JSON_VALUE(metadata.`00081030`),
    JSON_VALUE(metadata.`00081030`[0]),
    JSON_VALUE(metadata.`00081030`.Value[0])
  )) AS StudyDescription,
  MAX(COALESCE(
    JSON_VALUE(metadata.AccessionNumber),
    JSON_VALUE(metadata.AccessionNumber[0]),
    JSON_VALUE(metadata.`00080050`),
    JSON_VALUE(metadata.`00080050`[0]),
    JSON_VALUE(metadata.`00080050`.Value[0])
  )) AS AccessionNumber,
  IFNULL(
    ARRAY_AGG(DISTINCT Modality IGNORE NULLS ORDER BY Modality), ARRAY<STRING>[]
  ) AS ModalitiesInStudy,
  COUNT(DISTINCT SeriesInstanceUID) AS NumberOfStudyRelatedSeries,
  COUNT(DISTINCT SOPInstanceUID) AS NumberOfStudyRelatedInstances,
  SUM(info.input.size) AS bytes,
  MIN(timestamp) AS first_timestamp,
  MAX(timestamp) AS last_timestamp
FROM `${project}.${dataset}.instances_live`
WHERE StudyInstanceUID IS NOT NULL
GROUP BY StudyInstanceUID
