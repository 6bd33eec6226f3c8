      -- Whether the row s supersedes the row r: it has the same path, member and UIDs, and
      -- is newer.
      s.event IN ('finalized', 'metadataUpdated')
      AND s.path = r.path
      AND s.member IS NOT DISTINCT FROM r.member
      AND s.StudyInstanceUID IS NOT DISTINCT FROM r.StudyInstanceUID
      AND s.SeriesInstanceUID IS NOT DISTINCT FROM r.SeriesInstanceUID
      AND s.SOPInstanceUID IS NOT DISTINCT FROM r.SOPInstanceUID
      AND CAST(s.version AS INT64) >= CAST(r.version AS INT64)
      AND (
        CAST(s.version AS INT64) > CAST(r.version AS INT64)
        OR s.timestamp > r.timestamp
        OR (s.timestamp = r.timestamp AND s.ingested_at > r.ingested_at)
      )
