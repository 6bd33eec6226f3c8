      -- Whether the delete marker m hides the row r: it has the same or a higher generation.
      m.event IN ('deleted', 'archived')
      AND m.path = r.path
      AND CAST(m.version AS INT64) >= CAST(r.version AS INT64)
