-- One row for each series of each study; where its objects have different values, the greatest one.
SELECT
  StudyInstanceUID,
  SeriesInstanceUID,
  MAX(PatientID) AS PatientID,
  MAX(StudyDate) AS StudyDate,
  MAX(Modality) AS Modality,
  MAX(SeriesNumber) AS SeriesNumber,
  MAX(SeriesDescription) AS SeriesDescription,
  MAX(BodyPartExamined) AS BodyPartExamined,
  COUNT(DISTINCT SOPInstanceUID) AS NumberOfSeriesRelatedInstances,
  SUM(info.input.size) AS bytes,
  MIN(timestamp) AS first_timestamp,
  MAX(timestamp) AS last_timestamp,
  MAX(Manufacturer) AS Manufacturer,
  MAX(ManufacturerModelName) AS ManufacturerModelName,
  MAX(StationName) AS StationName
FROM `${project}.${dataset}.instances_live`
WHERE SeriesInstanceUID IS NOT NULL
GROUP BY StudyInstanceUID, SeriesInstanceUID
