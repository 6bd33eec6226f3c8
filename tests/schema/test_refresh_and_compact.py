"""`dcm2bq refresh` and `dcm2bq compact` as they are typed."""

import json
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from dcm2bq import cli
from dcm2bq.bigquery.dataset import Dataset
from tests.support.commands import Done
from tests.support.http_server import Exchange
from tests.support.proxy import Proxy

Row = dict[str, Any]
Run = Callable[..., Done]

FREE = "0 bytes, $0.00"
FEBRUARY = 40 * 86_400.0
"""Seconds from 2024-01-01 to a moment of the next month."""


class LargeBigQuery(Proxy):
    """The local BigQuery, as if each DELETE read 1 TiB and any other statement 100 GiB."""

    def _forward(self, exchange: Exchange) -> tuple[int, dict[str, str], bytes]:
        status, headers, body = super()._forward(exchange)
        size = 1 << 40 if b"DELETE" in exchange.body else 100 << 30
        billed = re.sub(rb'("totalBytesProcessed": ?)"0"', rb'\1"%d"' % size, body)
        return status, headers, billed


@pytest.fixture
def run(
    refreshed: Dataset,
    bigquery_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    """Run a command on the dataset, or on another one."""
    monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", bigquery_url)

    def run(*args: str, **options: Any) -> Done:
        options = {"datasetId": refreshed.dataset_id, **options}
        monkeypatch.setenv("DCM2BQ_CONFIG", json.dumps({"bigQuery": options}))
        return Done(cli.main(args), *capsys.readouterr())

    return run


def count(dataset: Dataset, table: str) -> int:
    (row,) = dataset.query(f"SELECT COUNT(*) AS n FROM {table}")
    number: int = row["n"]
    return number


def test_refresh_says_what_it_reads_and_changes_nothing_in_a_dry_run(
    run: Run, refreshed: Dataset
) -> None:
    """An empty log: the first refresh reads all of it, the next one the last 28 days."""
    refreshed.query("TRUNCATE TABLE objects")
    assert run("refresh", "--dry-run") == Done(
        0,
        f"objects: would be refreshed from the whole log (at most {FREE})\n",
        "dry run: nothing was changed\n",
    )
    assert count(refreshed, "objects") == 0
    whole = Done(0, f"objects: refreshed from the whole log (at most {FREE})\n", "")
    assert run("refresh") == whole
    assert count(refreshed, "objects") == 1
    again = run("refresh")
    assert (again.status, again.err) == (0, "")
    assert re.match(
        r"objects: refreshed from the log since \d{4}-\d\d-\d\d \d\d:\d\d UTC ", again.out
    )
    assert run("refresh", "--full") == whole


def test_compact_counts_first_and_then_removes_the_chosen_months(
    run: Run,
    refreshed: Dataset,
    load: Callable[[Dataset, Sequence[Row]], None],
    row: Any,
    bigquery_url: str,
) -> None:
    """The discount that is lost is that of the month, not of the keys of all rows."""
    assert run("compact") == Done(0, "nothing to remove\n", f"counting reads {FREE}\n")
    rows = [
        row(f"gs://b/{name}", 1, event, at=at)
        for at in (0, FEBRUARY)
        for name, event in ((at, "finalized"), (at, "deleted"), ("kept", "finalized"))
    ]
    load(refreshed, rows)
    january, february = (
        f"2024-{month}  3 rows: 1 hidden, up to 1 marker to remove; reads {FREE}, and "
        "up to $0.00 of long-term discount is lost\n"
        for month in ("01", "02")
    )
    counted = run("compact")
    assert (counted.status, counted.out) == (0, january + february)
    assert counted.err.endswith(
        "\nnothing was changed; to remove these rows, run dcm2bq compact --yes\n"
    )
    assert count(refreshed, "instances") == len(rows)
    with LargeBigQuery(bigquery_url).running() as bigquery, pytest.MonkeyPatch.context() as patch:
        patch.setenv("BIGQUERY_EMULATOR_HOST", bigquery.url)
        large = run("compact", "--month", "2024-01").out
    assert "reads 1.1 TB, $6.25, and up to $3.45 of long-term discount is lost" in large
    assert run("compact", "--month", "2024-03", "--yes").out == "nothing to remove\n"
    done = run("compact", "--month", "2024-02", "--yes")
    assert (done.status, done.out) == (0, f"{february}2024-02  removed 2 rows\n")
    assert run("compact", "--yes").out == f"{january}2024-01  removed 2 rows\n"
    assert count(refreshed, "instances") == 2
    assert count(refreshed, "instances_live") == 1


@pytest.mark.parametrize("given", ["January", "2024-13", "this month"])
def test_a_month_that_cannot_be_compacted_is_refused(run: Run, given: str) -> None:
    month = f"{datetime.now(UTC):%Y-%m}" if given == "this month" else given
    done = run("compact", "--month", month)
    assert (done.status, done.out) == (2, "")
    assert "Invalid value for '--month': " in done.err
    assert month in done.err


@pytest.mark.parametrize(
    ("args", "table"),
    [(["refresh"], "objects"), (["refresh", "--full"], "objects"), (["compact"], "instances")],
)
def test_without_the_table_the_command_names_init(run: Run, args: list[str], table: str) -> None:
    done = run(*args, datasetId="nowhere")
    assert (done.status, done.out) == (2, "")
    assert done.err == (
        f"dcm2bq: local.nowhere.{table}: the table does not exist; create it with dcm2bq init\n"
    )


@pytest.mark.parametrize("command", ["refresh", "compact"])
def test_without_an_answer_of_bigquery_the_status_is_3(
    run: Run, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", "http://127.0.0.1:9")
    done = run(command, timeoutSeconds=1)
    assert (done.status, done.out) == (3, "")
    assert done.err.startswith("dcm2bq: BigQuery: ")
