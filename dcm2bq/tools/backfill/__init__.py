"""Load the objects that a bucket already holds into BigQuery: `dcm2bq backfill`.

    plan ──────> known ──────> runners.pipeline, for each shard: staging ──> loading ──> summary
    count and    what BigQuery                                  rows as     load
    split        already has                                    files       jobs

A shard is a range of names. It is staged once: the first process to write its record decides
which files count. The ids of its load jobs consist of the run, the shard and the attempt, so
BigQuery itself refuses to run one twice. Every other step can be repeated, which is what a runner
does with a failed bundle, and an operator with `--resume`.

`costs` prices the work by storage class, with `prices`; `estimate` shows that before a run.

Only `runners` needs Apache Beam.
"""
