"""Bring the objects that are there already into BigQuery: `dcm2bq backfill`.

    plan ──> known ──> pipeline: each shard ──> stage ──> load ──> summary
    count     what is    on any runner          rows as   load
    & split   there                             files     jobs

A shard is a range of names. It is staged once: whoever is first to write its record decides
which files count. Its load jobs have ids made of the run, the shard and the attempt, so that
BigQuery itself refuses a second one. Everything before and after can be repeated, which is
what a runner does with a failed bundle and an operator with `--resume`.

Only `pipeline` and what is imported by it alone need Apache Beam.
"""
