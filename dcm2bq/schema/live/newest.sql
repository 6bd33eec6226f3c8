-- The newest row of each path, member and UIDs. Of equal rows, which a retried insert leaves, any one.
QUALIFY ROW_NUMBER() OVER (
  PARTITION BY r.StudyInstanceUID, r.SeriesInstanceUID, r.SOPInstanceUID, r.path, r.member
  ORDER BY CAST(r.version AS INT64) DESC, r.timestamp DESC, r.ingested_at DESC
) = 1
