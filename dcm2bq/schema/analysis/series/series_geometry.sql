-- One row for each series of CT, MR or PT images: whether they are the slices of a regular volume. An
-- instance that is stored at several paths counts once. The frames of enhanced objects are slices.
WITH image AS (
  SELECT
    StudyInstanceUID,
    SeriesInstanceUID,
    PatientID,
    StudyDate,
    Modality,
    IFNULL(REGEXP_CONTAINS(TO_JSON_STRING(metadata.ImageType), 'LOCALIZER|MIP'), FALSE) AS excluded,
    COALESCE(
      metadata.SharedFunctionalGroupsSequence[0].PlanePositionSequence[0].ImagePositionPatient,
      metadata.ImagePositionPatient
    ) AS position,
    COALESCE(
      metadata.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0].ImageOrientationPatient,
      metadata.ImageOrientationPatient
    ) AS orientation,
    COALESCE(
      metadata.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing,
      metadata.PixelSpacing
    ) AS pixel_spacing,
    CONCAT(JSON_VALUE(metadata.Rows), 'x', JSON_VALUE(metadata.Columns)) AS matrix,
    IF(
      JSON_TYPE(metadata.PerFrameFunctionalGroupsSequence) = 'array',
      JSON_QUERY_ARRAY(metadata.PerFrameFunctionalGroupsSequence),
      NULL
    ) AS frames
  FROM `${project}.${dataset}.instances_live`
  WHERE SeriesInstanceUID IS NOT NULL
    AND SOPClassUID IN (
      '1.2.840.10008.5.1.4.1.1.2', -- CT
      '1.2.840.10008.5.1.4.1.1.2.1', -- Enhanced CT
      '1.2.840.10008.5.1.4.1.1.2.2', -- Legacy Converted Enhanced CT
      '1.2.840.10008.5.1.4.1.1.4', -- MR
      '1.2.840.10008.5.1.4.1.1.4.1', -- Enhanced MR
      '1.2.840.10008.5.1.4.1.1.4.3', -- Enhanced MR Color
      '1.2.840.10008.5.1.4.1.1.4.4', -- Legacy Converted Enhanced MR
      '1.2.840.10008.5.1.4.1.1.128', -- PET
      '1.2.840.10008.5.1.4.1.1.128.1', -- Legacy Converted Enhanced PET
      '1.2.840.10008.5.1.4.1.1.130' -- Enhanced PET
    )
${first_copy}
),

-- The local BigQuery forgets that an item of an array is JSON, hence the cast.
framed AS (
  SELECT i.*, CAST(frame AS JSON) AS item
  FROM image AS i
  LEFT JOIN UNNEST(i.frames) AS frame ON TRUE
),

-- A slice has its own attributes, or those of the object. An excluded image has none, so that it
-- takes part in nothing but its count.
slice AS (
  SELECT
    StudyInstanceUID,
    SeriesInstanceUID,
    PatientID,
    StudyDate,
    Modality,
    excluded,
    IF(
      excluded, NULL, COALESCE(item.PlanePositionSequence[0].ImagePositionPatient, position)
    ) AS position,
    IF(
      excluded,
      NULL,
      COALESCE(item.PlaneOrientationSequence[0].ImageOrientationPatient, orientation)
    ) AS orientation,
    IF(
      excluded, NULL, COALESCE(item.PixelMeasuresSequence[0].PixelSpacing, pixel_spacing)
    ) AS pixel_spacing,
    IF(excluded, NULL, matrix) AS matrix
  FROM framed
),

written AS (
  SELECT * REPLACE (
    IF(JSON_TYPE(position) = 'array', JSON_VALUE_ARRAY(position), NULL) AS position,
    IF(JSON_TYPE(orientation) = 'array', JSON_VALUE_ARRAY(orientation), NULL) AS orientation,
    IF(JSON_TYPE(pixel_spacing) = 'array', JSON_VALUE_ARRAY(pixel_spacing), NULL) AS pixel_spacing
  )
  FROM slice
),

-- The directions of a row (r) and of a column (c), and the position of the first pixel (p), in mm.
vector AS (
  SELECT
    *,
    SAFE_CAST(orientation[SAFE_OFFSET(0)] AS FLOAT64) AS rx,
    SAFE_CAST(orientation[SAFE_OFFSET(1)] AS FLOAT64) AS ry,
    SAFE_CAST(orientation[SAFE_OFFSET(2)] AS FLOAT64) AS rz,
    SAFE_CAST(orientation[SAFE_OFFSET(3)] AS FLOAT64) AS cx,
    SAFE_CAST(orientation[SAFE_OFFSET(4)] AS FLOAT64) AS cy,
    SAFE_CAST(orientation[SAFE_OFFSET(5)] AS FLOAT64) AS cz,
    SAFE_CAST(position[SAFE_OFFSET(0)] AS FLOAT64) AS px,
    SAFE_CAST(position[SAFE_OFFSET(1)] AS FLOAT64) AS py,
    SAFE_CAST(position[SAFE_OFFSET(2)] AS FLOAT64) AS pz,
    SAFE_CAST(pixel_spacing[SAFE_OFFSET(0)] AS FLOAT64) AS row_spacing,
    SAFE_CAST(pixel_spacing[SAFE_OFFSET(1)] AS FLOAT64) AS column_spacing
  FROM written
),

-- Products must not overflow, which would be an error, nor the number of missing slices. Directions
-- are unit vectors, so their numbers are at most 1. Comparisons with NaN are not true.
bounded AS (
  SELECT * REPLACE (
    IF(ABS(rx) < 2, rx, NULL) AS rx,
    IF(ABS(ry) < 2, ry, NULL) AS ry,
    IF(ABS(rz) < 2, rz, NULL) AS rz,
    IF(ABS(cx) < 2, cx, NULL) AS cx,
    IF(ABS(cy) < 2, cy, NULL) AS cy,
    IF(ABS(cz) < 2, cz, NULL) AS cz,
    IF(ABS(px) < 1e6, px, NULL) AS px,
    IF(ABS(py) < 1e6, py, NULL) AS py,
    IF(ABS(pz) < 1e6, pz, NULL) AS pz,
    IF(ABS(row_spacing) < 1e6, row_spacing, NULL) AS row_spacing,
    IF(ABS(column_spacing) < 1e6, column_spacing, NULL) AS column_spacing
  )
  FROM vector
),

normal AS (
  SELECT
    *,
    ry * cz - rz * cy AS nx,
    rz * cx - rx * cz AS ny,
    rx * cy - ry * cx AS nz
  FROM bounded
),

-- Where the slice is along its normal.
placed AS (
  SELECT *, px * nx + py * ny + pz * nz AS along
  FROM normal
),

-- Slices less than 0.01 mm apart are at one position. `gap` is the distance to the position before.
stepped AS (
  SELECT
    *,
    along - LAG(along) OVER (
      PARTITION BY StudyInstanceUID, SeriesInstanceUID ORDER BY along
    ) AS step
  FROM placed
),

gapped AS (
  SELECT *, IF(step >= 0.01, step, NULL) AS gap
  FROM stepped
),

numbered AS (
  SELECT
    *,
    COUNT(gap) OVER (PARTITION BY StudyInstanceUID, SeriesInstanceUID ORDER BY along) AS place,
    MIN(gap) OVER (PARTITION BY StudyInstanceUID, SeriesInstanceUID) AS smallest_gap,
    PERCENTILE_DISC(gap, 0.5) OVER (
      PARTITION BY StudyInstanceUID, SeriesInstanceUID
    ) AS median_gap
  FROM gapped
),

repeated AS (
  SELECT
    *,
    COUNT(along) OVER (PARTITION BY StudyInstanceUID, SeriesInstanceUID, place) AS at_position
  FROM numbered
),

-- Tolerances: 0.001 for a direction (0.3 mm over an image of 300 mm), 0.1 % for pixel spacing, 1 %
-- for the length of the normal and for gaps, 0.1 mm within the plane.
measure AS (
  SELECT
    StudyInstanceUID,
    SeriesInstanceUID,
    MAX(PatientID) AS PatientID,
    MAX(StudyDate) AS StudyDate,
    MAX(Modality) AS Modality,
    COUNTIF(NOT excluded) AS slices,
    COUNTIF(excluded) AS excluded,
    COUNTIF(NOT excluded AND along IS NULL) AS unplaced,
    COUNT(DISTINCT IF(along IS NULL, NULL, place)) AS positions,
    MIN(IF(along IS NULL, NULL, at_position)) AS fewest_at_position,
    MAX(IF(along IS NULL, NULL, at_position)) AS most_at_position,
    MIN(gap) AS smallest_gap,
    MAX(gap) AS largest_gap,
    MAX(median_gap) AS median_gap,
    SUM(gap) / SUM(ROUND(gap / smallest_gap)) AS common_gap,
    MAX(ABS(gap - ROUND(gap / smallest_gap) * smallest_gap) / gap) <= 0.01
      AND MAX(median_gap) < 4.5 * MIN(gap) AS is_uniform,
    SUM(ROUND(gap / smallest_gap) - 1) AS missing_of_smallest,
    SUM(GREATEST(ROUND(gap / median_gap) - 1, 0)) AS missing_of_median,
    GREATEST(
      MAX(rx) - MIN(rx), MAX(ry) - MIN(ry), MAX(rz) - MIN(rz),
      MAX(cx) - MIN(cx), MAX(cy) - MIN(cy), MAX(cz) - MIN(cz)
    ) <= 0.001 AS is_parallel,
    MAX(row_spacing) <= 1.001 * MIN(row_spacing)
      AND MAX(column_spacing) <= 1.001 * MIN(column_spacing) AS has_one_pixel_spacing,
    MIN(matrix) = MAX(matrix) AS has_one_matrix,
    MAX(ABS(SQRT(nx * nx + ny * ny + nz * nz) - 1)) <= 0.01 AS is_orthogonal,
    GREATEST(
      MAX(px * rx + py * ry + pz * rz) - MIN(px * rx + py * ry + pz * rz),
      MAX(px * cx + py * cy + pz * cz) - MIN(px * cx + py * cy + pz * cz)
    ) <= 0.1 AS is_aligned
  FROM repeated
  GROUP BY StudyInstanceUID, SeriesInstanceUID
),

-- If all gaps are multiples of the smallest one, that is the spacing, however many slices are
-- missing; otherwise the median is. (A smallest gap of less than a quarter of the median, or so, is
-- not a spacing but a slice in the wrong place.) No gap means anything if slices are not parallel.
measured AS (
  SELECT
    StudyInstanceUID,
    SeriesInstanceUID,
    PatientID,
    StudyDate,
    Modality,
    slices,
    excluded,
    unplaced,
    IF(is_parallel, positions, NULL) AS positions,
    IF(is_parallel, fewest_at_position, NULL) AS fewest_at_position,
    IF(is_parallel, most_at_position, NULL) AS most_at_position,
    IF(is_parallel, IF(is_uniform, common_gap, median_gap), NULL) AS spacing,
    IF(is_parallel, smallest_gap, NULL) AS smallest_gap,
    IF(is_parallel, largest_gap, NULL) AS largest_gap,
    IF(
      is_parallel,
      CAST(IF(is_uniform, missing_of_smallest, missing_of_median) AS INT64),
      NULL
    ) AS missing,
    is_parallel,
    is_parallel AND NOT is_aligned AS is_shifted,
    is_parallel AND NOT is_uniform AS is_uneven,
    has_one_pixel_spacing,
    has_one_matrix,
    is_orthogonal
  FROM measure
),

judged AS (
  SELECT
    *,
    ARRAY_CONCAT(
      IF(slices = 0, ['no_slices'], []),
      IF(slices = 1, ['one_slice'], []),
      IF(unplaced > 0, ['no_position'], []),
      IF(NOT is_parallel, ['orientation_differs'], []),
      IF(NOT is_orthogonal, ['not_orthogonal'], []),
      IF(NOT has_one_pixel_spacing, ['pixel_spacing_differs'], []),
      IF(NOT has_one_matrix, ['matrix_differs'], []),
      IF(is_shifted, ['lateral_shift'], []),
      IF(most_at_position > 1, ['several_at_a_position'], []),
      IF(missing > 0, ['missing_slices'], []),
      IF(is_uneven, ['spacing_differs'], [])
    ) AS why_not
  FROM measured
)

SELECT
  StudyInstanceUID,
  SeriesInstanceUID,
  PatientID,
  StudyDate,
  Modality,
  slices,
  excluded,
  unplaced,
  positions,
  fewest_at_position,
  most_at_position,
  spacing,
  smallest_gap,
  largest_gap,
  missing,
  ARRAY_LENGTH(why_not) = 0 AS regular,
  why_not
FROM judged
