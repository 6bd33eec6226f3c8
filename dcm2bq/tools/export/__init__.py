"""Export the rows of files or objects as partitioned Parquet files, which need no BigQuery.

    local_files, gcs ──> handler ──> collected_rows ──> destination: part files, ledger

The handler is the function's, so that rows, dead letters and what is ignored are the same.
"""
