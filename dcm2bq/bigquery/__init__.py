"""BigQuery: the sink of rows, load jobs, and the dataset for the tools.

Answers become errors of `dcm2bq.errors` here, by their HTTP status and structured reasons and
never by their text, which can quote the row.
"""
