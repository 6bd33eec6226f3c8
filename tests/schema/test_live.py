"""`instances_live` against a bucket, and the table functions against `instances_live`."""

import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest

from dcm2bq.bigquery.dataset import Dataset
from tests.support import googlesql
from tests.support.googlesql_views import EngineDataset

Row = dict[str, Any]
MakeRow = Callable[..., Row]
Load = Callable[[Dataset, Sequence[dict[str, Any]]], None]
type Either = tuple[Dataset | EngineDataset, Callable[[Sequence[Row]], None]]

KEYS = "path, member, version, timestamp, ingested_at, event, StudyInstanceUID, SOPInstanceUID"
INDEXED = {"finalized", "metadataUpdated"}
MARKERS = {"deleted", "archived"}
EVENTS = ("finalized", "finalized", "metadataUpdated", "deleted", "archived", "expanded")


class ChangingBucket:
    """A bucket and the rows that the function makes from its events.

    `live` is what the bucket holds: path -> generation, time of the last change, SOPInstanceUID.
    """

    def __init__(self, name: str, rng: random.Random, row: MakeRow, *, versioned: bool) -> None:
        self.live: dict[str, tuple[int, int, str]] = {}
        self.rows: list[Row] = []
        self._archived: set[tuple[str, int, str]] = set()
        self._name, self._rng, self._row, self._versioned = name, rng, row, versioned
        # Generations of different lengths sort differently as text.
        self._generation = rng.choice([7, 97, 1_700_000_000_000_000])
        self._clock = 0

    def step(self) -> None:
        """Make a random change."""
        path = f"gs://{self._name}/{self._rng.choice('ab')}.dcm"
        acts = [self.upload, self.upload, self.delete, self.touch, self.purge, self.restore]
        self._clock += self._rng.choice([0, 1, 1, 5])
        self._rng.choice(acts)(path)

    def upload(self, path: str, instance: str | None = None) -> None:
        old = self.live.get(path)
        self._generation += self._rng.choice([1, 2, 40])
        instance = instance or self._rng.choice(["x", "y"])
        self.live[path] = (self._generation, self._clock, instance)
        self._emit(path, "finalized", self._generation, instance)
        if old:
            self._retire(path, *old)

    def delete(self, path: str) -> None:
        if old := self.live.pop(path, None):
            self._retire(path, *old)

    def touch(self, path: str) -> None:
        if old := self.live.get(path):
            self.live[path] = (old[0], self._clock, old[2])
            self._emit(path, "metadataUpdated", old[0], old[2])

    def purge(self, path: str) -> None:
        """Delete an archived version."""
        for archived in sorted(self._archived):
            if archived[0] == path:
                self._archived.discard(archived)
                self._emit(path, "deleted", archived[1], None)
                return

    def restore(self, path: str) -> None:
        for archived in sorted(self._archived):
            if archived[0] == path:
                self.upload(path, archived[2])
                return

    def deliver(self) -> list[Row]:
        """Return the rows in order of arrival: each at least once, in random order."""
        arrivals = [row for row in self.rows for _ in range(self._rng.choice([1, 1, 2, 3]))]
        self._rng.shuffle(arrivals)
        start = datetime.fromisoformat("2024-02-01T00:00:00Z")
        return [
            {**row, "ingested_at": (start + timedelta(seconds=second)).isoformat()}
            for second, row in enumerate(arrivals)
        ]

    def _retire(self, path: str, generation: int, _at: int, instance: str) -> None:
        self._emit(path, "archived" if self._versioned else "deleted", generation, None)
        if self._versioned:
            self._archived.add((path, generation, instance))

    def _emit(self, path: str, event: str, generation: int, instance: str | None) -> None:
        uids = {"study": self._name, "series": "1", "instance": instance}
        if instance is None:
            uids = dict.fromkeys(uids)
        self.rows.append(self._row(path, generation, event, at=self._clock, **uids))


def live(dataset: Dataset | EngineDataset, where: str = "TRUE") -> list[Row]:
    return dataset.query(f"SELECT {KEYS} FROM instances_live WHERE {where}")


def key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what identifies a row, for rows sent and for rows read back."""
    times = [
        datetime.fromisoformat(row[name]) if isinstance(row[name], str) else row[name]
        for name in ("timestamp", "ingested_at")
    ]
    names = ("path", "member", "version", "event", "StudyInstanceUID", "SOPInstanceUID")
    return (*times, *(row.get(name) for name in names))


def expected_live(rows: Iterable[Row]) -> Iterator[Row]:
    """Yield the live rows of any set of rows, by the rule in docs/ARCHITECTURE.md."""
    by_path: dict[str, list[Row]] = {}
    for row in rows:
        by_path.setdefault(row["path"], []).append(row)
    for there in by_path.values():
        gone = max((int(r["version"]) for r in there if r["event"] in MARKERS), default=0)
        best: dict[tuple[str | None, ...], Row] = {}
        for row in there:
            if row["event"] not in INDEXED or int(row["version"]) <= gone:
                continue
            uids = [row[f"{level}InstanceUID"] for level in ("Study", "Series", "SOP")]
            instance = (row["member"], *uids)
            rank = int(row["version"]), row["timestamp"], row["ingested_at"]
            other = best.get(instance)
            if other is None or rank > (
                int(other["version"]),
                other["timestamp"],
                other["ingested_at"],
            ):
                best[instance] = row
        yield from best.values()


def any_rows(name: str, rng: random.Random, row: MakeRow, start: int = 0) -> list[Row]:
    """Return random rows of one path, including sets that no bucket produces."""
    rows = []
    for second in rng.sample(range(100), rng.randint(1, 7)):
        event = rng.choice(EVENTS)
        uids = {level: rng.choice(["1", "2", None]) for level in ("study", "series", "instance")}
        member = rng.choice([None, None, "a", "b/a"]) if event in INDEXED else None
        rows += [
            row(
                f"gs://{name}",
                rng.choice([9, 10, 100]),
                event,
                at=rng.randint(0, 2),
                ingested=start + second,
                member=member,
                **(uids if event in INDEXED else dict.fromkeys(uids)),
            )
        ] * rng.choice([1, 1, 1, 2])
    return rows


def random_buckets(count: int, rng: random.Random, row: MakeRow) -> dict[str, ChangingBucket]:
    """Return buckets by name, after some changes."""
    buckets = {}
    for number in range(count):
        name = f"bucket-{number}"
        buckets[name] = ChangingBucket(name, rng, row, versioned=rng.random() < 0.5)
        for _ in range(rng.randint(1, 12)):
            buckets[name].step()
    return buckets


def assert_live(dataset: Dataset | EngineDataset, buckets: Mapping[str, ChangingBucket]) -> None:
    """Check that `instances_live` has the objects of each bucket."""
    shown: dict[str, list[tuple[Any, ...]]] = {name: [] for name in buckets}
    for found in live(dataset, "path LIKE 'gs://bucket-%'"):
        seconds = found["timestamp"] - datetime.fromisoformat("2024-01-01T00:00:00Z")
        shown[found["path"].split("/")[2]].append(
            (found["path"], int(found["version"]), seconds.seconds, found["SOPInstanceUID"])
        )
    wrong = [
        bucket
        for name, bucket in buckets.items()
        if sorted(shown[name]) != sorted((path, *content) for path, content in bucket.live.items())
    ]
    shortest = min(wrong, key=lambda bucket: len(bucket.rows), default=None)
    assert shortest is None, (len(wrong), shortest.live, shortest.rows)


def test_instances_live_equals_the_bucket_once_every_event_has_arrived(
    dataset: Dataset, load: Load, row: MakeRow
) -> None:
    """Random buckets, with and without versioning; each event at least once, in any order."""
    rng = random.Random(20240101)
    buckets = random_buckets(1000, rng, row)
    load(dataset, [row for bucket in buckets.values() for row in bucket.deliver()])
    assert sum(len(bucket.live) for bucket in buckets.values()) > 500
    assert_live(dataset, buckets)


@pytest.mark.timeout(googlesql.TIMEOUT)
def test_instances_live_equals_the_bucket_on_googles_engine(row: MakeRow) -> None:
    """Few rows at a time: its anti-joins are nested loops."""
    rng = random.Random(20240105)
    objects = 0
    for _ in range(8):
        buckets = random_buckets(3, rng, row)
        dataset = EngineDataset()
        for bucket in buckets.values():
            dataset.insert("instances", *bucket.deliver())
        assert_live(dataset, buckets)
        objects += sum(len(bucket.live) for bucket in buckets.values())
    assert objects > 10


@pytest.fixture(scope="module")
def anything(dataset: Dataset, load: Load, row: MakeRow) -> list[Row]:
    """Random rows at 1000 paths."""
    rng = random.Random(20240102)
    rows = [any_row for number in range(1000) for any_row in any_rows(f"any/{number}", rng, row)]
    load(dataset, rows)
    return rows


def test_instances_live_depends_on_the_set_of_rows_alone(
    dataset: Dataset, anything: list[Row]
) -> None:
    """With markers without rows, missing markers, rows without UIDs, ties and duplicate rows."""
    found = Counter(key(row) for row in live(dataset, "path LIKE 'gs://any/%'"))
    assert found == Counter(key(any_row) for any_row in expected_live(anything))
    assert len(found) > 500


@pytest.mark.parametrize("uid", ["1", "2", "3"])
def test_study_equals_instances_live_filtered_by_study(
    dataset: Dataset, anything: list[Row], uid: str
) -> None:
    assert anything
    found = dataset.query(f"SELECT {KEYS} FROM `{dataset.name}.study`(@uid)", {"uid": uid})
    expected = live(dataset, f"StudyInstanceUID = '{uid}'")
    assert Counter(map(key, found)) == Counter(map(key, expected))
    assert bool(found) == (uid != "3")


def test_ingested_between_equals_instances_live_filtered_by_time(
    dataset: Dataset, anything: list[Row]
) -> None:
    """A row that is superseded by one before or after the interval is not live."""
    everything = live(dataset)
    start = min(datetime.fromisoformat(any_row["ingested_at"]) for any_row in anything)
    rng = random.Random(20240103)
    seen = 0
    for _ in range(8):
        since, until = (start + timedelta(seconds=rng.randint(-1, 101)) for _ in range(2))
        found = dataset.query(
            f"SELECT {KEYS} FROM `{dataset.name}.ingested_between`(@since, @until)",
            {"since": since, "until": until},
        )
        expected = [any_row for any_row in everything if since <= any_row["ingested_at"] < until]
        assert Counter(map(key, found)) == Counter(map(key, expected))
        seen += len(found)
    assert seen > 500


def test_an_incremental_reader_ends_up_with_instances_live(
    dataset: Dataset, load: Load, row: MakeRow
) -> None:
    """For each interval, add its rows, then remove those that its markers hide."""
    rng = random.Random(20240104)
    rows = [
        any_row for number in range(200) for any_row in any_rows(f"new/{number}", rng, row, 10_000)
    ]
    copy: dict[tuple[Any, ...], Row] = {}
    start = datetime.fromisoformat("2024-01-01T02:46:40Z")
    for second in range(0, 100, 20):
        since, until = (start + timedelta(seconds=moment) for moment in (second, second + 20))
        load(
            dataset,
            [row for row in rows if since <= datetime.fromisoformat(row["ingested_at"]) < until],
        )
        interval = {"since": since, "until": until}
        for record in dataset.query(
            f"SELECT {KEYS}, SeriesInstanceUID "
            f"FROM `{dataset.name}.ingested_between`(@since, @until)",
            interval,
        ):
            uids = (record[f"{level}InstanceUID"] for level in ("Study", "Series", "SOP"))
            copy[record["path"], record["member"], *uids] = record
        for each in dataset.query(
            "SELECT path, MAX(CAST(version AS INT64)) AS generation FROM instances "
            "WHERE event IN ('deleted', 'archived') "
            "AND ingested_at >= @since AND ingested_at < @until GROUP BY path",
            interval,
        ):
            for held in [held for held in copy if held[0] == each["path"]]:
                if int(copy[held]["version"]) <= each["generation"]:
                    del copy[held]
        now = live(dataset, "path LIKE 'gs://new/%'")
        assert Counter(map(key, copy.values())) == Counter(map(key, now))
    assert len(copy) > 100


@pytest.mark.timeout(googlesql.TIMEOUT)
def test_views_and_functions_agree_with_the_rule_on_googles_engine(row: MakeRow) -> None:
    """Any rows; `study` and `ingested_between` equal `instances_live` with a filter."""
    rng = random.Random(20240106)
    start = datetime.fromisoformat("2024-01-01T00:00:00Z")
    counts: Counter[str] = Counter()
    for _ in range(7):
        rows = [any_row for number in range(8) for any_row in any_rows(f"any/{number}", rng, row)]
        dataset = EngineDataset()
        dataset.insert("instances", *rows)
        everything = live(dataset)
        assert Counter(map(key, everything)) == Counter(map(key, expected_live(rows)))
        study = dataset.query(f"SELECT {KEYS} FROM `{dataset.name}.study`(@uid)", {"uid": "1"})
        expected = [any_row for any_row in everything if any_row["StudyInstanceUID"] == "1"]
        assert Counter(map(key, study)) == Counter(map(key, expected))
        since, until = start + timedelta(seconds=30), start + timedelta(seconds=70)
        interval = dataset.query(
            f"SELECT {KEYS} FROM `{dataset.name}.ingested_between`(@since, @until)",
            {"since": since, "until": until},
        )
        expected = [any_row for any_row in everything if since <= any_row["ingested_at"] < until]
        assert Counter(map(key, interval)) == Counter(map(key, expected))
        counts += Counter(live=len(everything), study=len(study), interval=len(interval))
    assert min(counts.values()) > 5
    assert len(counts) == 3


STORIES: dict[str, tuple[list[tuple[str, int]], set[int]]] = {
    "upload": ([("finalized", 9)], {9}),
    "overwrite": ([("finalized", 9), ("finalized", 10), ("deleted", 9)], {10}),
    "overwrite, delete": (
        [("finalized", 9), ("finalized", 10), ("deleted", 9), ("deleted", 10)],
        set(),
    ),
    "archive, restore": ([("finalized", 9), ("archived", 9), ("finalized", 10)], {10}),
    "delete, marker of the first lost": (
        [("finalized", 9), ("finalized", 10), ("deleted", 10)],
        set(),
    ),
}


def rows_in_every_order(story: str, row: MakeRow) -> list[list[Row]]:
    """Return the rows of each order of the story's events, all of them twice; a path each."""
    events, _ = STORIES[story]
    name = "".join(filter(str.isalpha, story))
    return [
        [
            row(f"gs://orders/{name}/{number}", version, event, at=version, ingested=second)
            for second, (event, version) in enumerate(order)
        ]
        for number, order in enumerate(sorted(set(itertools.permutations(events * 2))))
    ]


def assert_story(dataset: Dataset | EngineDataset, story: str, rows: Sequence[Row]) -> None:
    """Check that at each path exactly the story's generations are live."""
    _, generations = STORIES[story]
    paths = {row["path"] for row in rows}
    folder = min(paths).rpartition("/")[0]
    found = Counter(
        (row["path"], int(row["version"])) for row in live(dataset, f"path LIKE '{folder}/%'")
    )
    assert found == Counter((path, version) for path in paths for version in generations)


@pytest.mark.parametrize("story", STORIES)
def test_every_order_of_duplicated_events_gives_the_same_rows(
    dataset: Dataset, load: Load, row: MakeRow, story: str
) -> None:
    rows = [any_row for order in rows_in_every_order(story, row) for any_row in order]
    load(dataset, rows)
    assert_story(dataset, story, rows)


@pytest.mark.parametrize("story", STORIES)
@pytest.mark.timeout(googlesql.TIMEOUT)
def test_some_orders_of_duplicated_events_give_the_same_rows_on_googles_engine(
    row: MakeRow, story: str
) -> None:
    orders = rows_in_every_order(story, row)
    sample = random.Random(20240107).sample(orders, min(len(orders), 15))
    for batch in itertools.batched(sample, 5):
        rows = [any_row for order in batch for any_row in order]
        dataset = EngineDataset()
        dataset.insert("instances", *rows)
        assert_story(dataset, story, rows)


@pytest.fixture(params=["local BigQuery", "Google's engine"])
def either(request: pytest.FixtureRequest) -> Either:
    """A dataset on either SQL engine, and how to load rows into it."""
    if request.param == "local BigQuery":
        dataset, load = (request.getfixturevalue(name) for name in ("dataset", "load"))
        return dataset, lambda rows: load(dataset, rows)
    engine_dataset = EngineDataset()
    return engine_dataset, lambda rows: engine_dataset.insert("instances", *rows)


@pytest.mark.timeout(googlesql.TIMEOUT)
def test_an_instance_at_two_paths_has_two_rows(either: Either, row: MakeRow) -> None:
    dataset, load = either
    load([row("gs://two/a", 1), row("gs://two/b", 2)])
    where = "path LIKE 'gs://two/%' ORDER BY path"
    assert [row["path"] for row in live(dataset, where)] == ["gs://two/a", "gs://two/b"]
    load([row("gs://two/b", 3, "deleted")])
    assert [row["path"] for row in live(dataset, where)] == ["gs://two/a"]


@pytest.mark.timeout(googlesql.TIMEOUT)
def test_until_its_marker_arrives_an_overwritten_object_is_shown(
    either: Either, row: MakeRow
) -> None:
    """Only if the UIDs differ: rows supersede each other only within one instance."""
    dataset, load = either
    load([row("gs://late/a", 1, instance="x"), row("gs://late/a", 2, instance="y")])
    where = "path = 'gs://late/a'"
    assert {row["version"] for row in live(dataset, where)} == {"1", "2"}
    load([row("gs://late/a", 1, "deleted", study=None, series=None, instance=None)])
    assert {row["version"] for row in live(dataset, where)} == {"2"}
