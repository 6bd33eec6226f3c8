-- One row for each segment. The SOP class is more reliable than Modality. An instance that is stored
-- at several paths is read once. The local BigQuery forgets that an item of an array is JSON, hence
-- the casts.
WITH segmentation AS (
  SELECT
    path,
    member,
    StudyInstanceUID,
    SeriesInstanceUID,
    SOPInstanceUID,
    PatientID,
    StudyDate,
    JSON_VALUE(metadata.SegmentationType) AS SegmentationType,
    IF(
      JSON_TYPE(metadata.SegmentSequence) = 'array',
      JSON_QUERY_ARRAY(metadata.SegmentSequence),
      NULL
    ) AS segment_items,
    IF(
      JSON_TYPE(metadata.ReferencedSeriesSequence) = 'array',
      JSON_QUERY_ARRAY(metadata.ReferencedSeriesSequence),
      NULL
    ) AS series_items,
    IF(
      JSON_TYPE(metadata.PerFrameFunctionalGroupsSequence) = 'array',
      JSON_QUERY_ARRAY(metadata.PerFrameFunctionalGroupsSequence),
      NULL
    ) AS frame_items,
    JSON_TYPE(metadata.PerFrameFunctionalGroupsSequence) = 'array' AS has_frames,
    -- A segmentation of one segment may name it once, for all frames.
    JSON_VALUE(
      metadata.SharedFunctionalGroupsSequence[0].SegmentIdentificationSequence[0].ReferencedSegmentNumber
    ) AS shared_number
  FROM `${project}.${dataset}.instances_live`
  WHERE SOPClassUID = '1.2.840.10008.5.1.4.1.1.66.4'
${first_copy}
),

segment AS (
  SELECT s.*, CAST(item AS JSON) AS item
  FROM segmentation AS s, UNNEST(s.segment_items) AS item
),

frame AS (
  SELECT s.path, s.member, s.shared_number, CAST(item AS JSON) AS item
  FROM segmentation AS s, UNNEST(s.frame_items) AS item
),

frames_of AS (
  SELECT
    path,
    member,
    COALESCE(
      JSON_VALUE(item.SegmentIdentificationSequence[0].ReferencedSegmentNumber), shared_number
    ) AS number,
    COUNT(*) AS frames
  FROM frame
  GROUP BY path, member, number
),

referenced AS (
  SELECT s.path, s.member, CAST(item AS JSON) AS item
  FROM segmentation AS s, UNNEST(s.series_items) AS item
),

series_of AS (
  SELECT
    path,
    member,
    ARRAY_AGG(
      DISTINCT JSON_VALUE(item.SeriesInstanceUID) IGNORE NULLS
      ORDER BY JSON_VALUE(item.SeriesInstanceUID)
    ) AS uids
  FROM referenced
  GROUP BY path, member
)

SELECT
  s.path,
  s.member,
  s.StudyInstanceUID,
  s.SeriesInstanceUID,
  s.SOPInstanceUID,
  s.PatientID,
  s.StudyDate,
  s.SegmentationType,
  SAFE_CAST(JSON_VALUE(s.item.SegmentNumber) AS INT64) AS SegmentNumber,
  JSON_VALUE(s.item.SegmentLabel) AS SegmentLabel,
  JSON_VALUE(s.item.SegmentedPropertyCategoryCodeSequence[0].CodingSchemeDesignator)
    AS category_scheme,
  JSON_VALUE(s.item.SegmentedPropertyCategoryCodeSequence[0].CodeValue) AS category_code,
  JSON_VALUE(s.item.SegmentedPropertyCategoryCodeSequence[0].CodeMeaning) AS category_meaning,
  JSON_VALUE(s.item.SegmentedPropertyTypeCodeSequence[0].CodingSchemeDesignator) AS type_scheme,
  JSON_VALUE(s.item.SegmentedPropertyTypeCodeSequence[0].CodeValue) AS type_code,
  JSON_VALUE(s.item.SegmentedPropertyTypeCodeSequence[0].CodeMeaning) AS type_meaning,
  JSON_VALUE(
    s.item.SegmentedPropertyTypeCodeSequence[0]
      .SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning
  ) AS modifier_meaning,
  JSON_VALUE(s.item.AnatomicRegionSequence[0].CodingSchemeDesignator) AS region_scheme,
  JSON_VALUE(s.item.AnatomicRegionSequence[0].CodeValue) AS region_code,
  JSON_VALUE(s.item.AnatomicRegionSequence[0].CodeMeaning) AS region_meaning,
  JSON_VALUE(s.item.SegmentAlgorithmType) AS SegmentAlgorithmType,
  JSON_VALUE(s.item.SegmentAlgorithmName) AS SegmentAlgorithmName,
  JSON_VALUE(s.item.TrackingID) AS TrackingID,
  JSON_VALUE(s.item.TrackingUID) AS TrackingUID,
  IF(s.has_frames, IFNULL(f.frames, 0), NULL) AS frames,
  IFNULL(r.uids, ARRAY<STRING>[]) AS referenced_series
FROM segment AS s
LEFT JOIN frames_of AS f
  ON f.path = s.path
  AND f.member IS NOT DISTINCT FROM s.member
  AND f.number = JSON_VALUE(s.item.SegmentNumber)
LEFT JOIN series_of AS r ON r.path = s.path AND r.member IS NOT DISTINCT FROM s.member
