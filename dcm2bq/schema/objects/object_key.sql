      -- The key of the row r: 132 bits, since look-ups of late rows read it of all objects.
      LEFT(TO_BASE64(SHA256(TO_JSON_STRING([
        r.path, r.member, r.StudyInstanceUID, r.SeriesInstanceUID, r.SOPInstanceUID
      ]))), 22)
