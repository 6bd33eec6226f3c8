SELECT
  Modality,
  info.input.storage_class AS storage_class,
  info.transfer_syntax_uid AS transfer_syntax_uid,
  EXTRACT(YEAR FROM StudyDate) AS study_year,
  COUNT(*) AS objects,
  COUNT(member) AS members,
  SUM(info.input.size) AS bytes,
  MIN(timestamp) AS first_timestamp,
  MAX(timestamp) AS last_timestamp
FROM `${project}.${dataset}.instances_live`
GROUP BY Modality, storage_class, transfer_syntax_uid, study_year
