"""`changes_between`: a copy that applies interval after interval equals `instances_live`."""

import itertools
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from dcm2bq import schema
from dcm2bq.bigquery.dataset import Dataset
from dcm2bq.config import Config
from dcm2bq.schema import DefinitionKind
from tests.support import googlesql
from tests.support.googlesql_views import evaluate

Row = dict[str, Any]
MakeRow = Callable[..., Row]
Load = Callable[[Dataset, Sequence[Row]], None]
Copy = dict[tuple[Any, ...], tuple[Any, ...]]

UIDS = "StudyInstanceUID, SeriesInstanceUID, SOPInstanceUID"
COLUMNS = f"path, member, {UIDS}, version, event, timestamp, ingested_at"
KEY_COLUMNS = 5
INDEXED = {"finalized", "metadataUpdated"}
EVENTS = ("finalized", "finalized", "metadataUpdated", "deleted", "archived", "expanded")
START = datetime.fromisoformat("2024-01-01T00:00:00Z")
PAGE = Path(__file__).parents[2] / "docs" / "SCHEMA.md"


def any_rows(name: str, rng: random.Random, row: MakeRow) -> list[Row]:
    """Return random rows of one path: events of any kind and generation, some twice."""
    rows = []
    for second in rng.sample(range(100), rng.randint(1, 8)):
        event = rng.choice(EVENTS)
        uids: dict[str, Any] = {
            level: rng.choice(["1", "2", None]) if event in INDEXED else None
            for level in ("study", "series", "instance")
        }
        made = row(
            f"gs://{name}",
            rng.choice([9, 10, 100]),
            event,
            at=rng.randint(0, 2),
            ingested=second,
            member=rng.choice([None, None, "a", "b/a"]) if event in INDEXED else None,
            **uids,
        )
        again = {**made, "ingested_at": (START + timedelta(seconds=rng.randrange(100))).isoformat()}
        rows += rng.choice([[made], [made], [made, made], [made, again]])
    return rows


def apply_changes(copy: Copy, changes: Iterable[Mapping[str, Any]]) -> int:
    """Apply changes to a copy, each key once; return the number of removed rows."""
    seen: set[tuple[Any, ...]] = set()
    removed = 0
    for change in changes:
        content = tuple(change.values())
        key = content[1 : 1 + KEY_COLUMNS]
        assert key not in seen
        seen.add(key)
        if change["change"] == "upsert":
            copy[key] = content[1:]
        else:
            assert change["change"] == "remove"
            removed += copy.pop(key, None) is not None
    return removed


def ingested(row: Row) -> float:
    return (datetime.fromisoformat(row["ingested_at"]) - START).total_seconds()


@pytest.mark.parametrize("seed", [1, 2])
def test_a_copy_equals_instances_live_after_every_interval(
    dataset: Dataset, load: Load, row: MakeRow, seed: int
) -> None:
    """Random rows and intervals; some intervals are read twice, some overlap."""
    rng = random.Random(seed)
    name = f"changes-{seed}"
    rows = [any_row for n in range(250) for any_row in any_rows(f"{name}/{n}", rng, row)]
    copy: Copy = {}
    removed = 0
    bounds = [0, *sorted(rng.sample(range(1, 100), 4)), 100]
    for since, until in itertools.pairwise(bounds):
        load(dataset, [row for row in rows if since <= ingested(row) < until])
        for begin in rng.choice([[since], [since, since], [max(since - 10, 0)]]):
            removed += apply_changes(copy, changes(dataset, name, begin, until))
        assert Counter(copy.values()) == live(dataset, name)
    assert removed > 50
    assert len(copy) > 100


def test_past_intervals_can_be_read_in_any_order(
    dataset: Dataset, load: Load, row: MakeRow
) -> None:
    """Each is answered by the present state: none restores a row that a later one removed."""
    rng = random.Random(3)
    load(dataset, [any_row for n in range(250) for any_row in any_rows(f"past/{n}", rng, row)])
    copy: Copy = {}
    intervals = [(number, number + 20) for number in range(0, 100, 20)]
    rng.shuffle(intervals)
    for since, until in intervals:
        apply_changes(copy, changes(dataset, "past", since, until))
    assert Counter(copy.values()) == live(dataset, "past")
    assert len(copy) > 100


def changes(dataset: Dataset, name: str, since: int, until: int) -> list[Row]:
    return dataset.query(
        f"SELECT change, {COLUMNS} FROM `{dataset.name}.changes_between`(@since, @until) "
        "WHERE STARTS_WITH(path, @prefix)",
        {
            "since": START + timedelta(seconds=since),
            "until": START + timedelta(seconds=until),
            "prefix": f"gs://{name}/",
        },
    )


def live(dataset: Dataset, name: str) -> Counter[tuple[Any, ...]]:
    rows = dataset.query(
        f"SELECT {COLUMNS} FROM instances_live WHERE STARTS_WITH(path, @prefix)",
        {"prefix": f"gs://{name}/"},
    )
    return Counter(tuple(row.values()) for row in rows)


def test_a_removal_is_the_marker_with_the_uids_and_the_member_of_the_hidden_row(
    dataset: Dataset, load: Load, row: MakeRow
) -> None:
    """A marker that hides no row, or not the newest row of a key, removes nothing."""
    gone: dict[str, Any] = dict.fromkeys(("study", "series", "instance"))
    load(
        dataset,
        [
            row("gs://marker/a", 1, at=0),
            row("gs://marker/a", 1, instance=None, at=1),
            row("gs://marker/a", 1, member="m", at=1),
            row("gs://marker/a", 2, "deleted", at=2, **gone),
            row("gs://marker/a", 1, "deleted", at=3, **gone),
            row("gs://marker/nothing", 1, "deleted", at=2, **gone),
            row("gs://marker/newer", 1, at=0),
            row("gs://marker/newer", 2, at=1),
            row("gs://marker/newer", 1, "deleted", at=2, **gone),
            row("gs://marker/before", 5, at=0),
            row("gs://marker/before", 5, "deleted", at=1, **gone),
            row("gs://marker/before", 1, "deleted", at=2, **gone),
        ],
    )
    found = changes(dataset, "marker", 2, 4)
    assert sorted((tuple(row.values())[:8] for row in found), key=str) == [
        ("remove", "gs://marker/a", "m", "1", "1.1", "1.1.1", "2", "deleted"),
        ("remove", "gs://marker/a", None, "1", "1.1", "1.1.1", "2", "deleted"),
        ("remove", "gs://marker/a", None, "1", "1.1", None, "2", "deleted"),
    ]
    before = [(row["change"], row["version"]) for row in changes(dataset, "marker", 0, 2)]
    assert sorted(before) == [("remove", "5"), ("upsert", "2")]


def test_the_documented_merge_keeps_a_copy_up_to_date(
    dataset: Dataset, load: Load, row: MakeRow
) -> None:
    """The statement of docs/SCHEMA.md, with other names."""
    (statement,) = re.findall(r"```sql\n(MERGE .*?)```", PAGE.read_text(), re.DOTALL)
    statement = statement.replace("dicom.", f"{dataset.name}.").replace(
        "research.headers", f"{dataset.name}.merged"
    )
    statement = re.sub(r"TIMESTAMP '[^']*'", "@since", statement)
    statement = re.sub(r"TIMESTAMP_SUB\([^)]*\)[^)]*\)", "@until", statement)
    assert statement.count("@") == 2
    rng = random.Random(4)
    rows = [any_row for n in range(60) for any_row in any_rows(f"merge/{n}", rng, row)]
    dataset.query("CREATE TABLE merged AS SELECT * FROM instances_live WHERE FALSE")
    for since in range(0, 100, 25):
        load(dataset, [row for row in rows if since <= ingested(row) < since + 25])
        interval = {
            "since": START + timedelta(seconds=since),
            "until": START + timedelta(seconds=since + 25),
        }
        dataset.query(statement, interval)
        found = dataset.query(
            f"SELECT {COLUMNS} FROM merged WHERE STARTS_WITH(path, 'gs://merge/')"
        )
        assert Counter(tuple(row.values()) for row in found) == live(dataset, "merge")
    dataset.query("DROP TABLE merged")  # so that the dataset can be lent again


READER_BUGS = {
    "a late marker lowers the generation": ("max(generation, gone.get(path, 0))", "generation"),
    "an older row replaces a newer one": ("or order > known[0]", "or True"),
    "members are mixed up": ('row["member"]', "None"),
    "markers are forgotten before their rows": ("gone[path] =", "if path in paths(): gone[path] ="),
    "a marker hides lower generations only": ("generation > gone", "generation >= gone"),
}
"""Bugs of the program of a reader: the right text, and the wrong text in its place."""


def test_the_documented_reader_of_the_log_keeps_the_live_rows(
    dataset: Dataset, load: Load, row: MakeRow
) -> None:
    """Query and program of docs/SCHEMA.md; rows are duplicated, reordered and 25 seconds late."""
    section = PAGE.read_text().partition("**Readers that poll.**")[2]
    ((query,), (program,)) = (
        re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)
        for language in ("sql", "python")
    )
    query = re.sub(r"TIMESTAMP '[^']*'", "@reached", query).replace("1 HOUR", "25 SECOND")
    query = query.replace("dicom.", f"{dataset.name}.")
    assert "TIMESTAMP_SUB(@reached, INTERVAL 25 SECOND)" in query
    readers = {bug: reader(program.replace(*READER_BUGS[bug])) for bug in READER_BUGS}
    right, hasty = reader(program), reader(program)
    rng = random.Random(6)
    arrivals = [
        (ingested(made) + rng.choice([0, 0, 10, 25]), made)
        for number in range(250)
        for made in any_rows(f"reader/{number}", rng, row)
    ]
    wrong: set[str] = set()
    missed = False
    for reached, now in itertools.pairwise([0, 30, 60, 90, 125]):
        load(dataset, [made for appears, made in arrivals if reached <= appears < now])
        log = dataset.query(query, {"reached": START + timedelta(seconds=reached)})
        rng.shuffle(log)
        expected = live(dataset, "reader")
        assert right(log) == expected
        wrong |= {bug for bug, read in readers.items() if read(log) != expected}
        since = START + timedelta(seconds=reached)
        missed |= hasty(made for made in log if made["ingested_at"] >= since) != expected
    assert sum(expected.values()) > 100
    assert wrong == READER_BUGS.keys()
    assert missed, "the rows that appear late make no difference"


def reader(program: str) -> Callable[[Iterable[Row]], Counter[tuple[Any, ...]]]:
    """Return a function that applies rows of the log and returns the live ones."""
    names: dict[str, Any] = {}
    names["paths"] = lambda: {key[0] for key in names["rows"]}  # for a planted bug
    exec(program, names)

    def read(log: Iterable[Row]) -> Counter[tuple[Any, ...]]:
        for made in log:
            if made["path"].startswith("gs://reader/"):
                names["apply"](made)
        return Counter(
            tuple(made[column] for column in COLUMNS.split(", ")) for made in names["live"]()
        )

    return read


@pytest.mark.timeout(googlesql.TIMEOUT)
def test_a_copy_equals_instances_live_on_googles_engine(row: MakeRow) -> None:
    """Few rows at a time: its anti-joins are nested loops."""
    rng = random.Random(5)
    columns = f"path, member, {UIDS}, version, event, CAST(ingested_at AS STRING) AS ingested_at"
    names = re.sub(r"\bAS STRING\b|CAST\(|\) AS \w+", "", columns).split(", ")
    kept = 0
    for _ in range(4):
        rows = [any_row for n in range(5) for any_row in any_rows(f"engine/{n}", rng, row)]
        copy: Copy = {}
        for since, until in [(0, 30), (30, 60), (60, 100)]:
            arrived = [row for row in rows if ingested(row) < until]
            interval = {
                name: (START + timedelta(seconds=each)).isoformat()
                for name, each in [("since", since), ("until", until)]
            }
            found = evaluate(
                f"SELECT change, {columns} FROM changes_between", arrived, arguments=interval
            )
            apply_changes(copy, [dict(zip(["change", *names], row, strict=True)) for row in found])
            shown = evaluate(f"SELECT {columns} FROM instances_live", arrived)
            assert Counter(copy.values()) == Counter(shown)
        kept += len(copy)
    assert kept > 10


FUNCTIONS = [
    definition
    for definition in schema.load(Config(), "p")
    if definition.kind is DefinitionKind.FUNCTION
]


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda each: each.name)
def test_no_function_argument_is_named_like_a_column(function: schema.Definition) -> None:
    """BigQuery would silently take the column instead of the argument."""
    assert function.sql is not None
    tables = [
        definition
        for definition in schema.load(Config(), "p")
        if "schema" in definition.resource and f"`{definition.qualified_name}`" in function.sql
    ]
    assert tables
    columns = {
        field["name"].casefold() for table in tables for field in table.resource["schema"]["fields"]
    }
    assert (
        columns & {argument["name"].casefold() for argument in function.resource["arguments"]}
        == set()
    )
