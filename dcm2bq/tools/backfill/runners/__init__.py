"""Where the pipeline of a backfill runs: in this process, or on Dataflow."""
