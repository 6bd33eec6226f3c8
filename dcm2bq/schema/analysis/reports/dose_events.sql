-- One row for each irradiation event and plane. Cumulative reports repeat events, and so do copies
-- of a report: the row comes from the report that says most about the event. A report is read once,
-- by sections, the children of its root (PS3.16 TID 10001 and 10011). A number of 1e15 or more is not
-- a dose, and products and sums must not overflow, which would be an error.
WITH items AS (
  SELECT
    * REPLACE (IF(ABS(NumericValue) < 1e15, NumericValue, NULL) AS NumericValue),
    CONCAT(concept_scheme, ':', concept_code) AS concept,
    STRUCT(code_value AS code, code_meaning AS meaning) AS coded,
    REGEXP_EXTRACT(position, '^1[.][0-9]+') AS section
  FROM `${project}.${dataset}.sr_content`
  WHERE depth > 0
),

measured AS (
  SELECT
    items.*,
    units.quantity,
    NumericValue * units.times / units.per AS amount,
    IF(
      NumericValue IS NOT NULL
      AND IFNULL(units.quantity, '') != CASE
        WHEN concept IN ('DCM:113830', 'DCM:113930', 'DCM:113738', 'DCM:111631') THEN 'dose'
        WHEN concept = 'DCM:113838' THEN 'dlp'
        WHEN concept = 'DCM:122130' THEN 'dap'
      END,
      COALESCE(items.unit, 'none'),
      NULL
    ) AS unknown_unit,
    MAX(IF(depth = 1 AND concept = 'DCM:121014', TextValue, NULL)) OVER report
      AS observer_manufacturer,
    MAX(IF(depth = 1 AND concept = 'DCM:121015', TextValue, NULL)) OVER report AS observer_model,
    MAX(IF(depth = 1 AND concept = 'DCM:121016', TextValue, NULL)) OVER report AS observer_serial,
    FIRST_VALUE(IF(concept IN ('DCM:113820', 'DCM:113721'), coded, NULL) IGNORE NULLS)
      OVER in_order AS type,
    FIRST_VALUE(IF(concept = 'DCM:123014', coded, NULL) IGNORE NULLS)
      OVER in_order AS target_region,
    FIRST_VALUE(IF(concept IN ('SCT:272741003', 'SRT:G-C171'), coded, NULL) IGNORE NULLS)
      OVER in_order AS laterality,
    FIRST_VALUE(IF(concept = 'DCM:113835', coded, NULL) IGNORE NULLS) OVER in_order AS phantom
  FROM items
${dose_units}
  WINDOW
    report AS (PARTITION BY path, member),
    in_order AS (
      PARTITION BY path, member, section
      ORDER BY reading_order
      ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING
    )
),

events AS (
  SELECT
    path,
    member,
    StudyInstanceUID,
    SeriesInstanceUID,
    SOPInstanceUID,
    PatientID,
    StudyDate,
    section AS position,
    COUNT(*) AS items,
    MAX(IF(concept = 'DCM:113769', UID, NULL)) AS event_uid,
    IF(LOGICAL_OR(depth = 1 AND concept = 'DCM:113819'), 'CT', 'projection') AS radiation,
    CASE MAX(IF(concept = 'DCM:113764', code_value, NULL))
      WHEN '113620' THEN 'A'
      WHEN '113621' THEN 'B'
      WHEN '113622' THEN 'single'
    END AS plane,
    MIN(IF(concept = 'DCM:111526', DateTime, NULL)) AS started_at,
    MAX(IF(concept = 'DCM:125203', TextValue, NULL)) AS protocol,
    ANY_VALUE(type) AS type,
    ANY_VALUE(target_region) AS target_region,
    ANY_VALUE(laterality) AS laterality,
    ANY_VALUE(phantom) AS phantom,
    MAX(IF(concept = 'DCM:113830' AND quantity = 'dose', amount, NULL)) AS ctdi_vol_mGy,
    MAX(IF(concept = 'DCM:113838' AND quantity = 'dlp', amount, NULL)) AS dlp_mGy_cm,
    MAX(IF(concept = 'DCM:113930' AND quantity = 'dose', amount, NULL)) AS ssde_mGy,
    MAX(IF(concept = 'DCM:113825' AND quantity = 'length', amount, NULL)) AS scanning_length_mm,
    MAX(IF(concept = 'DCM:122130' AND quantity = 'dap', amount, NULL)) AS dap_Gy_m2,
    MAX(IF(concept = 'DCM:113738' AND quantity = 'dose', amount, NULL)) AS dose_rp_mGy,
    MAX(IF(concept = 'DCM:111631' AND quantity = 'dose', amount, NULL)) AS agd_mGy,
    MAX(IF(concept = 'DCM:113824' AND quantity = 'time', amount, NULL)) AS exposure_time_s,
    MAX(IF(concept = 'DCM:113742' AND quantity = 'time', amount, NULL)) AS irradiation_duration_s,
    MAX(IF(concept = 'DCM:113733' AND quantity = 'voltage', amount, NULL)) AS kvp_kV,
    MAX(IF(concept = 'DCM:113734' AND quantity = 'current', amount, NULL)) AS tube_current_mA,
    COALESCE(
      MAX(IF(concept = 'DCM:113878', TextValue, NULL)),
      MAX(observer_manufacturer),
      MAX(Manufacturer)
    ) AS device_manufacturer,
    COALESCE(
      MAX(IF(concept = 'DCM:113879', TextValue, NULL)),
      MAX(observer_model),
      MAX(ManufacturerModelName)
    ) AS device_model,
    COALESCE(
      MAX(IF(concept = 'DCM:113880', TextValue, NULL)),
      MAX(observer_serial),
      MAX(DeviceSerialNumber)
    ) AS device_serial,
    IFNULL(
      ARRAY_AGG(DISTINCT unknown_unit IGNORE NULLS ORDER BY unknown_unit), ARRAY<STRING>[]
    ) AS unknown_units
  FROM measured
  WHERE section IS NOT NULL
  GROUP BY
    path, member, StudyInstanceUID, SeriesInstanceUID, SOPInstanceUID, PatientID, StudyDate, section
  HAVING LOGICAL_OR(
    depth = 1 AND ValueType = 'CONTAINER' AND concept IN ('DCM:113819', 'DCM:113706')
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
  position,
  event_uid,
  radiation,
  plane,
  started_at,
  protocol,
  type.code AS type_code,
  type.meaning AS type_meaning,
  target_region.code AS target_region_code,
  target_region.meaning AS target_region_meaning,
  laterality.code AS laterality_code,
  laterality.meaning AS laterality_meaning,
  ctdi_vol_mGy,
  phantom.code AS phantom_code,
  phantom.meaning AS phantom_meaning,
  dlp_mGy_cm,
  ssde_mGy,
  scanning_length_mm,
  dap_Gy_m2,
  dose_rp_mGy,
  agd_mGy,
  exposure_time_s,
  irradiation_duration_s,
  kvp_kV,
  tube_current_mA,
  device_manufacturer,
  device_model,
  device_serial,
  unknown_units
FROM events
WHERE TRUE  -- QUALIFY may need a WHERE, GROUP BY or HAVING before it
QUALIFY ROW_NUMBER() OVER (
  PARTITION BY
    COALESCE(
      event_uid,
      CONCAT(
        COALESCE(SOPInstanceUID, CONCAT(path, ' ', IFNULL(member, ''))), ' ', position
      )
    ),
    plane
  ORDER BY items DESC, SOPInstanceUID, path, member
) = 1
