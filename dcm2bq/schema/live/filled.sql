-- Goes between `SELECT r.* REPLACE (` and `)`: fills columns that rows of older releases lack
-- from their metadata, in each form that the jsonOutput options can give it. Written by
-- scripts/lifted_columns.py from dcm2bq/lifted.py.
  COALESCE(
    r.PatientName,
    JSON_VALUE(r.metadata.PatientName, '$'),
    JSON_VALUE(r.metadata.PatientName, '$[0]'),
    JSON_VALUE(r.metadata.`00100010`, '$'),
    JSON_VALUE(r.metadata.`00100010`, '$[0]'),
    NULLIF(RTRIM(ARRAY_TO_STRING([
      JSON_VALUE(r.metadata.`00100010`, '$.Value[0].Alphabetic'),
      JSON_VALUE(r.metadata.`00100010`, '$.Value[0].Ideographic'),
      JSON_VALUE(r.metadata.`00100010`, '$.Value[0].Phonetic')
    ], '=', ''), '='), '')
  ) AS PatientName,
  COALESCE(r.PatientBirthDate, SAFE_CAST(REGEXP_REPLACE(
    REGEXP_EXTRACT(COALESCE(
      JSON_VALUE(r.metadata.PatientBirthDate, '$'),
      JSON_VALUE(r.metadata.PatientBirthDate, '$[0]'),
      JSON_VALUE(r.metadata.`00100030`, '$'),
      JSON_VALUE(r.metadata.`00100030`, '$[0]'),
      JSON_VALUE(r.metadata.`00100030`, '$.Value[0]')
    ), '^[0-9]{4}(?:[0-9]{4}|[.][0-9]{2}[.][0-9]{2})$'),
    '^(.{4})[.]?(..)[.]?(..)$',
    '\\1-\\2-\\3'
  ) AS DATE)) AS PatientBirthDate,
  COALESCE(
    r.PatientSex,
    JSON_VALUE(r.metadata.PatientSex, '$'),
    JSON_VALUE(r.metadata.PatientSex, '$[0]'),
    JSON_VALUE(r.metadata.`00100040`, '$'),
    JSON_VALUE(r.metadata.`00100040`, '$[0]'),
    JSON_VALUE(r.metadata.`00100040`, '$.Value[0]')
  ) AS PatientSex,
  COALESCE(r.StudyTime, SAFE_CAST(REGEXP_REPLACE(
    REGEXP_REPLACE(
      REGEXP_REPLACE(
        REGEXP_EXTRACT(COALESCE(
          JSON_VALUE(r.metadata.StudyTime, '$'),
          JSON_VALUE(r.metadata.StudyTime, '$[0]'),
          JSON_VALUE(r.metadata.`00080030`, '$'),
          JSON_VALUE(r.metadata.`00080030`, '$[0]'),
          JSON_VALUE(r.metadata.`00080030`, '$.Value[0]')
        ), CONCAT(
          '^(?:[01][0-9]|2[0-3])(?:[0-5][0-9](?:[0-5][0-9](?:[.][0-9]{1,6})?)?',
          '|:[0-5][0-9](?::[0-5][0-9](?:[.][0-9]{1,6})?)?)?$'
        )),
        '^(..):?([0-9]{2})?:?([0-9]{2})?([.][0-9]+)?$',
        '\\1:\\2:\\3\\4'
      ),
      '::$',
      ':00:'
    ),
    ':$',
    ':00'
  ) AS TIME)) AS StudyTime,
  COALESCE(
    r.AccessionNumber,
    JSON_VALUE(r.metadata.AccessionNumber, '$'),
    JSON_VALUE(r.metadata.AccessionNumber, '$[0]'),
    JSON_VALUE(r.metadata.`00080050`, '$'),
    JSON_VALUE(r.metadata.`00080050`, '$[0]'),
    JSON_VALUE(r.metadata.`00080050`, '$.Value[0]')
  ) AS AccessionNumber,
  COALESCE(
    r.StudyDescription,
    JSON_VALUE(r.metadata.StudyDescription, '$'),
    JSON_VALUE(r.metadata.StudyDescription, '$[0]'),
    JSON_VALUE(r.metadata.`00081030`, '$'),
    JSON_VALUE(r.metadata.`00081030`, '$[0]'),
    JSON_VALUE(r.metadata.`00081030`, '$.Value[0]')
  ) AS StudyDescription,
  COALESCE(
    r.SeriesDescription,
    JSON_VALUE(r.metadata.SeriesDescription, '$'),
    JSON_VALUE(r.metadata.SeriesDescription, '$[0]'),
    JSON_VALUE(r.metadata.`0008103E`, '$'),
    JSON_VALUE(r.metadata.`0008103E`, '$[0]'),
    JSON_VALUE(r.metadata.`0008103E`, '$.Value[0]')
  ) AS SeriesDescription,
  COALESCE(r.SeriesNumber, SAFE_CAST(
    REGEXP_EXTRACT(COALESCE(
      JSON_VALUE(r.metadata.SeriesNumber, '$'),
      JSON_VALUE(r.metadata.SeriesNumber, '$[0]'),
      JSON_VALUE(r.metadata.`00200011`, '$'),
      JSON_VALUE(r.metadata.`00200011`, '$[0]'),
      JSON_VALUE(r.metadata.`00200011`, '$.Value[0]')
    ), '^[+-]?[0-9]+$')
  AS INT64)) AS SeriesNumber,
  COALESCE(r.InstanceNumber, SAFE_CAST(
    REGEXP_EXTRACT(COALESCE(
      JSON_VALUE(r.metadata.InstanceNumber, '$'),
      JSON_VALUE(r.metadata.InstanceNumber, '$[0]'),
      JSON_VALUE(r.metadata.`00200013`, '$'),
      JSON_VALUE(r.metadata.`00200013`, '$[0]'),
      JSON_VALUE(r.metadata.`00200013`, '$.Value[0]')
    ), '^[+-]?[0-9]+$')
  AS INT64)) AS InstanceNumber,
  COALESCE(
    r.Manufacturer,
    JSON_VALUE(r.metadata.Manufacturer, '$'),
    JSON_VALUE(r.metadata.Manufacturer, '$[0]'),
    JSON_VALUE(r.metadata.`00080070`, '$'),
    JSON_VALUE(r.metadata.`00080070`, '$[0]'),
    JSON_VALUE(r.metadata.`00080070`, '$.Value[0]')
  ) AS Manufacturer,
  COALESCE(
    r.ManufacturerModelName,
    JSON_VALUE(r.metadata.ManufacturerModelName, '$'),
    JSON_VALUE(r.metadata.ManufacturerModelName, '$[0]'),
    JSON_VALUE(r.metadata.`00081090`, '$'),
    JSON_VALUE(r.metadata.`00081090`, '$[0]'),
    JSON_VALUE(r.metadata.`00081090`, '$.Value[0]')
  ) AS ManufacturerModelName,
  COALESCE(
    r.StationName,
    JSON_VALUE(r.metadata.StationName, '$'),
    JSON_VALUE(r.metadata.StationName, '$[0]'),
    JSON_VALUE(r.metadata.`00081010`, '$'),
    JSON_VALUE(r.metadata.`00081010`, '$[0]'),
    JSON_VALUE(r.metadata.`00081010`, '$.Value[0]')
  ) AS StationName,
  COALESCE(
    r.BodyPartExamined,
    JSON_VALUE(r.metadata.BodyPartExamined, '$'),
    JSON_VALUE(r.metadata.BodyPartExamined, '$[0]'),
    JSON_VALUE(r.metadata.`00180015`, '$'),
    JSON_VALUE(r.metadata.`00180015`, '$[0]'),
    JSON_VALUE(r.metadata.`00180015`, '$.Value[0]')
  ) AS BodyPartExamined
