"""Load the objects that a bucket already holds into BigQuery: `dcm2bq backfill`.

    plan ──────> known ──────> runners.pipeline: staging ──> batches ──> loading ──> summary
    count and    what BigQuery                   rows as     of many     load
    split        already has                     files       shards      jobs

A shard is a range of names. It is staged once: the first process to write its record decides
which files count. The same holds for the batches of shards that are loaded together. The ids of
their load jobs consist of the run, the batch and the attempt, so BigQuery itself refuses to run
one twice. Every other step can be repeated, which is what a runner does with a failed bundle, and
an operator with `--resume`. `status` reads the same records.

`costs` prices the work by storage class, with `prices`; `estimate` shows that before a run.

Only `runners` needs Apache Beam.
"""
