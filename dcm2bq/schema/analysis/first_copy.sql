  -- One object for each instance: that of the first path. An object without SOPInstanceUID is an
  -- instance of its own.
  QUALIFY ROW_NUMBER() OVER (
    PARTITION BY
      StudyInstanceUID,
      SeriesInstanceUID,
      COALESCE(SOPInstanceUID, CONCAT(path, ' ', IFNULL(member, '')))
    ORDER BY path, member
  ) = 1
