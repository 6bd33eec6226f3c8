"""`dcm2bq report`: one page about a dataset.

`questions` has the queries and how each answer is drawn, `answers` asks BigQuery, `charts` draws,
`page` writes the HTML.
"""
