-- Brings `objects` up to date with the rows of the log from ${since} on. Each row of `objects` is
-- the greatest of its key by version, timestamp and ingested_at, so merging a part of the log twice,
-- late or beside another refresh gives the same rows. All rows and refreshed_at change at once, or
-- none.
MERGE `${project}.${dataset}.objects` AS o
USING (
  -- The newest row of each object.
  SELECT
${object_key} AS key,
${object_columns},
    CAST(NULL AS STRING) AS marked_path,
    CAST(NULL AS INT64) AS gone,
    CAST(NULL AS TIMESTAMP) AS refreshed_at
  FROM `${project}.${dataset}.${instances}` AS r
  WHERE r.event IN ('finalized', 'metadataUpdated')
    AND r.ingested_at >= ${since}
${newest}
  UNION ALL
  -- The highest delete marker of each path.
  SELECT
    LEFT(TO_BASE64(SHA256(TO_JSON_STRING([m.path]))), 22) AS key,
    m.timestamp,
    m.ingested_at,
    m.event,
    CAST(NULL AS STRING) AS path,
    m.version,
    CAST(NULL AS STRING) AS StudyInstanceUID,
    CAST(NULL AS STRING) AS SeriesInstanceUID,
    CAST(NULL AS STRING) AS SOPInstanceUID,
    CAST(NULL AS STRING) AS SOPClassUID,
    CAST(NULL AS STRING) AS Modality,
    CAST(NULL AS STRING) AS PatientID,
    CAST(NULL AS DATE) AS StudyDate,
    CAST(NULL AS INT64) AS size,
    CAST(NULL AS STRING) AS storage_class,
    CAST(NULL AS STRING) AS transfer_syntax_uid,
    CAST(NULL AS STRING) AS member,
    m.path AS marked_path,
    CAST(m.version AS INT64) AS gone,
    CAST(NULL AS TIMESTAMP) AS refreshed_at
  FROM `${project}.${dataset}.${instances}` AS m
  WHERE m.event IN ('deleted', 'archived')
    AND m.ingested_at >= ${since}
  QUALIFY ROW_NUMBER() OVER (
    PARTITION BY m.path
    ORDER BY CAST(m.version AS INT64) DESC, m.timestamp DESC, m.ingested_at DESC
  ) = 1
  UNION ALL
  -- When this was done. Every refresh changes this row, so BigQuery lets no two run at once.
  SELECT
    '' AS key,
    CURRENT_TIMESTAMP() AS timestamp,
    TIMESTAMP '1970-01-01 00:00:00+00:00' AS ingested_at,
    'refreshed' AS event,
    CAST(NULL AS STRING) AS path,
    '0' AS version,
    CAST(NULL AS STRING) AS StudyInstanceUID,
    CAST(NULL AS STRING) AS SeriesInstanceUID,
    CAST(NULL AS STRING) AS SOPInstanceUID,
    CAST(NULL AS STRING) AS SOPClassUID,
    CAST(NULL AS STRING) AS Modality,
    CAST(NULL AS STRING) AS PatientID,
    CAST(NULL AS DATE) AS StudyDate,
    CAST(NULL AS INT64) AS size,
    CAST(NULL AS STRING) AS storage_class,
    CAST(NULL AS STRING) AS transfer_syntax_uid,
    CAST(NULL AS STRING) AS member,
    CAST(NULL AS STRING) AS marked_path,
    CAST(NULL AS INT64) AS gone,
    CURRENT_TIMESTAMP() AS refreshed_at
) AS s
ON o.key = s.key
WHEN MATCHED AND (
  CAST(s.version AS INT64) > CAST(o.version AS INT64)
  OR (
    s.version = o.version
    AND (
      s.timestamp > o.timestamp
      OR (s.timestamp = o.timestamp AND s.ingested_at > o.ingested_at)
    )
  )
) THEN
  UPDATE SET
    timestamp = s.timestamp,
    ingested_at = s.ingested_at,
    event = s.event,
    version = s.version,
    SOPClassUID = s.SOPClassUID,
    Modality = s.Modality,
    PatientID = s.PatientID,
    StudyDate = s.StudyDate,
    size = s.size,
    storage_class = s.storage_class,
    transfer_syntax_uid = s.transfer_syntax_uid,
    gone = s.gone,
    refreshed_at = s.refreshed_at
WHEN NOT MATCHED THEN
  INSERT (
    key, timestamp, ingested_at, event, path, version, StudyInstanceUID, SeriesInstanceUID,
    SOPInstanceUID, SOPClassUID, Modality, PatientID, StudyDate, size, storage_class,
    transfer_syntax_uid, member, marked_path, gone, refreshed_at
  )
  VALUES (
    s.key, s.timestamp, s.ingested_at, s.event, s.path, s.version, s.StudyInstanceUID,
    s.SeriesInstanceUID, s.SOPInstanceUID, s.SOPClassUID, s.Modality, s.PatientID, s.StudyDate,
    s.size, s.storage_class, s.transfer_syntax_uid, s.member, s.marked_path, s.gone, s.refreshed_at
  )
