-- The ingested_at from which `refresh` must read the log: all of it the first time.
SELECT
  IFNULL(
    TIMESTAMP_SUB(MAX(refreshed_at), ${overlap}), TIMESTAMP '0001-01-01 00:00:00+00:00'
  ) AS since
FROM `${project}.${dataset}.objects`
