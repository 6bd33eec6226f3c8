-- One row for each study with a dose report: its events, and the totals that its reports state. The
-- totals of the planes of one report are added where dose adds up; of several reports, which are
-- mostly cumulative, the greatest total counts.
WITH events AS (
  SELECT
    StudyInstanceUID,
    MAX(PatientID) AS PatientID,
    MAX(StudyDate) AS StudyDate,
    MIN(started_at) AS first_started_at,
    MAX(started_at) AS last_started_at,
    MAX(device_manufacturer) AS device_manufacturer,
    MAX(device_model) AS device_model,
    COUNTIF(radiation = 'CT') AS ct_events,
    COUNTIF(radiation = 'projection') AS projection_events,
    MAX(ctdi_vol_mGy) AS ctdi_vol_max_mGy,
    SUM(dlp_mGy_cm) AS dlp_mGy_cm,
    SUM(IF(phantom_code = '113690', dlp_mGy_cm, NULL)) AS dlp_head_phantom_mGy_cm,
    SUM(IF(phantom_code = '113691', dlp_mGy_cm, NULL)) AS dlp_body_phantom_mGy_cm,
    SUM(dap_Gy_m2) AS dap_Gy_m2,
    SUM(IF(plane = 'B', NULL, dose_rp_mGy)) AS dose_rp_a_mGy,
    SUM(IF(plane = 'B', dose_rp_mGy, NULL)) AS dose_rp_b_mGy,
    SUM(
      IF(
        laterality_code IN ('24028007', 'G-A100')
        OR target_region_code IN ('73056007', 'T-04020'),
        agd_mGy,
        NULL
      )
    ) AS agd_right_mGy,
    SUM(
      IF(
        laterality_code IN ('7771000', 'G-A101')
        OR target_region_code IN ('80248007', 'T-04030'),
        agd_mGy,
        NULL
      )
    ) AS agd_left_mGy
  FROM `${project}.${dataset}.dose_events`
  GROUP BY StudyInstanceUID
),

items AS (
  SELECT
    StudyInstanceUID,
    PatientID,
    StudyDate,
    COALESCE(SOPInstanceUID, CONCAT(path, ' ', IFNULL(member, ''))) AS report,
    position,
    parent,
    parent_concept_code,
    concept_code,
    code_value,
    unit,
    -- as in dose_events, so that products and sums do not overflow
    IF(ABS(NumericValue) < 1e15, NumericValue, NULL) AS NumericValue
  FROM `${project}.${dataset}.sr_content`
  WHERE depth > 1
    AND parent_concept_scheme = 'DCM'
    AND parent_concept_code IN ('113702', '113811')
    AND concept_scheme = 'DCM'
),

-- An accumulated section of a report; its copies at other paths have the same values.
sections AS (
  SELECT
    StudyInstanceUID,
    report,
    parent,
    MAX(PatientID) AS PatientID,
    MAX(StudyDate) AS StudyDate,
    IFNULL(MAX(IF(concept_code = '113764', code_value, NULL)), '') = '113621' AS is_plane_b,
    MAX(IF(concept_code = '113812', NumericValue, NULL)) AS ct_events,
    MAX(IF(concept_code = '113813' AND quantity = 'dlp', amount, NULL)) AS dlp,
    MAX(IF(concept_code = '113722' AND quantity = 'dap', amount, NULL)) AS dap,
    MAX(IF(concept_code = '113725' AND quantity = 'dose', amount, NULL)) AS dose_rp,
    MAX(IF(concept_code = '113730' AND quantity = 'time', amount, NULL)) AS fluoro_time
  FROM (
    SELECT items.*, units.quantity, NumericValue * units.times / units.per AS amount
    FROM items
${dose_units}
  )
  GROUP BY StudyInstanceUID, report, parent
),

reports AS (
  SELECT
    StudyInstanceUID,
    report,
    MAX(PatientID) AS PatientID,
    MAX(StudyDate) AS StudyDate,
    SUM(ct_events) AS ct_events,
    SUM(dlp) AS dlp,
    SUM(dap) AS dap,
    SUM(IF(is_plane_b, NULL, dose_rp)) AS dose_rp_a,
    SUM(IF(is_plane_b, dose_rp, NULL)) AS dose_rp_b,
    SUM(IF(is_plane_b, NULL, fluoro_time)) AS fluoro_time_a,
    SUM(IF(is_plane_b, fluoro_time, NULL)) AS fluoro_time_b
  FROM sections
  GROUP BY StudyInstanceUID, report
),

stated AS (
  SELECT
    StudyInstanceUID,
    COUNT(*) AS reports,
    MAX(PatientID) AS PatientID,
    MAX(StudyDate) AS StudyDate,
    MAX(ct_events) AS ct_events,
    MAX(dlp) AS dlp,
    MAX(dap) AS dap,
    MAX(dose_rp_a) AS dose_rp_a,
    MAX(dose_rp_b) AS dose_rp_b,
    MAX(fluoro_time_a) AS fluoro_time_a,
    MAX(fluoro_time_b) AS fluoro_time_b
  FROM reports
  GROUP BY StudyInstanceUID
)

SELECT
  COALESCE(events.StudyInstanceUID, stated.StudyInstanceUID) AS StudyInstanceUID,
  COALESCE(events.PatientID, stated.PatientID) AS PatientID,
  COALESCE(events.StudyDate, stated.StudyDate) AS StudyDate,
  events.first_started_at,
  events.last_started_at,
  events.device_manufacturer,
  events.device_model,
  IFNULL(events.ct_events, 0) AS ct_events,
  IFNULL(events.projection_events, 0) AS projection_events,
  events.ctdi_vol_max_mGy,
  events.dlp_mGy_cm,
  events.dlp_head_phantom_mGy_cm,
  events.dlp_body_phantom_mGy_cm,
  events.dap_Gy_m2,
  events.dose_rp_a_mGy,
  events.dose_rp_b_mGy,
  events.agd_right_mGy,
  events.agd_left_mGy,
  IFNULL(stated.reports, 0) AS reports_with_totals,
  SAFE_CAST(stated.ct_events AS INT64) AS stated_ct_events,
  stated.dlp AS stated_dlp_mGy_cm,
  stated.dap AS stated_dap_Gy_m2,
  stated.dose_rp_a AS stated_dose_rp_a_mGy,
  stated.dose_rp_b AS stated_dose_rp_b_mGy,
  stated.fluoro_time_a AS fluoro_time_a_s,
  stated.fluoro_time_b AS fluoro_time_b_s
FROM events
-- Reports without a StudyInstanceUID are one row.
FULL JOIN stated
  ON IFNULL(stated.StudyInstanceUID, '') = IFNULL(events.StudyInstanceUID, '')
