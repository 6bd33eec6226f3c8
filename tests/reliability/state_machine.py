"""A bucket with a history, and a transport that delivers its events as badly as allowed.

Hypothesis chooses what happens. `Machine.teardown` delivers whatever is left and holds the
tables against the bucket: the promise of docs/ARCHITECTURE.md.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime, timedelta
from io import BytesIO
from typing import ClassVar
from urllib.parse import quote

import hypothesis.strategies as st
import requests
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from pydicom import Dataset, FileMetaDataset, dcmwrite
from pydicom.uid import UID, ExplicitVRLittleEndian

from dcm2bq.row_names import RowNames
from tests.support.archive_files import tar_of, zip_of
from tests.support.cloud import (
    SENTINEL,
    Bucket,
    Event,
    row_error,
)
from tests.support.function_stack import Stack, unique
from tests.support.leaks import leaks, windows
from tests.support.proxy import Fault
from tests.support.pubsub import Notification

type Letter = tuple[str, str, str | None, str]
"""Path, version, member and event of a dead letter."""
type Row = tuple[str, str, str | None]
"""Path, version and member of a live row."""

# One statement, since each has a fixed cost on the local BigQuery.
ACCOUNTS = """
SELECT 'live' AS kind, path, version, member, event FROM instances_live
WHERE path IN UNNEST(@paths)
UNION ALL
SELECT 'dead', path, version, member, event FROM dead_letters WHERE path IN UNNEST(@paths)
UNION ALL
SELECT 'expanded', path, version, member, event FROM instances
WHERE event = 'expanded' AND path IN UNNEST(@paths)
"""

THREADS = 16

NAMES = ("a.dcm", "b c#1?.dcm", "ü/%41'.DCM", "IM0001", "notes.txt")
ARCHIVE_NAMES = ("s.zip", "t.TAR")
FOLDER = "history^of-"
"""The beginning of the name of every object of a history."""
MEMBER = "MEMBER/ü #"
"""The name of a member: it must not turn up in logs."""
LONG_AGO = timedelta(hours=13)
"""Longer than `retry.maxAgeSeconds`: an event of that age is not retried."""


def dicom(number: int) -> bytes:
    """Return a small DICOM file of the instance with this number."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = UID("1.2.840.10008.5.1.4.1.1.2")
    meta.MediaStorageSOPInstanceUID = UID(f"1.2.3.{number}")
    header = Dataset()
    header.file_meta = meta
    header.SOPClassUID, header.SOPInstanceUID = (
        meta.MediaStorageSOPClassUID,
        meta.MediaStorageSOPInstanceUID,
    )
    header.StudyInstanceUID, header.SeriesInstanceUID = "1.2", "1.2.3"
    header.Modality, header.PatientName, header.PatientID = "CT", SENTINEL, SENTINEL
    stream = BytesIO()
    dcmwrite(stream, header, enforce_file_format=True)
    return stream.getvalue()


CONTENTS = {
    "one instance": dicom(1),
    "another instance": dicom(2),
    "no DICOM": SENTINEL.encode() * 20,
    "cut": dicom(3)[:-7],
    "empty": b"",
}
ARCHIVES: dict[str, dict[str, str]] = {
    "two members": {"a": "one instance", MEMBER: "another instance"},
    "one instance twice": {"a": "one instance", "b": "one instance"},
    "a broken member": {"a": "another instance", "empty": "empty", MEMBER: "cut", "c": "no DICOM"},
    "nothing": {"a": "no DICOM"},
    "no archive": {},
}
"""The contents of the members of an archive, by their names."""
FAULTS: dict[str, Callable[[], tuple[str, Fault]]] = {
    "the object cannot be read": lambda: ("storage", Fault("alt=media", 403)),
    "the row is refused": lambda: (
        "bigquery",
        Fault("instances/insertAll", 200, row_error("invalid")),
    ),
    "the insert is forbidden": lambda: ("bigquery", Fault("instances/insertAll", 403)),
    "the insert's answer is lost": lambda: (
        "bigquery",
        Fault("instances/insertAll", 403, after=True),
    ),
    "no dead letter can be written": lambda: ("bigquery", Fault("dead_letter/insertAll", 403)),
}
WAYS: dict[str, Callable[[Event, str], requests.Response]] = {
    "Eventarc": Event.post,
    "pushed": lambda event, url: Notification(event=event).push(url),
    "pushed without payload": lambda event, url: Notification(event=event, has_payload=False).push(
        url
    ),
    "by a trigger of the topic": lambda event, url: Notification(event=event).trigger(url),
}
"""How an event reaches the function; each delivery of it may take another way."""
ACTS = (*("upload", "upload", "upload archive", "delete", "touch", "restore", "purge", "deliver"),)
WEATHER = st.sampled_from(["fair", *sorted(FAULTS)])


@dataclass
class Figures:
    """The figures for docs/RELIABILITY.md."""

    histories: int = 0
    events: int = 0
    deliveries: int = 0
    objects: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    given_up: int = 0

    def __add__(self, other: "Figures") -> "Figures":
        return Figures(
            **{
                field.name: getattr(self, field.name) + getattr(other, field.name)
                for field in fields(self)
            }
        )

    def __str__(self) -> str:
        failures = ", ".join(f"{count} x {name}" for name, count in sorted(self.failures.items()))
        return (
            f"{self.histories} histories, {self.events} events, {self.deliveries} deliveries, "
            f"{self.objects} objects left in the buckets, "
            f"{self.given_up} events given up and retried; failed deliveries: {failures}"
        )


@dataclass(frozen=True)
class Generation:
    """A generation in the bucket: its `finalized` event and its content."""

    event: Event
    content: str
    is_sniffed: bool
    """Whether the function reads objects of any name."""

    @property
    def generation(self) -> str:
        return str(self.event.data["generation"])

    @property
    def is_archive(self) -> bool:
        return self.content in ARCHIVES

    @property
    def counts(self) -> bool:
        """Whether the function records it."""
        if self.is_archive:
            return True
        if self.event.data["name"].lower().endswith(".dcm"):
            return bool(CONTENTS[self.content])
        return self.is_sniffed and CONTENTS[self.content][128:132] == b"DICM"

    @property
    def instances(self) -> set[str | None]:
        """The members that are live; None for an object that is not an archive."""
        if self.is_archive:
            return {name for name, kind in ARCHIVES[self.content].items() if "instance" in kind}
        return {None} if self.counts and "instance" in self.content else set()

    @property
    def broken(self) -> set[str | None]:
        """The members that have a dead letter; None for the object as a whole."""
        if self.is_archive and ARCHIVES[self.content]:
            return {name for name, kind in ARCHIVES[self.content].items() if kind == "cut"}
        return set() if self.instances else {None}


def content_of(name: str, content: str) -> bytes:
    """Return the bytes of an object that is stored under a name."""
    if content not in ARCHIVES:
        return CONTENTS[content]
    members = {member: CONTENTS[kind] for member, kind in ARCHIVES[content].items()}
    if not members:
        return b"PK" * 1000
    return zip_of(members) if name.endswith(".zip") else tar_of(members)


def assert_privacy(stack: Stack) -> None:
    """Assert that patient data left the function only in rows of `instances`."""
    log = stack.log_file.read_text()
    assert SENTINEL not in log
    assert MEMBER.partition("/")[0] not in log
    letters = stack.dataset.query(
        "SELECT COUNTIF(STRPOS(attributes, @sentinel) > 0 "
        "OR STRPOS(SAFE_CONVERT_BYTES_TO_STRING(data), @sentinel) > 0) AS n FROM dead_letter",
        {"sentinel": SENTINEL},
    )
    assert letters == [{"n": 0}]
    errors = stack.dataset.query(
        "SELECT DISTINCT JSON_VALUE(attributes, '$.error') AS error FROM dead_letter"
    )
    assert leaks((str(error["error"]) for error in errors), windows(SENTINEL.encode())) == []
    if stack.config.privacy.hashes_paths:
        assert_no_names(stack)


def assert_no_names(stack: Stack) -> None:
    """Assert that no part of a name of an object or member left the function."""
    tables = [
        "SELECT path, member, TO_JSON_STRING(info), TO_JSON_STRING(metadata) FROM instances",
        "SELECT attributes, SAFE_CONVERT_BYTES_TO_STRING(data), message_id FROM dead_letter",
    ]
    rows = [str(tuple(row.values())) for sql in tables for row in stack.dataset.query(sql)]
    assert rows
    parts = [FOLDER, MEMBER.partition("/")[0], *(name.partition(".")[0] for name in NAMES[1:])]
    for text in (*rows, stack.log_file.read_text()):
        assert not [part for part in parts if part in text or quote(part) in text]


class Machine(RuleBasedStateMachine):
    """One history in its own folder, on the stack of the class."""

    stack: ClassVar[Stack]
    names: ClassVar[RowNames]
    """The names that rows have for objects and members."""
    figures: ClassVar[Figures]
    retry: ClassVar[Callable[[str], object]]
    """Runs `dead-letters retry` for a glob of paths."""
    only_fault: ClassVar[str] = ""
    """The one fault that every bad weather brings; empty: whichever is drawn."""
    most_again: ClassVar[int] = 40
    """How many events are delivered again at once."""

    @initialize(versioned=st.booleans(), seed=st.integers(0, 2**32))
    def start(self, *, versioned: bool, seed: int) -> None:
        self.chance = random.Random(seed)
        self.versioned = versioned
        self.bucket: Bucket = self.stack.versioned_bucket if versioned else self.stack.bucket
        self.folder = unique(FOLDER)
        self.live: dict[str, Generation] = {}
        self.archived: list[Generation] = []
        self.purged: list[Fault] = []
        self.pending: list[Event] = []
        self.acknowledged: list[Event] = []

    # Changes of the bucket.

    @rule(name=st.sampled_from(NAMES), content=st.sampled_from(sorted(CONTENTS)))
    def upload(self, name: str, content: str) -> None:
        """Upload or overwrite; one instance may be stored at two paths."""
        event = self.bucket.upload(f"{self.folder}/{name}", content_of(name, content))
        before = self.live.get(name)
        is_sniffed = self.stack.config.input.other_names == "sniff"
        self.live[name] = Generation(event, content, is_sniffed)
        self._emit(event)
        if before:
            self._retire(before)

    @rule(name=st.sampled_from(ARCHIVE_NAMES), content=st.sampled_from(sorted(ARCHIVES)))
    def upload_archive(self, name: str, content: str) -> None:
        self.upload(name, content)

    @precondition(lambda self: self.live)
    @rule(index=st.integers(0, 99))
    def delete(self, index: int) -> None:
        name = sorted(self.live)[index % len(self.live)]
        self.bucket.delete(f"{self.folder}/{name}")
        self._retire(self.live.pop(name))

    @precondition(lambda self: self.live)
    @rule(index=st.integers(0, 99))
    def touch(self, index: int) -> None:
        now = self.live[sorted(self.live)[index % len(self.live)]]
        self._emit(now.event.as_type("metadataUpdated"))

    @precondition(lambda self: self.archived)
    @rule(index=st.integers(0, 99))
    def restore(self, index: int) -> None:
        """Copy an archived generation back: it becomes a new generation."""
        old = self.archived[index % len(self.archived)]
        self.upload(old.event.data["name"].removeprefix(f"{self.folder}/"), old.content)

    @precondition(lambda self: self.archived)
    @rule(index=st.integers(0, 99))
    def purge(self, index: int) -> None:
        """Delete an archived generation for good."""
        old = self.archived.pop(index % len(self.archived))
        # The local Cloud Storage cannot do this, so the proxy answers for the generation.
        self.purged.append(Fault(f"generation={old.generation} ", 404))
        self._emit(self._now(old.event.as_type("deleted")))

    @rule()
    def live_a_while(self) -> None:
        """Make several of these changes; some events arrive in between, as rows to be hidden."""
        for _ in range(self.chance.randint(4, 12)):
            act = self.chance.choice(ACTS)
            index = self.chance.randrange(100)
            if act == "upload":
                self.upload(self.chance.choice(NAMES), self.chance.choice(sorted(CONTENTS)))
            elif act == "upload archive":
                self.upload(self.chance.choice(ARCHIVE_NAMES), self.chance.choice(sorted(ARCHIVES)))
            elif act == "deliver":
                self._post(self._some_pending(), "fair")
            elif self.live if act in {"delete", "touch"} else self.archived:
                getattr(self, act)(index)

    # Deliveries of the events.

    @precondition(lambda self: self.pending)
    @rule(weather=WEATHER, old=st.booleans())
    def deliver(self, weather: str, *, old: bool) -> None:
        """Deliver some pending events concurrently; `old` ones are not retried."""
        events = self._some_pending()
        self._post([self._now(event, LONG_AGO) if old else event for event in events], weather)

    @precondition(lambda self: self.acknowledged)
    @rule(weather=WEATHER)
    def deliver_again(self, weather: str) -> None:
        """Deliver acknowledged events again, some under another id."""
        count = self.chance.randint(1, self.most_again)
        events = self.chance.choices(self.acknowledged, k=count)
        for number in range(0, len(events), 3):
            events[number] = replace(events[number], id=unique("second-"))
        self._post(events, weather)

    # The invariants.

    def teardown(self) -> None:
        if not hasattr(self, "chance"):
            return
        try:
            self._flush()
            self._check_listing()
            self._check_accounts()
        finally:
            self.stack.storage.faults = []
            self.stack.bigquery.faults = []
        self.figures.histories += 1
        self.figures.objects += len(self.live)

    def _flush(self) -> None:
        """Deliver pending events only: acknowledged ones must be in the tables."""
        for _ in range(4):
            if self.pending:
                weather = self.chance.choice(sorted(FAULTS))
                self.deliver(weather, old=self.chance.random() < 1 / 4)
        events, self.pending = self.pending, []
        self.chance.shuffle(events)
        self._post(events, "fair")
        assert not self.pending, "not acknowledged although nothing is broken"

    def _check_accounts(self) -> None:
        """Compare the tables with the bucket, before and after `dead-letters retry`.

        Every object is live or has a dead letter, and so has a live row whose object is gone.
        """
        live, dead, expanded = self._accounts()
        for stored in self._objects():
            key = self._path(stored), stored.generation
            if stored.is_archive and key not in expanded:
                assert (*key, None, "finalized") in dead, f"not expanded: {stored.content}"
                continue
            for name in stored.instances | stored.broken:
                member = self._member(stored, name)
                assert (*key, member) in live or (*key, member, "finalized") in dead, (
                    f"unaccounted: {stored.content}"
                )
        there = {(self._path(stored), stored.generation) for stored in self._objects()}
        not_marked = {(path, version) for path, version, _, event in dead if event != "finalized"}
        assert {(path, version) for path, version, _ in live} - there <= not_marked
        given_up = dead - self._broken()
        if given_up:
            self.figures.given_up += len(given_up)
            folder = "" if self.names.are_hashed else f"{self.folder}/"
            type(self).retry(f"gs://{self.bucket.name}/{folder}*")
            live, dead, _ = self._accounts()
        assert dead == self._broken()
        assert live == Counter(
            (self._path(stored), stored.generation, self._member(stored, member))
            for stored in self._objects()
            for member in stored.instances
        )

    def _check_listing(self) -> None:
        """Compare the bucket with the history."""
        listed = {
            name: str(generation)
            for name, generation in self.bucket.names(f"{self.folder}/").items()
        }
        assert listed == {row.event.data["name"]: row.generation for row in self.live.values()}

    def _objects(self) -> Iterable[Generation]:
        return (row for row in self.live.values() if row.counts)

    def _broken(self) -> set[Letter]:
        return {
            (self._path(stored), stored.generation, self._member(stored, member), "finalized")
            for stored in self._objects()
            for member in stored.broken
        }

    def _path(self, each: Generation) -> str:
        return self.names.path(f"gs://{self.bucket.name}/{each.event.data['name']}")

    def _member(self, each: Generation, name: str | None) -> str | None:
        return None if name is None else self.names.member(self._path(each), name)

    def _accounts(self) -> tuple[Counter[Row], set[Letter], set[tuple[str, str]]]:
        """Return the live rows, the open dead letters and the expanded archives of this history."""
        paths = [
            self.names.path(f"gs://{self.bucket.name}/{self.folder}/{name}")
            for name in (*NAMES, *ARCHIVE_NAMES)
        ]
        rows = self.stack.dataset.query(ACCOUNTS, {"paths": paths})
        live, dead, expanded = (
            [row for row in rows if row["kind"] == kind] for kind in ("live", "dead", "expanded")
        )
        return (
            Counter((row["path"], row["version"], row["member"]) for row in live),
            {(row["path"], row["version"], row["member"], row["event"]) for row in dead},
            {(row["path"], row["version"]) for row in expanded},
        )

    def _retire(self, each: Generation) -> None:
        kind = "archived" if self.versioned else "deleted"
        self._emit(self._now(each.event.as_type(kind)))
        if self.versioned:
            self.archived.append(each)

    def _now(self, event: Event, ago: timedelta = timedelta()) -> Event:
        return replace(event, time=(datetime.now(UTC) - ago).isoformat())

    def _emit(self, event: Event) -> None:
        self.figures.events += 1
        self.pending.append(event)

    def _some_pending(self) -> list[Event]:
        """Return at least one of the pending events, if there are any, for their delivery."""
        self.chance.shuffle(self.pending)
        part = self.chance.randrange(len(self.pending)) if self.pending else 0
        events, self.pending = self.pending[part:], self.pending[:part]
        return events

    def _post(self, events: list[Event], weather: str) -> None:
        """Deliver at once; events that are not acknowledged become pending again."""
        faults: dict[str, list[Fault]] = {"storage": [*self.purged], "bigquery": []}
        if weather != "fair":
            weather = self.only_fault or weather
            proxy, fault = FAULTS[weather]()
            faults[proxy].append(fault)
        self.stack.storage.faults, self.stack.bigquery.faults = faults.values()
        ways = self.chance.choices(sorted(WAYS), k=len(events))
        with ThreadPoolExecutor(THREADS) as pool:
            answers = list(pool.map(self._post_one, events, ways))
        self.figures.deliveries += len(events)
        for event, answer in zip(events, answers, strict=True):
            assert SENTINEL not in answer.text
            assert answer.status_code in {200, 500}
            if answer.status_code == 500:
                self.figures.failures[weather] += 1
            (self.acknowledged if answer.status_code == 200 else self.pending).append(event)

    def _post_one(self, event: Event, way: str) -> requests.Response:
        """Return the answer; send the event again if its connection had to wait, and was closed."""
        for _ in range(3):
            with suppress(requests.ConnectionError):
                return WAYS[way](event, self.stack.url)
        return WAYS[way](event, self.stack.url)
