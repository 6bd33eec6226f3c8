-- One row for each parameter of each protocol: how often its most frequent value occurs.
WITH frequency AS (
  SELECT
    Manufacturer,
    ManufacturerModelName,
    Modality,
    ProtocolName,
    setting.name AS parameter,
    setting.value AS value,
    COUNT(*) AS series
  FROM `${project}.${dataset}.series_attributes`
  CROSS JOIN
${parameters}
  WHERE ProtocolName IS NOT NULL AND setting.value IS NOT NULL
  GROUP BY Manufacturer, ManufacturerModelName, Modality, ProtocolName, parameter, value
),

usual AS (
  SELECT
    Manufacturer,
    ManufacturerModelName,
    Modality,
    ProtocolName,
    parameter,
    ARRAY_AGG(value ORDER BY series DESC, value LIMIT 1)[SAFE_OFFSET(0)] AS usual_value,
    SUM(series) AS series,
    MAX(series) AS usual_series,
    COUNT(*) AS distinct_values
  FROM frequency
  GROUP BY Manufacturer, ManufacturerModelName, Modality, ProtocolName, parameter
)

SELECT
  u.Manufacturer,
  u.ManufacturerModelName,
  u.Modality,
  u.ProtocolName,
  u.parameter,
  u.usual_value,
  u.series,
  u.usual_series,
  u.usual_series / u.series AS usual_share,
  u.distinct_values,
  r.value AS reference_value,
  r.tolerance
FROM usual AS u
LEFT JOIN `${project}.${dataset}.protocol_reference` AS r
  ON r.parameter = u.parameter
  AND IFNULL(r.ProtocolName = u.ProtocolName, r.ProtocolName IS NULL)
  AND IFNULL(r.Manufacturer = u.Manufacturer, r.Manufacturer IS NULL)
  AND IFNULL(r.ManufacturerModelName = u.ManufacturerModelName, r.ManufacturerModelName IS NULL)
  AND IFNULL(r.Modality = u.Modality, r.Modality IS NULL)
QUALIFY ROW_NUMBER() OVER (
  PARTITION BY u.Manufacturer, u.ManufacturerModelName, u.Modality, u.ProtocolName, u.parameter
  ORDER BY
    IF(r.ProtocolName IS NULL, 0, 1)
    + IF(r.Manufacturer IS NULL, 0, 1)
    + IF(r.ManufacturerModelName IS NULL, 0, 1)
    + IF(r.Modality IS NULL, 0, 1) DESC,
    r.value,
    r.tolerance
) = 1
