-- One row for each parameter of a series that is not what its protocol has elsewhere. The first two
-- joined columns are equalities, so that BigQuery can hash them.
SELECT
  s.StudyInstanceUID,
  s.SeriesInstanceUID,
  s.PatientID,
  s.StudyDate,
  s.Manufacturer,
  s.ManufacturerModelName,
  s.StationName,
  s.SoftwareVersions,
  s.Modality,
  s.ProtocolName,
  s.SeriesDescription,
  s.parameter,
  s.value,
  COALESCE(p.reference_value, p.usual_value) AS expected_value,
  NOT p.reference_value IS NULL AS from_reference,
  p.usual_share,
  s.parameter IN UNNEST(s.varying) AS varies
FROM (
  SELECT
    StudyInstanceUID,
    SeriesInstanceUID,
    PatientID,
    StudyDate,
    Manufacturer,
    ManufacturerModelName,
    StationName,
    SoftwareVersions,
    Modality,
    ProtocolName,
    SeriesDescription,
    varying,
    setting.name AS parameter,
    setting.value AS value
  FROM `${project}.${dataset}.series_attributes`
  CROSS JOIN
${parameters}
  WHERE StudyDate >= since
) AS s
INNER JOIN `${project}.${dataset}.protocols` AS p
  ON p.ProtocolName = s.ProtocolName
  AND p.parameter = s.parameter
  AND p.Manufacturer IS NOT DISTINCT FROM s.Manufacturer
  AND p.ManufacturerModelName IS NOT DISTINCT FROM s.ManufacturerModelName
  AND p.Modality IS NOT DISTINCT FROM s.Modality
WHERE s.value <> COALESCE(p.reference_value, p.usual_value)
  AND IFNULL(
    -- Halves, since the difference of two enormous numbers would be an error.
    ABS(
      SAFE_CAST(s.value AS FLOAT64) / 2
      - SAFE_CAST(COALESCE(p.reference_value, p.usual_value) AS FLOAT64) / 2
    ) > IFNULL(p.tolerance, 0) / 2,
    TRUE
  )
