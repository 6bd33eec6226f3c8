-- How far back the log is read again. Rows are found that appear up to that long after ingested_at,
-- less the time since the last refresh. 28 days are never more than two partitions.
INTERVAL 28 DAY
