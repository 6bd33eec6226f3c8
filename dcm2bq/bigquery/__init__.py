"""BigQuery: the writer of rows, and the dataset as the tools see it.

What BigQuery answers becomes an error of `dcm2bq.errors` here, by its HTTP status and
structured reasons, never by its text, which can quote the row.
"""
