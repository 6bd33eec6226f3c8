      -- Whether the row i of instances closes the dead letter or dismissal d: it is a delete
      -- marker of the same or a higher generation, or the row of a later, successful attempt. A
      -- marker closes the dead letters of all members of an archive.
      i.path = d.path
      AND (
        (
          i.event IN ('deleted', 'archived')
          AND SAFE_CAST(i.version AS INT64) >= SAFE_CAST(d.version AS INT64)
        )
        OR (
          i.event IN ('finalized', 'metadataUpdated', 'expanded')
          AND d.event IN ('finalized', 'metadataUpdated')
          AND i.version = d.version
          AND i.member IS NOT DISTINCT FROM d.member
          AND i.ingested_at > d.seen
        )
      )
