"""The pipeline of a backfill and its runners: this machine and Dataflow."""
