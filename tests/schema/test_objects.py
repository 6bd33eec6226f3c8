"""`objects_live` equals `instances_live` after any history with refreshes at any moments.

Time is a parameter: the view and the refresh are run with @now for CURRENT_TIMESTAMP().
"""

import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dcm2bq import schema
from dcm2bq.bigquery.dataset import Dataset
from dcm2bq.config import Config, from_overrides
from dcm2bq.errors import ConfigError
from dcm2bq.tools import refresh as tool
from tests.support import googlesql
from tests.support.googlesql import SqlError
from tests.support.googlesql_views import EngineDataset

Row = dict[str, Any]
MakeRow = Callable[..., Row]
Load = Callable[[Dataset, Sequence[Row]], None]
Change = Callable[[str], str]
"""Plants a bug in a statement."""

START = datetime(2024, 1, 1, tzinfo=UTC)
OVERLAP = timedelta(days=28)
LONGEST_AGE = timedelta(days=7)
MOMENTS = 8
EVENTS = ("finalized", "finalized", "metadataUpdated", "deleted", "archived", "expanded")
INDEXED = {"finalized", "metadataUpdated"}
NARROW = (
    "timestamp, ingested_at, event, path, version, StudyInstanceUID, SeriesInstanceUID, "
    "SOPInstanceUID, SOPClassUID, Modality, PatientID, StudyDate, {size}, member"
)
LIVE = NARROW.format(
    size="info.input.size AS size, info.input.storage_class AS storage_class, "
    "info.transfer_syntax_uid AS transfer_syntax_uid"
)
OBJECTS = NARROW.format(size="size, storage_class, transfer_syntax_uid")


def unchanged(sql: str) -> str:
    return sql


class SharedClock:
    """A dataset of either engine whose view and refresh see the time `now`."""

    def __init__(self, dataset: Dataset | EngineDataset, change: Change = unchanged) -> None:
        self.dataset = dataset
        self.now = START
        self._change = change
        project, dataset_id = dataset.name.split(".")
        config = Config() if dataset_id == "dicom" else _named(dataset_id)
        self._refresh_from, self._refresh = (
            self._timed(schema.statement(f"objects/{name}", config, project))
            for name in ("refresh_from", "refresh")
        )
        self._view = next(
            self._timed(definition.sql or "")
            for definition in schema.load(config, project)
            if definition.name == "objects_live"
        )

    def refresh(self, *, full: bool = False) -> None:
        """Refresh as the command does."""
        since = tool.EVERYTHING if full else self.since()
        self.merge(since)

    def since(self) -> datetime:
        (row,) = self.dataset.query(_bare(self.dataset, self._refresh_from))
        since: datetime = row["since"]
        return since

    def merge(self, since: datetime) -> None:
        """Run the MERGE of a refresh that began with `since`."""
        parameters = {"since": since, "now": self.now}
        if isinstance(self.dataset, Dataset):
            self.dataset.query(self._refresh, parameters)
            return
        source = _bare(self.dataset, self._refresh).partition("USING (")[2]
        source = source.partition(" ) AS s ON ")[0]
        merged = self.dataset.query(
            f"SELECT * FROM (SELECT * FROM objects UNION ALL SELECT * FROM ({source})) WHERE TRUE "
            "QUALIFY ROW_NUMBER() OVER (PARTITION BY key "
            "ORDER BY CAST(version AS INT64) DESC, timestamp DESC, ingested_at DESC) = 1",
            parameters,
        )
        self.dataset.replace("objects", *map(_as_json, merged))

    def objects(self, where: str = "TRUE") -> Counter[tuple[Any, ...]]:
        sql = f"SELECT {OBJECTS} FROM ({_bare(self.dataset, self._view)}) WHERE {where}"
        return _counted(self.dataset.query(sql, {"now": self.now}))

    def instances(self, where: str = "TRUE") -> Counter[tuple[Any, ...]]:
        sql = f"SELECT * FROM (SELECT {LIVE} FROM instances_live) WHERE {where}"
        return _counted(self.dataset.query(sql))

    def _timed(self, sql: str) -> str:
        text = " ".join(re.sub(r"--[^\n]*", "", sql).split())
        return self._change(text).replace("CURRENT_TIMESTAMP()", "@now")


def _named(dataset_id: str) -> Config:

    return from_overrides({"bigQuery": {"datasetId": dataset_id}})


def _bare(dataset: Dataset | EngineDataset, sql: str) -> str:
    """Return a query with the names of tables that the evaluator knows."""
    return sql if isinstance(dataset, Dataset) else re.sub(r"`project\.dicom\.(\w+)`", r"\1", sql)


def _as_json(row: Mapping[str, Any]) -> Row:
    return {
        name: value.isoformat() if hasattr(value, "isoformat") else value
        for name, value in row.items()
    }


def _counted(rows: Sequence[Mapping[str, Any]]) -> Counter[tuple[Any, ...]]:
    return Counter(tuple(row.values()) for row in rows)


class History:
    """Rows of one path, each with the moment at which it appears, and the time in between."""

    def __init__(
        self, path: str, rng: random.Random, row: MakeRow, moments: list[datetime]
    ) -> None:
        self.arrivals: list[tuple[int, Row]] = []
        for _ in range(rng.randint(2, 8)):
            moment = rng.randrange(MOMENTS)
            event = rng.choice(EVENTS)
            # In time, minutes late, or as late as the overlap allows.
            late = rng.choice([0, 0, 600, 86_400 * 5, 86_400 * 20])
            made = moments[moment] - timedelta(seconds=late + rng.random())
            arrival = row(
                path,
                rng.choice([9, 10, 100]),
                event,
                at=rng.randint(0, 2),
                ingested=(made - START).total_seconds(),
                member=rng.choice([None, None, "a", 'b"/a']) if event in INDEXED else None,
                **_uids(rng, event),
                **_header(rng, event),
            )
            for again in {moment, rng.choice([moment, rng.randrange(moment, MOMENTS)])}:
                self.arrivals += [(again, arrival)] * rng.choice([1, 1, 2])


def _uids(rng: random.Random, event: str) -> dict[str, str | None]:
    """Return few different UIDs, so that rows supersede each other; markers have none."""
    if event not in INDEXED:
        return dict.fromkeys(("study", "series", "instance"))
    return {"study": "1", "series": None, "instance": rng.choice(["1", "1", None])}


def _header(rng: random.Random, event: str) -> dict[str, Any]:
    if event not in INDEXED:
        return {}
    return {
        "PatientID": rng.choice(["P", "Q", None]),
        "Modality": rng.choice(["CT", "MR"]),
        "SOPClassUID": "1.2",
        "StudyDate": "2024-01-01",
        "info": {
            "input": {"size": rng.randint(0, 5), "storage_class": "STANDARD"},
            "transfer_syntax_uid": "1.2.840.10008.1.2",
        },
    }


def moments(rng: random.Random) -> list[datetime]:
    """Return times of deliveries, up to as far apart as refreshes may be."""
    times = [START + timedelta(days=1)]
    while len(times) < MOMENTS:
        times.append(times[-1] + timedelta(hours=rng.choice([1, 24, 24 * 6, 24 * 6])))
    return times


def run(
    clock: SharedClock,
    count: int,
    rng: random.Random,
    row: MakeRow,
    insert: Callable[[Sequence[Row]], None],
) -> Iterator[tuple[Counter[tuple[Any, ...]], Counter[tuple[Any, ...]]]]:
    """Yield what both views show after each moment of some histories, refreshed now and then."""
    times = moments(rng)
    where = "STARTS_WITH(path, 'gs://histories/')"
    histories = [History(f"gs://histories/{number}", rng, row, times) for number in range(count)]
    clock.now = times[0]
    clock.refresh()
    refreshed = clock.now
    delayed = clock.since()
    for moment, now in enumerate(times):
        clock.now = now
        arrivals = [
            arrival
            for history in histories
            for appears, arrival in history.arrivals
            if appears == moment
        ]
        if arrivals:
            insert(arrivals)
        instances = clock.instances(where)  # which no refresh changes
        yield clock.objects(where), instances
        if rng.random() < 1 / 2:
            clock.merge(delayed)  # one that began with an earlier time and ends now
            refreshed = now
        delayed = clock.since()
        following = times[min(moment + 1, MOMENTS - 1)]
        if rng.random() < 3 / 4 or following - refreshed > LONGEST_AGE:
            clock.refresh()
            refreshed = now
        yield clock.objects(where), instances


def into(dataset: EngineDataset) -> Callable[[Sequence[Row]], None]:
    return lambda rows: dataset.insert("instances", *rows)


def test_objects_live_equals_instances_live_after_any_history(
    refreshed: Dataset, load: Load, row: MakeRow
) -> None:
    """Rows duplicated, reordered and late by up to 20 days; refreshes up to 7 days apart."""
    rng = random.Random(20240110)
    shown = 0
    for objects, instances in run(
        SharedClock(refreshed), 200, rng, row, lambda rows: load(refreshed, rows)
    ):
        assert objects == instances
        shown += len(objects)
    assert shown > 500


@pytest.mark.timeout(googlesql.TIMEOUT)
def test_objects_live_equals_instances_live_on_googles_engine(row: MakeRow) -> None:
    rng = random.Random(20240111)
    dataset = EngineDataset()
    shown = 0
    for objects, instances in run(SharedClock(dataset), 4, rng, row, into(dataset)):
        assert objects == instances
        shown += len(objects)
    assert shown > 10


PLANTED = {
    "markers before the overlap forgotten": ("WHERE marked_path IS NOT NULL", "WHERE FALSE"),
    "markers of the log forgotten": (
        "SELECT path, CAST(version AS INT64) AS gone",
        "SELECT CAST(NULL AS STRING) AS path, CAST(version AS INT64) AS gone",
    ),
    "members forgotten": ("r.path, r.member, r.StudyInstanceUID", "r.path, r.StudyInstanceUID"),
    "late rows forgotten": ("INTERVAL 28 DAY", "INTERVAL 1 DAY"),
    "the refresh does not read again": (
        "TIMESTAMP_SUB(MAX(refreshed_at), INTERVAL 28 DAY )",
        "MAX(refreshed_at)",
    ),
    "a row shown twice": ("s.timestamp >= o.timestamp", "s.timestamp > o.timestamp"),
}
"""Bugs of the view or the refresh: the right text, and the wrong text in its place."""


@pytest.mark.timeout(googlesql.TIMEOUT)
@pytest.mark.parametrize("bug", PLANTED)
def test_a_planted_bug_is_detected(row: MakeRow, bug: str) -> None:
    right, wrong = PLANTED[bug]
    planted = Counter[str]()

    def plant(sql: str) -> str:
        planted["found"] += right in sql
        return sql.replace(right, wrong)

    rng = random.Random(20240112)
    for _ in range(40):
        dataset = EngineDataset()
        for objects, instances in run(SharedClock(dataset, plant), 5, rng, row, into(dataset)):
            assert planted["found"], "the right text is not there any more"
            if objects != instances:
                return
    pytest.fail("not detected")


NEWER_IN_OBJECTS = "WHERE o.key = s.key"
"""Where the view looks up a newer row in `objects` for a row of the log."""


@pytest.mark.timeout(googlesql.TIMEOUT)
@pytest.mark.parametrize("condition", [NEWER_IN_OBJECTS, "WHERE FALSE AND o.key = s.key"])
def test_a_row_older_than_the_overlap_hides_a_late_lower_generation(
    row: MakeRow, condition: str
) -> None:
    """The view reads that row from `objects` only; without that, it shows the older generation."""
    dataset = EngineDataset()
    clock = SharedClock(dataset, lambda sql: sql.replace(NEWER_IN_OBJECTS, condition))
    dataset.insert("instances", row("gs://b/a", 10))
    clock.now = START + timedelta(days=1)
    clock.refresh()
    clock.now = START + OVERLAP + timedelta(days=2)
    clock.merge(clock.now - OVERLAP)
    late = (clock.now - START).total_seconds()
    dataset.insert("instances", row("gs://b/a", 9, ingested=late))
    assert sum(clock.instances().values()) == 1
    is_planted = condition != NEWER_IN_OBJECTS
    assert (clock.objects() != clock.instances()) is is_planted
    clock.refresh()
    assert (clock.objects() != clock.instances()) is is_planted


@pytest.mark.timeout(googlesql.TIMEOUT)
@pytest.mark.parametrize("where", ["TRUE", "PatientID = 'P'", "StudyDate = '2024-01-01'"])
def test_without_a_recent_refresh_every_query_is_refused(where: str) -> None:
    clock = SharedClock(EngineDataset())
    with pytest.raises(SqlError, match="run dcm2bq refresh"):
        clock.objects(where)
    clock.refresh()
    clock.now += LONGEST_AGE
    assert not clock.objects(where)
    clock.now += timedelta(seconds=1)
    with pytest.raises(SqlError, match="run dcm2bq refresh"):
        clock.objects(where)


def test_the_command_refreshes_and_the_view_answers(
    refreshed: Dataset, load: Load, row: MakeRow
) -> None:
    """With the view and the clock of the service itself."""
    config = _named(refreshed.name.split(".")[1])
    refreshed.query("TRUNCATE TABLE objects")
    with pytest.raises(ConfigError) as refused:
        refreshed.query("SELECT path FROM objects_live WHERE PatientID = 'P'")
    assert str(refused.value) == "objects was not refreshed in the last 7 days: run dcm2bq refresh"
    with pytest.raises(ConfigError) as quoted:
        refreshed.query(
            f"SELECT ERROR(CONCAT(path, '{refused.value}', path)) FROM UNNEST(['DOE^JANE']) AS path"
        )
    assert str(quoted.value) == str(refused.value)
    assert tool.last_refresh(refreshed) is None
    now = (datetime.now(UTC) - START).total_seconds()
    load(refreshed, [row("gs://command/a", 1, at=now)])
    assert tool.refresh(refreshed, config, dry_run=True).is_full
    assert tool.last_refresh(refreshed) is None
    tool.keep_fresh(refreshed, config)
    before = tool.last_refresh(refreshed)
    load(refreshed, [row("gs://command/b", 1, at=now), row("gs://command/a", 1, "deleted", at=now)])
    tool.keep_fresh(refreshed, config)
    assert tool.last_refresh(refreshed) == before
    paths = "SELECT path FROM objects_live WHERE STARTS_WITH(path, 'gs://command/')"
    assert refreshed.query(paths) == [{"path": "gs://command/b"}]
    done = tool.refresh(refreshed, config)
    assert not done.is_full
    assert before is not None
    assert done.since == before - OVERLAP
    assert refreshed.query(paths) == [{"path": "gs://command/b"}]
