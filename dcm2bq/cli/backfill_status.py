"""`dcm2bq backfill --status`."""

from datetime import UTC, datetime

import msgspec

from dcm2bq import config as configuration
from dcm2bq.tools.backfill import status, status_lines
from dcm2bq.tools.display import say, say_json


def show(staging: str, run_id: str, *, as_json: bool) -> int:
    """Print the status of a run."""
    run = status.read(staging, run_id, configuration.load())
    if as_json:
        say_json(msgspec.json.encode(run))
        return 0
    for line in status_lines.lines(run, datetime.now(UTC)):
        say(line)
    return 0


def show_recent(staging: str, *, as_json: bool) -> int:
    """Print the last runs in a staging folder, newest first."""
    runs = status.recent(staging, configuration.load())
    if as_json:
        say_json(msgspec.json.encode(runs))
        return 0
    for run in runs:
        say(status_lines.line(run, datetime.now(UTC)))
    return 0
