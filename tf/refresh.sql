-- `dcm2bq refresh` as a script, since a scheduled query has no parameters of its own. BigQuery skips
-- partitions by a variable as it does by a parameter, but not by a subquery.
DECLARE since TIMESTAMP DEFAULT (
${refresh_from}
);

${refresh}
