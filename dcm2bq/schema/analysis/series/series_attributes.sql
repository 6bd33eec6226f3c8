-- One row for each series of each study; where its objects have different values, the greatest one.
-- Several values of one element are joined by a backslash, as in DICOM; of a number, the first is
-- taken. Enhanced objects have many attributes in the functional groups that all frames share. The
-- local BigQuery forgets that a derived column is JSON, hence the casts.
WITH header AS (
  SELECT
    StudyInstanceUID,
    SeriesInstanceUID,
    SOPInstanceUID,
    SOPClassUID,
    PatientID,
    StudyDate,
    Modality,
    SeriesNumber,
    Manufacturer,
    ManufacturerModelName,
    StationName,
    SeriesDescription,
    BodyPartExamined,
    metadata,
    CAST(metadata.SharedFunctionalGroupsSequence[0] AS JSON) AS shared,
    CAST(metadata.RadiopharmaceuticalInformationSequence[0] AS JSON) AS dose
  FROM `${project}.${dataset}.instances_live`
  WHERE SeriesInstanceUID IS NOT NULL
),

written AS (
  SELECT
    StudyInstanceUID,
    SeriesInstanceUID,
    SOPInstanceUID,
    SOPClassUID,
    PatientID,
    StudyDate,
    Modality,
    SeriesNumber,
    Manufacturer,
    ManufacturerModelName,
    StationName,
    SeriesDescription,
    BodyPartExamined,
    COALESCE(
      metadata.PixelSpacing, shared.PixelMeasuresSequence[0].PixelSpacing
    ) AS spacings,
    COALESCE(
      metadata.ImageOrientationPatient,
      shared.PlaneOrientationSequence[0].ImageOrientationPatient
    ) AS cosines,
    COALESCE(
      JSON_VALUE(dose.RadiopharmaceuticalStartTime),
      SUBSTR(JSON_VALUE(dose.RadiopharmaceuticalStartDateTime), 9)
    ) AS start_time,
    IF(
      JSON_TYPE(metadata.DeviceSerialNumber) = 'array',
      ARRAY_TO_STRING(JSON_VALUE_ARRAY(metadata.DeviceSerialNumber), '\\', ''),
      JSON_VALUE(metadata.DeviceSerialNumber)
    ) AS DeviceSerialNumber,
    IF(
      JSON_TYPE(metadata.SoftwareVersions) = 'array',
      ARRAY_TO_STRING(JSON_VALUE_ARRAY(metadata.SoftwareVersions), '\\', ''),
      JSON_VALUE(metadata.SoftwareVersions)
    ) AS SoftwareVersions,
    IF(
      JSON_TYPE(metadata.InstitutionName) = 'array',
      ARRAY_TO_STRING(JSON_VALUE_ARRAY(metadata.InstitutionName), '\\', ''),
      JSON_VALUE(metadata.InstitutionName)
    ) AS InstitutionName,
    IF(
      JSON_TYPE(metadata.ProtocolName) = 'array',
      ARRAY_TO_STRING(JSON_VALUE_ARRAY(metadata.ProtocolName), '\\', ''),
      JSON_VALUE(metadata.ProtocolName)
    ) AS ProtocolName,
    IF(
      JSON_TYPE(metadata.Laterality) = 'array',
      ARRAY_TO_STRING(JSON_VALUE_ARRAY(metadata.Laterality), '\\', ''),
      JSON_VALUE(metadata.Laterality)
    ) AS Laterality,
    IF(
      JSON_TYPE(metadata.PatientPosition) = 'array',
      ARRAY_TO_STRING(JSON_VALUE_ARRAY(metadata.PatientPosition), '\\', ''),
      JSON_VALUE(metadata.PatientPosition)
    ) AS PatientPosition,
    IF(
      JSON_TYPE(metadata.ContrastBolusAgent) = 'array',
      ARRAY_TO_STRING(JSON_VALUE_ARRAY(metadata.ContrastBolusAgent), '\\', ''),
      JSON_VALUE(metadata.ContrastBolusAgent)
    ) AS ContrastBolusAgent,
    IF(
      JSON_TYPE(metadata.ImageType) = 'array',
      ARRAY_TO_STRING(JSON_VALUE_ARRAY(metadata.ImageType), '\\', ''),
      JSON_VALUE(metadata.ImageType)
    ) AS ImageType,
    COALESCE(
      JSON_VALUE(metadata.PatientWeight),
      JSON_VALUE(metadata.PatientWeight[0])
    ) AS PatientWeight,
    COALESCE(JSON_VALUE(metadata.Rows), JSON_VALUE(metadata.Rows[0])) AS `Rows`,
    COALESCE(JSON_VALUE(metadata.Columns), JSON_VALUE(metadata.Columns[0])) AS Columns,
    COALESCE(
      JSON_VALUE(metadata.NumberOfFrames),
      JSON_VALUE(metadata.NumberOfFrames[0])
    ) AS NumberOfFrames,
    COALESCE(
      JSON_VALUE(metadata.SliceThickness),
      JSON_VALUE(metadata.SliceThickness[0]),
      JSON_VALUE(shared.PixelMeasuresSequence[0].SliceThickness)
    ) AS SliceThickness,
    COALESCE(
      JSON_VALUE(metadata.SpacingBetweenSlices),
      JSON_VALUE(metadata.SpacingBetweenSlices[0]),
      JSON_VALUE(shared.PixelMeasuresSequence[0].SpacingBetweenSlices)
    ) AS SpacingBetweenSlices,
    COALESCE(
      JSON_VALUE(metadata.KVP),
      JSON_VALUE(metadata.KVP[0]),
      JSON_VALUE(shared.CTXRayDetailsSequence[0].KVP)
    ) AS KVP,
    COALESCE(
      JSON_VALUE(metadata.XRayTubeCurrent),
      JSON_VALUE(metadata.XRayTubeCurrent[0]),
      JSON_VALUE(shared.CTExposureSequence[0].XRayTubeCurrentInmA)
    ) AS XRayTubeCurrent,
    COALESCE(
      JSON_VALUE(metadata.ExposureTime),
      JSON_VALUE(metadata.ExposureTime[0]),
      JSON_VALUE(shared.CTExposureSequence[0].ExposureTimeInms)
    ) AS ExposureTime,
    COALESCE(
      JSON_VALUE(metadata.Exposure),
      JSON_VALUE(metadata.Exposure[0]),
      JSON_VALUE(shared.CTExposureSequence[0].ExposureInmAs)
    ) AS Exposure,
    COALESCE(
      JSON_VALUE(metadata.CTDIvol),
      JSON_VALUE(metadata.CTDIvol[0]),
      JSON_VALUE(shared.CTExposureSequence[0].CTDIvol)
    ) AS CTDIvol,
    IF(
      JSON_TYPE(metadata.ConvolutionKernel) = 'array',
      ARRAY_TO_STRING(JSON_VALUE_ARRAY(metadata.ConvolutionKernel), '\\', ''),
      COALESCE(
        JSON_VALUE(metadata.ConvolutionKernel),
        JSON_VALUE(shared.CTReconstructionSequence[0].ConvolutionKernel)
      )
    ) AS ConvolutionKernel,
    COALESCE(
      JSON_VALUE(metadata.ReconstructionDiameter),
      JSON_VALUE(metadata.ReconstructionDiameter[0]),
      JSON_VALUE(shared.CTReconstructionSequence[0].ReconstructionDiameter)
    ) AS ReconstructionDiameter,
    COALESCE(
      JSON_VALUE(metadata.SpiralPitchFactor),
      JSON_VALUE(metadata.SpiralPitchFactor[0]),
      JSON_VALUE(shared.CTTableDynamicsSequence[0].SpiralPitchFactor)
    ) AS SpiralPitchFactor,
    COALESCE(
      JSON_VALUE(metadata.GantryDetectorTilt),
      JSON_VALUE(metadata.GantryDetectorTilt[0]),
      JSON_VALUE(shared.CTGeometrySequence[0].GantryDetectorTilt)
    ) AS GantryDetectorTilt,
    COALESCE(
      JSON_VALUE(metadata.DistanceSourceToDetector),
      JSON_VALUE(metadata.DistanceSourceToDetector[0])
    ) AS DistanceSourceToDetector,
    COALESCE(
      JSON_VALUE(metadata.DistanceSourceToPatient),
      JSON_VALUE(metadata.DistanceSourceToPatient[0])
    ) AS DistanceSourceToPatient,
    IF(
      JSON_TYPE(metadata.ViewPosition) = 'array',
      ARRAY_TO_STRING(JSON_VALUE_ARRAY(metadata.ViewPosition), '\\', ''),
      JSON_VALUE(metadata.ViewPosition)
    ) AS ViewPosition,
    COALESCE(
      JSON_VALUE(metadata.BodyPartThickness),
      JSON_VALUE(metadata.BodyPartThickness[0])
    ) AS BodyPartThickness,
    COALESCE(
      JSON_VALUE(metadata.CompressionForce),
      JSON_VALUE(metadata.CompressionForce[0])
    ) AS CompressionForce,
    COALESCE(
      JSON_VALUE(metadata.ExposureIndex),
      JSON_VALUE(metadata.ExposureIndex[0])
    ) AS ExposureIndex,
    COALESCE(
      JSON_VALUE(metadata.DeviationIndex),
      JSON_VALUE(metadata.DeviationIndex[0])
    ) AS DeviationIndex,
    COALESCE(
      JSON_VALUE(metadata.MagneticFieldStrength),
      JSON_VALUE(metadata.MagneticFieldStrength[0])
    ) AS MagneticFieldStrength,
    IF(
      JSON_TYPE(metadata.ScanningSequence) = 'array',
      ARRAY_TO_STRING(JSON_VALUE_ARRAY(metadata.ScanningSequence), '\\', ''),
      JSON_VALUE(metadata.ScanningSequence)
    ) AS ScanningSequence,
    IF(
      JSON_TYPE(metadata.SequenceName) = 'array',
      ARRAY_TO_STRING(JSON_VALUE_ARRAY(metadata.SequenceName), '\\', ''),
      JSON_VALUE(metadata.SequenceName)
    ) AS SequenceName,
    IF(
      JSON_TYPE(metadata.MRAcquisitionType) = 'array',
      ARRAY_TO_STRING(JSON_VALUE_ARRAY(metadata.MRAcquisitionType), '\\', ''),
      JSON_VALUE(metadata.MRAcquisitionType)
    ) AS MRAcquisitionType,
    COALESCE(
      JSON_VALUE(metadata.RepetitionTime),
      JSON_VALUE(metadata.RepetitionTime[0]),
      JSON_VALUE(shared.MRTimingAndRelatedParametersSequence[0].RepetitionTime)
    ) AS RepetitionTime,
    COALESCE(
      JSON_VALUE(metadata.EchoTime),
      JSON_VALUE(metadata.EchoTime[0]),
      JSON_VALUE(shared.MREchoSequence[0].EffectiveEchoTime)
    ) AS EchoTime,
    COALESCE(
      JSON_VALUE(metadata.InversionTime),
      JSON_VALUE(metadata.InversionTime[0]),
      JSON_VALUE(shared.MRModifierSequence[0].InversionTimes[0]),
      JSON_VALUE(shared.MRModifierSequence[0].InversionTimes)
    ) AS InversionTime,
    COALESCE(
      JSON_VALUE(metadata.FlipAngle),
      JSON_VALUE(metadata.FlipAngle[0]),
      JSON_VALUE(shared.MRTimingAndRelatedParametersSequence[0].FlipAngle)
    ) AS FlipAngle,
    COALESCE(
      JSON_VALUE(metadata.EchoTrainLength),
      JSON_VALUE(metadata.EchoTrainLength[0]),
      JSON_VALUE(shared.MRTimingAndRelatedParametersSequence[0].EchoTrainLength)
    ) AS EchoTrainLength,
    COALESCE(
      JSON_VALUE(metadata.NumberOfAverages),
      JSON_VALUE(metadata.NumberOfAverages[0]),
      JSON_VALUE(shared.MRAveragesSequence[0].NumberOfAverages)
    ) AS NumberOfAverages,
    IF(
      JSON_TYPE(metadata.Units) = 'array',
      ARRAY_TO_STRING(JSON_VALUE_ARRAY(metadata.Units), '\\', ''),
      JSON_VALUE(metadata.Units)
    ) AS Units,
    IF(
      JSON_TYPE(metadata.DecayCorrection) = 'array',
      ARRAY_TO_STRING(JSON_VALUE_ARRAY(metadata.DecayCorrection), '\\', ''),
      JSON_VALUE(metadata.DecayCorrection)
    ) AS DecayCorrection,
    IF(
      JSON_TYPE(metadata.CorrectedImage) = 'array',
      ARRAY_TO_STRING(JSON_VALUE_ARRAY(metadata.CorrectedImage), '\\', ''),
      JSON_VALUE(metadata.CorrectedImage)
    ) AS CorrectedImage,
    COALESCE(
      JSON_VALUE(dose.Radiopharmaceutical),
      JSON_VALUE(dose.RadiopharmaceuticalCodeSequence[0].CodeMeaning)
    ) AS Radiopharmaceutical,
    JSON_VALUE(dose.RadionuclideCodeSequence[0].CodeMeaning) AS radionuclide,
    JSON_VALUE(dose.RadionuclideTotalDose) AS RadionuclideTotalDose,
    JSON_VALUE(dose.RadionuclideHalfLife) AS RadionuclideHalfLife,
    IF(
      JSON_TYPE(metadata.TransducerType) = 'array',
      ARRAY_TO_STRING(JSON_VALUE_ARRAY(metadata.TransducerType), '\\', ''),
      JSON_VALUE(metadata.TransducerType)
    ) AS TransducerType,
    COALESCE(JSON_VALUE(metadata.FrameTime), JSON_VALUE(metadata.FrameTime[0])) AS FrameTime,
    COALESCE(
      JSON_VALUE(metadata.TotalPixelMatrixColumns),
      JSON_VALUE(metadata.TotalPixelMatrixColumns[0])
    ) AS TotalPixelMatrixColumns,
    COALESCE(
      JSON_VALUE(metadata.TotalPixelMatrixRows),
      JSON_VALUE(metadata.TotalPixelMatrixRows[0])
    ) AS TotalPixelMatrixRows,
    IF(
      JSON_TYPE(metadata.ContainerIdentifier) = 'array',
      ARRAY_TO_STRING(JSON_VALUE_ARRAY(metadata.ContainerIdentifier), '\\', ''),
      JSON_VALUE(metadata.ContainerIdentifier)
    ) AS ContainerIdentifier
  FROM header
),

arrays AS (
  SELECT * REPLACE (
    IF(JSON_TYPE(spacings) = 'array', JSON_VALUE_ARRAY(spacings), NULL) AS spacings,
    IF(JSON_TYPE(cosines) = 'array', JSON_VALUE_ARRAY(cosines), NULL) AS cosines
  )
  FROM written
),

separated AS (
  SELECT
    *,
    spacings[SAFE_OFFSET(0)] AS row_spacing,
    spacings[SAFE_OFFSET(1)] AS column_spacing,
    cosines[SAFE_OFFSET(0)] AS row_x,
    cosines[SAFE_OFFSET(1)] AS row_y,
    cosines[SAFE_OFFSET(2)] AS row_z,
    cosines[SAFE_OFFSET(3)] AS column_x,
    cosines[SAFE_OFFSET(4)] AS column_y,
    cosines[SAFE_OFFSET(5)] AS column_z
  FROM arrays
),

-- FLOAT64 would accept NaN and Infinity, and read 1e999 as infinite: a number has at most 99 digits, and
-- two in its exponent. Products of directions must not overflow, which would be an error.
typed AS (
  SELECT * REPLACE (
    SAFE_CAST(REGEXP_EXTRACT(PatientWeight, '^[-+]?[0-9.]{1,99}(?:[eE][-+]?[0-9]{1,2})?\\z') AS FLOAT64) AS PatientWeight,
    SAFE_CAST(REGEXP_EXTRACT(`Rows`, '^[-+]?[0-9.].*') AS INT64) AS `Rows`,
    SAFE_CAST(REGEXP_EXTRACT(Columns, '^[-+]?[0-9.].*') AS INT64) AS Columns,
    SAFE_CAST(REGEXP_EXTRACT(NumberOfFrames, '^[-+]?[0-9.].*') AS INT64) AS NumberOfFrames,
    SAFE_CAST(REGEXP_EXTRACT(SliceThickness, '^[-+]?[0-9.]{1,99}(?:[eE][-+]?[0-9]{1,2})?\\z') AS FLOAT64) AS SliceThickness,
    SAFE_CAST(REGEXP_EXTRACT(SpacingBetweenSlices, '^[-+]?[0-9.]{1,99}(?:[eE][-+]?[0-9]{1,2})?\\z') AS FLOAT64) AS SpacingBetweenSlices,
    SAFE_CAST(REGEXP_EXTRACT(KVP, '^[-+]?[0-9.]{1,99}(?:[eE][-+]?[0-9]{1,2})?\\z') AS FLOAT64) AS KVP,
    SAFE_CAST(REGEXP_EXTRACT(XRayTubeCurrent, '^[-+]?[0-9.]{1,99}(?:[eE][-+]?[0-9]{1,2})?\\z') AS FLOAT64) AS XRayTubeCurrent,
    SAFE_CAST(REGEXP_EXTRACT(ExposureTime, '^[-+]?[0-9.]{1,99}(?:[eE][-+]?[0-9]{1,2})?\\z') AS FLOAT64) AS ExposureTime,
    SAFE_CAST(REGEXP_EXTRACT(Exposure, '^[-+]?[0-9.]{1,99}(?:[eE][-+]?[0-9]{1,2})?\\z') AS FLOAT64) AS Exposure,
    SAFE_CAST(REGEXP_EXTRACT(CTDIvol, '^[-+]?[0-9.]{1,99}(?:[eE][-+]?[0-9]{1,2})?\\z') AS FLOAT64) AS CTDIvol,
    SAFE_CAST(REGEXP_EXTRACT(ReconstructionDiameter, '^[-+]?[0-9.]{1,99}(?:[eE][-+]?[0-9]{1,2})?\\z') AS FLOAT64) AS ReconstructionDiameter,
    SAFE_CAST(REGEXP_EXTRACT(SpiralPitchFactor, '^[-+]?[0-9.]{1,99}(?:[eE][-+]?[0-9]{1,2})?\\z') AS FLOAT64) AS SpiralPitchFactor,
    SAFE_CAST(REGEXP_EXTRACT(GantryDetectorTilt, '^[-+]?[0-9.]{1,99}(?:[eE][-+]?[0-9]{1,2})?\\z') AS FLOAT64) AS GantryDetectorTilt,
    SAFE_CAST(REGEXP_EXTRACT(DistanceSourceToDetector, '^[-+]?[0-9.]{1,99}(?:[eE][-+]?[0-9]{1,2})?\\z') AS FLOAT64) AS DistanceSourceToDetector,
    SAFE_CAST(REGEXP_EXTRACT(DistanceSourceToPatient, '^[-+]?[0-9.]{1,99}(?:[eE][-+]?[0-9]{1,2})?\\z') AS FLOAT64) AS DistanceSourceToPatient,
    SAFE_CAST(REGEXP_EXTRACT(BodyPartThickness, '^[-+]?[0-9.]{1,99}(?:[eE][-+]?[0-9]{1,2})?\\z') AS FLOAT64) AS BodyPartThickness,
    SAFE_CAST(REGEXP_EXTRACT(CompressionForce, '^[-+]?[0-9.]{1,99}(?:[eE][-+]?[0-9]{1,2})?\\z') AS FLOAT64) AS CompressionForce,
    SAFE_CAST(REGEXP_EXTRACT(ExposureIndex, '^[-+]?[0-9.]{1,99}(?:[eE][-+]?[0-9]{1,2})?\\z') AS FLOAT64) AS ExposureIndex,
    SAFE_CAST(REGEXP_EXTRACT(DeviationIndex, '^[-+]?[0-9.]{1,99}(?:[eE][-+]?[0-9]{1,2})?\\z') AS FLOAT64) AS DeviationIndex,
    SAFE_CAST(REGEXP_EXTRACT(MagneticFieldStrength, '^[-+]?[0-9.]{1,99}(?:[eE][-+]?[0-9]{1,2})?\\z') AS FLOAT64) AS MagneticFieldStrength,
    SAFE_CAST(REGEXP_EXTRACT(RepetitionTime, '^[-+]?[0-9.]{1,99}(?:[eE][-+]?[0-9]{1,2})?\\z') AS FLOAT64) AS RepetitionTime,
    SAFE_CAST(REGEXP_EXTRACT(EchoTime, '^[-+]?[0-9.]{1,99}(?:[eE][-+]?[0-9]{1,2})?\\z') AS FLOAT64) AS EchoTime,
    SAFE_CAST(REGEXP_EXTRACT(InversionTime, '^[-+]?[0-9.]{1,99}(?:[eE][-+]?[0-9]{1,2})?\\z') AS FLOAT64) AS InversionTime,
    SAFE_CAST(REGEXP_EXTRACT(FlipAngle, '^[-+]?[0-9.]{1,99}(?:[eE][-+]?[0-9]{1,2})?\\z') AS FLOAT64) AS FlipAngle,
    SAFE_CAST(REGEXP_EXTRACT(EchoTrainLength, '^[-+]?[0-9.].*') AS INT64) AS EchoTrainLength,
    SAFE_CAST(REGEXP_EXTRACT(NumberOfAverages, '^[-+]?[0-9.]{1,99}(?:[eE][-+]?[0-9]{1,2})?\\z') AS FLOAT64) AS NumberOfAverages,
    SAFE_CAST(REGEXP_EXTRACT(RadionuclideTotalDose, '^[-+]?[0-9.]{1,99}(?:[eE][-+]?[0-9]{1,2})?\\z') AS FLOAT64) AS RadionuclideTotalDose,
    SAFE_CAST(REGEXP_EXTRACT(RadionuclideHalfLife, '^[-+]?[0-9.]{1,99}(?:[eE][-+]?[0-9]{1,2})?\\z') AS FLOAT64) AS RadionuclideHalfLife,
    SAFE_CAST(REGEXP_EXTRACT(FrameTime, '^[-+]?[0-9.]{1,99}(?:[eE][-+]?[0-9]{1,2})?\\z') AS FLOAT64) AS FrameTime,
    SAFE_CAST(REGEXP_EXTRACT(TotalPixelMatrixColumns, '^[-+]?[0-9.].*') AS INT64) AS TotalPixelMatrixColumns,
    SAFE_CAST(REGEXP_EXTRACT(TotalPixelMatrixRows, '^[-+]?[0-9.].*') AS INT64) AS TotalPixelMatrixRows,
    SAFE_CAST(REGEXP_EXTRACT(row_spacing, '^[-+]?[0-9.]{1,99}(?:[eE][-+]?[0-9]{1,2})?\\z') AS FLOAT64) AS row_spacing,
    SAFE_CAST(REGEXP_EXTRACT(column_spacing, '^[-+]?[0-9.]{1,99}(?:[eE][-+]?[0-9]{1,2})?\\z') AS FLOAT64) AS column_spacing,
    IF(ABS(SAFE_CAST(row_x AS FLOAT64)) < 1e6, SAFE_CAST(row_x AS FLOAT64), NULL) AS row_x,
    IF(ABS(SAFE_CAST(row_y AS FLOAT64)) < 1e6, SAFE_CAST(row_y AS FLOAT64), NULL) AS row_y,
    IF(ABS(SAFE_CAST(row_z AS FLOAT64)) < 1e6, SAFE_CAST(row_z AS FLOAT64), NULL) AS row_z,
    IF(ABS(SAFE_CAST(column_x AS FLOAT64)) < 1e6, SAFE_CAST(column_x AS FLOAT64), NULL) AS column_x,
    IF(ABS(SAFE_CAST(column_y AS FLOAT64)) < 1e6, SAFE_CAST(column_y AS FLOAT64), NULL) AS column_y,
    IF(ABS(SAFE_CAST(column_z AS FLOAT64)) < 1e6, SAFE_CAST(column_z AS FLOAT64), NULL) AS column_z
  )
  FROM separated
),

-- The normal of the plane is the cross product of the directions of rows and columns. 0.8, within
-- 37 degrees of an axis, also calls a tilted head scan axial.
attribute AS (
  SELECT
    *,
    CASE
      WHEN ABS(row_x * column_y - row_y * column_x) > 0.8 THEN 'axial'
      WHEN ABS(row_y * column_z - row_z * column_y) > 0.8 THEN 'sagittal'
      WHEN ABS(row_z * column_x - row_x * column_z) > 0.8 THEN 'coronal'
      WHEN ABS(row_x * column_y * row_z * column_x * row_y * column_z) >= 0 THEN 'oblique'
    END AS orientation,
    SAFE_CAST(
      REGEXP_REPLACE(start_time, '^([0-9]{2})([0-9]{2})([0-9]{2}).*', '\\1:\\2:\\3') AS TIME
    ) AS RadiopharmaceuticalStartTime
  FROM typed
)

SELECT
  StudyInstanceUID,
  SeriesInstanceUID,
  MAX(PatientID) AS PatientID,
  MAX(StudyDate) AS StudyDate,
  MAX(Modality) AS Modality,
  MAX(SOPClassUID) AS SOPClassUID,
  MAX(SeriesNumber) AS SeriesNumber,
  COUNT(DISTINCT SOPInstanceUID) AS NumberOfSeriesRelatedInstances,
  MAX(Manufacturer) AS Manufacturer,
  MAX(ManufacturerModelName) AS ManufacturerModelName,
  MAX(StationName) AS StationName,
  MAX(DeviceSerialNumber) AS DeviceSerialNumber,
  MAX(SoftwareVersions) AS SoftwareVersions,
  MAX(InstitutionName) AS InstitutionName,
  MAX(ProtocolName) AS ProtocolName,
  MAX(SeriesDescription) AS SeriesDescription,
  MAX(BodyPartExamined) AS BodyPartExamined,
  MAX(Laterality) AS Laterality,
  MAX(PatientPosition) AS PatientPosition,
  MAX(ContrastBolusAgent) AS ContrastBolusAgent,
  MAX(ImageType) AS ImageType,
  MAX(PatientWeight) AS PatientWeight,
  MAX(`Rows`) AS `Rows`,
  MAX(Columns) AS Columns,
  MAX(NumberOfFrames) AS NumberOfFrames,
  MAX(row_spacing) AS row_spacing,
  MAX(column_spacing) AS column_spacing,
  MAX(SliceThickness) AS SliceThickness,
  MAX(SpacingBetweenSlices) AS SpacingBetweenSlices,
  MAX(orientation) AS orientation,
  MAX(KVP) AS KVP,
  MAX(XRayTubeCurrent) AS XRayTubeCurrent,
  MAX(ExposureTime) AS ExposureTime,
  MAX(Exposure) AS Exposure,
  MAX(CTDIvol) AS CTDIvol,
  MAX(ConvolutionKernel) AS ConvolutionKernel,
  MAX(ReconstructionDiameter) AS ReconstructionDiameter,
  MAX(SpiralPitchFactor) AS SpiralPitchFactor,
  MAX(GantryDetectorTilt) AS GantryDetectorTilt,
  MAX(DistanceSourceToDetector) AS DistanceSourceToDetector,
  MAX(DistanceSourceToPatient) AS DistanceSourceToPatient,
  MAX(ViewPosition) AS ViewPosition,
  MAX(BodyPartThickness) AS BodyPartThickness,
  MAX(CompressionForce) AS CompressionForce,
  MAX(ExposureIndex) AS ExposureIndex,
  MAX(DeviationIndex) AS DeviationIndex,
  MAX(MagneticFieldStrength) AS MagneticFieldStrength,
  MAX(ScanningSequence) AS ScanningSequence,
  MAX(SequenceName) AS SequenceName,
  MAX(MRAcquisitionType) AS MRAcquisitionType,
  MAX(RepetitionTime) AS RepetitionTime,
  MAX(EchoTime) AS EchoTime,
  MAX(InversionTime) AS InversionTime,
  MAX(FlipAngle) AS FlipAngle,
  MAX(EchoTrainLength) AS EchoTrainLength,
  MAX(NumberOfAverages) AS NumberOfAverages,
  MAX(Units) AS Units,
  MAX(DecayCorrection) AS DecayCorrection,
  MAX(CorrectedImage) AS CorrectedImage,
  MAX(Radiopharmaceutical) AS Radiopharmaceutical,
  MAX(radionuclide) AS radionuclide,
  MAX(RadionuclideTotalDose) AS RadionuclideTotalDose,
  MAX(RadionuclideHalfLife) AS RadionuclideHalfLife,
  MAX(RadiopharmaceuticalStartTime) AS RadiopharmaceuticalStartTime,
  MAX(TransducerType) AS TransducerType,
  MAX(FrameTime) AS FrameTime,
  MAX(TotalPixelMatrixColumns) AS TotalPixelMatrixColumns,
  MAX(TotalPixelMatrixRows) AS TotalPixelMatrixRows,
  MAX(ContainerIdentifier) AS ContainerIdentifier,
  ARRAY_CONCAT(
    IF(MIN(SOPClassUID) < MAX(SOPClassUID), ['SOPClassUID'], []),
    IF(MIN(Manufacturer) < MAX(Manufacturer), ['Manufacturer'], []),
    IF(MIN(ManufacturerModelName) < MAX(ManufacturerModelName), ['ManufacturerModelName'], []),
    IF(MIN(StationName) < MAX(StationName), ['StationName'], []),
    IF(MIN(DeviceSerialNumber) < MAX(DeviceSerialNumber), ['DeviceSerialNumber'], []),
    IF(MIN(SoftwareVersions) < MAX(SoftwareVersions), ['SoftwareVersions'], []),
    IF(MIN(InstitutionName) < MAX(InstitutionName), ['InstitutionName'], []),
    IF(MIN(ProtocolName) < MAX(ProtocolName), ['ProtocolName'], []),
    IF(MIN(SeriesDescription) < MAX(SeriesDescription), ['SeriesDescription'], []),
    IF(MIN(BodyPartExamined) < MAX(BodyPartExamined), ['BodyPartExamined'], []),
    IF(MIN(Laterality) < MAX(Laterality), ['Laterality'], []),
    IF(MIN(PatientPosition) < MAX(PatientPosition), ['PatientPosition'], []),
    IF(MIN(ContrastBolusAgent) < MAX(ContrastBolusAgent), ['ContrastBolusAgent'], []),
    IF(MIN(ImageType) < MAX(ImageType), ['ImageType'], []),
    IF(MIN(PatientWeight) < MAX(PatientWeight), ['PatientWeight'], []),
    IF(MIN(`Rows`) < MAX(`Rows`), ['Rows'], []),
    IF(MIN(Columns) < MAX(Columns), ['Columns'], []),
    IF(MIN(NumberOfFrames) < MAX(NumberOfFrames), ['NumberOfFrames'], []),
    IF(MIN(row_spacing) < MAX(row_spacing), ['row_spacing'], []),
    IF(MIN(column_spacing) < MAX(column_spacing), ['column_spacing'], []),
    IF(MIN(SliceThickness) < MAX(SliceThickness), ['SliceThickness'], []),
    IF(MIN(SpacingBetweenSlices) < MAX(SpacingBetweenSlices), ['SpacingBetweenSlices'], []),
    IF(MIN(orientation) < MAX(orientation), ['orientation'], []),
    IF(MIN(KVP) < MAX(KVP), ['KVP'], []),
    IF(MIN(XRayTubeCurrent) < MAX(XRayTubeCurrent), ['XRayTubeCurrent'], []),
    IF(MIN(ExposureTime) < MAX(ExposureTime), ['ExposureTime'], []),
    IF(MIN(Exposure) < MAX(Exposure), ['Exposure'], []),
    IF(MIN(CTDIvol) < MAX(CTDIvol), ['CTDIvol'], []),
    IF(MIN(ConvolutionKernel) < MAX(ConvolutionKernel), ['ConvolutionKernel'], []),
    IF(MIN(ReconstructionDiameter) < MAX(ReconstructionDiameter), ['ReconstructionDiameter'], []),
    IF(MIN(SpiralPitchFactor) < MAX(SpiralPitchFactor), ['SpiralPitchFactor'], []),
    IF(MIN(GantryDetectorTilt) < MAX(GantryDetectorTilt), ['GantryDetectorTilt'], []),
    IF(MIN(DistanceSourceToDetector) < MAX(DistanceSourceToDetector), ['DistanceSourceToDetector'], []),
    IF(MIN(DistanceSourceToPatient) < MAX(DistanceSourceToPatient), ['DistanceSourceToPatient'], []),
    IF(MIN(ViewPosition) < MAX(ViewPosition), ['ViewPosition'], []),
    IF(MIN(BodyPartThickness) < MAX(BodyPartThickness), ['BodyPartThickness'], []),
    IF(MIN(CompressionForce) < MAX(CompressionForce), ['CompressionForce'], []),
    IF(MIN(ExposureIndex) < MAX(ExposureIndex), ['ExposureIndex'], []),
    IF(MIN(DeviationIndex) < MAX(DeviationIndex), ['DeviationIndex'], []),
    IF(MIN(MagneticFieldStrength) < MAX(MagneticFieldStrength), ['MagneticFieldStrength'], []),
    IF(MIN(ScanningSequence) < MAX(ScanningSequence), ['ScanningSequence'], []),
    IF(MIN(SequenceName) < MAX(SequenceName), ['SequenceName'], []),
    IF(MIN(MRAcquisitionType) < MAX(MRAcquisitionType), ['MRAcquisitionType'], []),
    IF(MIN(RepetitionTime) < MAX(RepetitionTime), ['RepetitionTime'], []),
    IF(MIN(EchoTime) < MAX(EchoTime), ['EchoTime'], []),
    IF(MIN(InversionTime) < MAX(InversionTime), ['InversionTime'], []),
    IF(MIN(FlipAngle) < MAX(FlipAngle), ['FlipAngle'], []),
    IF(MIN(EchoTrainLength) < MAX(EchoTrainLength), ['EchoTrainLength'], []),
    IF(MIN(NumberOfAverages) < MAX(NumberOfAverages), ['NumberOfAverages'], []),
    IF(MIN(Units) < MAX(Units), ['Units'], []),
    IF(MIN(DecayCorrection) < MAX(DecayCorrection), ['DecayCorrection'], []),
    IF(MIN(CorrectedImage) < MAX(CorrectedImage), ['CorrectedImage'], []),
    IF(MIN(Radiopharmaceutical) < MAX(Radiopharmaceutical), ['Radiopharmaceutical'], []),
    IF(MIN(radionuclide) < MAX(radionuclide), ['radionuclide'], []),
    IF(MIN(RadionuclideTotalDose) < MAX(RadionuclideTotalDose), ['RadionuclideTotalDose'], []),
    IF(MIN(RadionuclideHalfLife) < MAX(RadionuclideHalfLife), ['RadionuclideHalfLife'], []),
    IF(MIN(RadiopharmaceuticalStartTime) < MAX(RadiopharmaceuticalStartTime), ['RadiopharmaceuticalStartTime'], []),
    IF(MIN(TransducerType) < MAX(TransducerType), ['TransducerType'], []),
    IF(MIN(FrameTime) < MAX(FrameTime), ['FrameTime'], []),
    IF(MIN(TotalPixelMatrixColumns) < MAX(TotalPixelMatrixColumns), ['TotalPixelMatrixColumns'], []),
    IF(MIN(TotalPixelMatrixRows) < MAX(TotalPixelMatrixRows), ['TotalPixelMatrixRows'], []),
    IF(MIN(ContainerIdentifier) < MAX(ContainerIdentifier), ['ContainerIdentifier'], [])
  ) AS varying
FROM attribute
GROUP BY StudyInstanceUID, SeriesInstanceUID
