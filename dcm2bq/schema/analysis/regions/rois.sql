-- One row for each ROI. Its observations and contours are in sequences of their own, by its number. An
-- instance that is stored at several paths is read once. The local BigQuery forgets that an item of
-- an array is JSON, hence the casts.
WITH structure_set AS (
  SELECT
    path,
    member,
    StudyInstanceUID,
    SeriesInstanceUID,
    SOPInstanceUID,
    PatientID,
    StudyDate,
    JSON_VALUE(metadata.StructureSetLabel) AS StructureSetLabel,
    IF(
      JSON_TYPE(metadata.StructureSetROISequence) = 'array',
      JSON_QUERY_ARRAY(metadata.StructureSetROISequence),
      NULL
    ) AS roi_items,
    IF(
      JSON_TYPE(metadata.RTROIObservationsSequence) = 'array',
      JSON_QUERY_ARRAY(metadata.RTROIObservationsSequence),
      NULL
    ) AS observation_items,
    IF(
      JSON_TYPE(metadata.ROIContourSequence) = 'array',
      JSON_QUERY_ARRAY(metadata.ROIContourSequence),
      NULL
    ) AS drawn_items,
    IF(
      JSON_TYPE(metadata.ReferencedFrameOfReferenceSequence) = 'array',
      JSON_QUERY_ARRAY(metadata.ReferencedFrameOfReferenceSequence),
      NULL
    ) AS place_items,
    -- A reference to bytes in the object takes the place of what does not fit into the row.
    IFNULL(JSON_TYPE(metadata.ROIContourSequence) = 'object', FALSE) AS is_left_out
  FROM `${project}.${dataset}.instances_live`
  WHERE SOPClassUID = '1.2.840.10008.5.1.4.1.1.481.3'
${first_copy}
),

roi AS (
  SELECT s.*, CAST(item AS JSON) AS item
  FROM structure_set AS s, UNNEST(s.roi_items) AS item
),

observation AS (
  SELECT s.path, s.member, CAST(item AS JSON) AS item
  FROM structure_set AS s, UNNEST(s.observation_items) AS item
),

observations_of AS (
  SELECT
    path,
    member,
    JSON_VALUE(item.ReferencedROINumber) AS number,
    STRING_AGG(
      DISTINCT JSON_VALUE(item.RTROIInterpretedType), '\\'
      ORDER BY JSON_VALUE(item.RTROIInterpretedType)
    ) AS types,
    STRING_AGG(
      DISTINCT JSON_VALUE(item.ROIObservationLabel), '\\'
      ORDER BY JSON_VALUE(item.ROIObservationLabel)
    ) AS labels
  FROM observation
  GROUP BY path, member, number
),

drawn AS (
  SELECT s.path, s.member, CAST(item AS JSON) AS item
  FROM structure_set AS s, UNNEST(s.drawn_items) AS item
),

numbered AS (
  SELECT
    path,
    member,
    JSON_VALUE(item.ReferencedROINumber) AS number,
    IFNULL(JSON_TYPE(item.ContourSequence) = 'object', FALSE) AS is_left_out,
    IF(
      JSON_TYPE(item.ContourSequence) = 'array', JSON_QUERY_ARRAY(item.ContourSequence), NULL
    ) AS contour_items
  FROM drawn
),

contour AS (
  SELECT n.path, n.member, n.number, n.is_left_out, CAST(item AS JSON) AS item
  FROM numbered AS n
  LEFT JOIN UNNEST(n.contour_items) AS item ON TRUE
),

contours_of AS (
  SELECT
    path,
    member,
    number,
    LOGICAL_OR(is_left_out) AS is_left_out,
    COUNT(JSON_TYPE(item)) AS contours,
    LOGICAL_OR(JSON_TYPE(item.ContourData) = 'object') AS lacks_points,
    COUNT(DISTINCT SAFE_CAST(JSON_VALUE(item.ContourData[2]) AS FLOAT64)) AS planes
  FROM contour
  GROUP BY path, member, number
),

place AS (
  SELECT s.path, s.member, CAST(item AS JSON) AS item
  FROM structure_set AS s, UNNEST(s.place_items) AS item
),

study_array AS (
  SELECT
    path,
    member,
    JSON_VALUE(item.FrameOfReferenceUID) AS frame,
    IF(
      JSON_TYPE(item.RTReferencedStudySequence) = 'array',
      JSON_QUERY_ARRAY(item.RTReferencedStudySequence),
      NULL
    ) AS items
  FROM place
),

referenced_study AS (
  SELECT a.path, a.member, a.frame, CAST(item AS JSON) AS item
  FROM study_array AS a, UNNEST(a.items) AS item
),

series_array AS (
  SELECT
    path,
    member,
    frame,
    IF(
      JSON_TYPE(item.RTReferencedSeriesSequence) = 'array',
      JSON_QUERY_ARRAY(item.RTReferencedSeriesSequence),
      NULL
    ) AS items
  FROM referenced_study
),

referenced_series AS (
  SELECT a.path, a.member, a.frame, CAST(item AS JSON) AS item
  FROM series_array AS a, UNNEST(a.items) AS item
),

series_of AS (
  SELECT
    path,
    member,
    frame,
    ARRAY_AGG(
      DISTINCT JSON_VALUE(item.SeriesInstanceUID) IGNORE NULLS
      ORDER BY JSON_VALUE(item.SeriesInstanceUID)
    ) AS uids
  FROM referenced_series
  GROUP BY path, member, frame
)

SELECT
  r.path,
  r.member,
  r.StudyInstanceUID,
  r.SeriesInstanceUID,
  r.SOPInstanceUID,
  r.PatientID,
  r.StudyDate,
  r.StructureSetLabel,
  SAFE_CAST(JSON_VALUE(r.item.ROINumber) AS INT64) AS ROINumber,
  JSON_VALUE(r.item.ROIName) AS ROIName,
  JSON_VALUE(r.item.ROIGenerationAlgorithm) AS ROIGenerationAlgorithm,
  o.types AS RTROIInterpretedType,
  o.labels AS ROIObservationLabel,
  IF(r.is_left_out OR c.is_left_out, NULL, IFNULL(c.contours, 0)) AS contours,
  IF(r.is_left_out OR c.is_left_out OR c.lacks_points, NULL, IFNULL(c.planes, 0)) AS planes,
  JSON_VALUE(r.item.ReferencedFrameOfReferenceUID) AS FrameOfReferenceUID,
  IFNULL(s.uids, ARRAY<STRING>[]) AS referenced_series
FROM roi AS r
LEFT JOIN observations_of AS o
  ON o.path = r.path
  AND o.member IS NOT DISTINCT FROM r.member
  AND o.number = JSON_VALUE(r.item.ROINumber)
LEFT JOIN contours_of AS c
  ON c.path = r.path
  AND c.member IS NOT DISTINCT FROM r.member
  AND c.number = JSON_VALUE(r.item.ROINumber)
LEFT JOIN series_of AS s
  ON s.path = r.path
  AND s.member IS NOT DISTINCT FROM r.member
  AND s.frame = JSON_VALUE(r.item.ReferencedFrameOfReferenceUID)
