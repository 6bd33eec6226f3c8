-- One row for each device and software version. ARRAY_AGG of no rows is NULL, hence IFNULL.
SELECT
  Manufacturer,
  ManufacturerModelName,
  DeviceSerialNumber,
  StationName,
  SoftwareVersions,
  IFNULL(ARRAY_AGG(DISTINCT Modality IGNORE NULLS ORDER BY Modality), ARRAY<STRING>[]) AS modalities,
  MIN(StudyDate) AS first_study_date,
  MAX(StudyDate) AS last_study_date,
  COUNT(DISTINCT StudyInstanceUID) AS studies,
  COUNT(*) AS series,
  SUM(NumberOfSeriesRelatedInstances) AS instances
FROM `${project}.${dataset}.series_attributes`
WHERE COALESCE(
  Manufacturer, ManufacturerModelName, DeviceSerialNumber, StationName, SoftwareVersions
) IS NOT NULL
GROUP BY Manufacturer, ManufacturerModelName, DeviceSerialNumber, StationName, SoftwareVersions
