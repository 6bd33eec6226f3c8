"""What happens to objects that are uploaded, overwritten and deleted.

Two waits suffice. First an ordinary object, one with an odd name, one with a large header and one
that is not DICOM are uploaded; then the ordinary one is overwritten, and the odd one and the one
that is not DICOM are deleted.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from dcm2bq import dicom
from dcm2bq.config import Config
from dcm2bq.errors import NotDicomError
from dcm2bq.row_names import row_names
from dcm2bq.stored_object import StoredObject
from dcm2bq.tools.dead_letters import Entry
from dcm2bq.tools.trial import specimens
from dcm2bq.tools.trial.function_log import FunctionLog
from dcm2bq.tools.trial.lines import TrialLine, TrialResult, confirmed, not_tried, refuted
from dcm2bq.tools.trial.sightings import MARKER_EVENTS, ROW_EVENTS, Sighting, Watched
from dcm2bq.tools.trial.trial_objects import TrialObjects
from dcm2bq.tools.wording import counted, duration
from dcm2bq.version import VERSION

LINES = (
    TrialLine.ROW,
    TrialLine.RELEASE,
    TrialLine.EVENT_NAMES,
    TrialLine.LARGE_ROW,
    TrialLine.DEAD_LETTER,
    TrialLine.OVERWRITE,
    TrialLine.MARKER,
    TrialLine.CLOSED,
)
NAMES: Mapping[TrialLine, str] = {
    TrialLine.ROW: "ordinary",
    TrialLine.EVENT_NAMES: "odd a+b%41 #1? é&=;'()",  # "%41" must not become "A"
    TrialLine.DEAD_LETTER: "not-dicom",
    TrialLine.LARGE_ROW: "large",
}
"""The objects that are uploaded first, each for one line, by name without suffix."""

_PAUSE_SECONDS = 2.0
"""Between two looks: each is a query or two, and an event takes seconds."""
_LOG_PAUSE_SECONDS = 15.0
"""Between two looks at the function's log, which comes some seconds late."""
_FAILURES = 3
"""An event that has failed this often is not waited for any longer."""
_LARGE_BYTES = 8_900_000
"""Just below the default of limits.outputBytes."""

_STORED = frozenset({"inserted", "marked", "dead_lettered"})
_NO_TRIGGER = "check that the bucket has a trigger for {}: docs/OPERATIONS.md, Lost triggers"
_ELSEWHERE = (
    "compare bigQuery.projectId, datasetId and the tables of the function with dcm2bq config"
)
_FAILING = "docs/OPERATIONS.md, Events fail, lists the causes"
_DEAD_LETTERED = "correct what the message names, deploy, and run dcm2bq try again"
_VIEW = "see the lines tables and views"


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """How long a trial waits for events, and what it calls to say so."""

    seconds: float
    announce: Callable[[str], object]


@dataclass(frozen=True, slots=True)
class _Expectation:
    """A generation must get a row or a marker: one of `events`. A dead letter settles it, too."""

    stored: StoredObject
    events: frozenset[str] = ROW_EVENTS

    def is_settled(self, sighting: Sighting) -> bool:
        return bool(
            sighting.letter(self.stored, self.events) or sighting.has(self.stored, self.events)
        )


class DeliverySteps:
    """Changes objects, and waits for what the events about them leave in the tables.

    `suffix` ends every name, so that the configuration admits it. The large header is only
    uploaded `with_large`: a local BigQuery has no limit that it could exceed.
    """

    def __init__(
        self,
        config: Config,
        objects: TrialObjects,
        watched: Watched,
        log: FunctionLog,
        waiting: Waiting,
        *,
        suffix: str,
        with_large: bool,
    ) -> None:
        self._config = config
        self._objects = objects
        self._watched = watched
        self._log = log
        self._waiting = waiting
        self._suffix = suffix
        self._with_large = with_large
        self._contents: dict[StoredObject, bytes] = {}
        self._seconds: dict[_Expectation, float] = {}

    def results(self) -> Iterator[TrialResult]:
        """Yield every line of `LINES`; raises what the services raise."""
        uploads = self._upload_all()
        first = self._wait(
            "the rows and the dead letter of the uploads", list(map(_Expectation, uploads.values()))
        )
        unseen = []
        for line, stored in uploads.items():
            results = self._first_lines(line, stored, first)
            yield from results
            if not results:
                unseen.append(line)
        if not self._with_large:
            yield not_tried(TrialLine.LARGE_ROW, "the local BigQuery accepts rows of any size")
        yield from self._change(uploads, first, unseen)

    def _upload_all(self) -> dict[TrialLine, StoredObject]:
        contents = {
            TrialLine.ROW: specimens.dicom_object(),
            TrialLine.EVENT_NAMES: specimens.dicom_object(),
            TrialLine.DEAD_LETTER: specimens.NOT_DICOM,
        }
        if self._with_large:
            contents[TrialLine.LARGE_ROW] = specimens.dicom_object(text_bytes=_LARGE_BYTES)
        return {line: self._upload(line, content) for line, content in contents.items()}

    def _upload(
        self, line: TrialLine, content: bytes, *, over: StoredObject | None = None
    ) -> StoredObject:
        stored = self._objects.upload(NAMES[line] + self._suffix, content, over=over)
        self._contents[stored] = content
        return stored

    def _wait(self, what: str, expectations: Sequence[_Expectation]) -> Sighting:
        """Return what is recorded once every expectation is settled, or no longer likely to be."""
        limit = duration(self._waiting.seconds)
        self._waiting.announce(f"waiting for {what}, at most {limit} ...")
        started = time.monotonic()
        give_up = started + self._waiting.seconds
        next_log, is_hopeless = started + _LOG_PAUSE_SECONDS, False
        while True:
            sighting = self._watched.look()
            now = time.monotonic()
            pending = []
            for expectation in expectations:
                if expectation.is_settled(sighting):
                    self._seconds.setdefault(expectation, now - started)
                else:
                    pending.append(expectation)
            if not pending or is_hopeless:
                return sighting
            if now >= give_up:
                self._waiting.announce(f"gave up after {limit}")
                return sighting
            if now >= next_log:
                next_log = now + _LOG_PAUSE_SECONDS
                is_hopeless = all(map(self._is_hopeless, pending))
            time.sleep(min(_PAUSE_SECONDS, give_up - now))

    def _is_hopeless(self, expectation: _Expectation) -> bool:
        """Whether the log shows that waiting is pointless.

        What it says was stored must be visible at the next look, unless it was stored elsewhere.
        """
        lines = self._log.lines(expectation.stored, expectation.events) or ()
        failures = sum(line.outcome == "failed" for line in lines)
        return failures >= _FAILURES or any(line.outcome in _STORED for line in lines)

    def _first_lines(
        self, line: TrialLine, stored: StoredObject, sighting: Sighting
    ) -> list[TrialResult]:
        """Return what a first upload shows; nothing if there is no trace of it."""
        if letter := sighting.letter(stored):
            if line is not TrialLine.DEAD_LETTER or letter.reason != NotDicomError.__name__:
                return [_dead_lettered(line, letter)]
            return [confirmed(line, letter.reason, seconds=self._seconds[_Expectation(stored)])]
        if not sighting.has(stored, ROW_EVENTS):
            return []
        if line is TrialLine.DEAD_LETTER:
            return [refuted(line, "it has a row", "report this: it is not DICOM")]
        if line is TrialLine.ROW:
            return self._row_lines(stored)
        return [confirmed(line, seconds=self._seconds[_Expectation(stored)])]

    def _row_lines(self, stored: StoredObject) -> list[TrialResult]:
        """Return the lines about the ordinary object's row, compared with its conversion here."""
        conversion = self._conversion(stored)
        rows = self._watched.live(stored, conversion.columns["StudyInstanceUID"])
        if [row.version for row in rows] != [str(stored.generation)]:
            problem = f"the log has its row, the live view shows {counted(len(rows), 'row')}"
            because = "the live view does not show exactly its row"
            return [
                refuted(TrialLine.ROW, problem, _VIEW),
                not_tried(TrialLine.RELEASE, because),
            ]
        (row,) = rows
        differing = [
            keyword
            for keyword, value in conversion.columns.items()
            if row.columns[keyword] != value
        ]
        if row.metadata != conversion.metadata:
            differing.append("metadata")
        is_release = row.release == VERSION
        release = (
            confirmed(TrialLine.RELEASE, VERSION)
            if is_release
            else refuted(
                TrialLine.RELEASE,
                f"the row was made by {row.release}, this is {VERSION}",
                "deploy this release, or run dcm2bq try of the deployed one",
            )
        )
        if differing:
            problem = f"differs from what this command makes of it: {', '.join(differing)}"
            remedy = "run dcm2bq try with the configuration of the function, and its release"
            return [refuted(TrialLine.ROW, problem, remedy), release]
        return [confirmed(TrialLine.ROW, seconds=self._seconds[_Expectation(stored)]), release]

    def _change(
        self,
        uploads: Mapping[TrialLine, StoredObject],
        first: Sighting,
        unseen: Sequence[TrialLine],
    ) -> Iterator[TrialResult]:
        """Overwrite and delete; yield the remaining lines.

        Uploads without a trace are judged after this: markers narrow down what is wrong.
        """
        ordinary, odd = uploads[TrialLine.ROW], uploads[TrialLine.EVENT_NAMES]
        not_dicom = uploads[TrialLine.DEAD_LETTER]
        expectations = [_Expectation(odd, MARKER_EVENTS), _Expectation(not_dicom, MARKER_EVENTS)]
        over = None
        if first.has(ordinary, ROW_EVENTS):
            content = specimens.dicom_object(instance_number=2)
            over = self._upload(TrialLine.ROW, content, over=ordinary)
            expectations += [_Expectation(over), _Expectation(ordinary, MARKER_EVENTS)]
        self._objects.delete(odd)
        self._objects.delete(not_dicom)
        second = self._wait("the markers, and the row of the new generation", expectations)
        has_marker = second.has(odd, MARKER_EVENTS) or second.has(not_dicom, MARKER_EVENTS)
        for line in unseen:
            yield self._untraced(line, uploads[line], second, has_marker=has_marker)
        if TrialLine.ROW in unseen or first.letter(ordinary):
            yield not_tried(TrialLine.RELEASE, "the object has no row")
        yield self._overwritten(ordinary, over, second)
        yield self._marked(odd, second)
        yield self._closed(not_dicom, first, second)

    def _overwritten(
        self, old: StoredObject, new: StoredObject | None, sighting: Sighting
    ) -> TrialResult:
        line = TrialLine.OVERWRITE
        if new is None:
            return not_tried(line, "the object has no row that could be replaced")
        if letter := sighting.letter(new):
            return _dead_lettered(line, letter)
        if not sighting.has(new, ROW_EVENTS):
            return self._untraced(line, new, sighting, has_marker=False)
        studies = [self._conversion(stored).columns["StudyInstanceUID"] for stored in (old, new)]
        versions = [row.version for uid in studies for row in self._watched.live(old, uid)]
        if not sighting.has(old, MARKER_EVENTS):
            # The two have other UIDs, so that the new row alone does not replace the old one.
            problem = "the old generation is still live: it has no marker"
            return refuted(line, problem, _NO_TRIGGER.format("deleted, and one for archived"))
        if versions != [str(new.generation)]:
            return refuted(line, "the live view does not show exactly the new generation", _VIEW)
        return confirmed(line, seconds=self._seconds[_Expectation(new)])

    def _marked(self, stored: StoredObject, sighting: Sighting) -> TrialResult:
        line = TrialLine.MARKER
        if letter := sighting.letter(stored, MARKER_EVENTS):
            return _dead_lettered(line, letter)
        if not sighting.has(stored, MARKER_EVENTS):
            return self._unmarked(line)
        if self._watched.live(stored, self._conversion(stored).columns["StudyInstanceUID"]):
            return refuted(line, "it has a marker, and is still in the live view", _VIEW)
        return confirmed(line, seconds=self._seconds[_Expectation(stored, MARKER_EVENTS)])

    def _closed(self, stored: StoredObject, first: Sighting, second: Sighting) -> TrialResult:
        line = TrialLine.CLOSED
        if not first.letter(stored):
            return not_tried(line, "there is no dead letter")
        if not second.has(stored, MARKER_EVENTS):
            return self._unmarked(line)
        if self._watched.look_at_letters().letter(stored):
            return refuted(line, "the object is deleted, and its dead letter is still open", _VIEW)
        return confirmed(line, seconds=self._seconds[_Expectation(stored, MARKER_EVENTS)])

    def _unmarked(self, line: TrialLine) -> TrialResult:
        problem = f"no marker within {duration(self._waiting.seconds)} of the deletion"
        return refuted(line, problem, _NO_TRIGGER.format("deleted"))

    def _untraced(
        self, line: TrialLine, stored: StoredObject, sighting: Sighting, *, has_marker: bool
    ) -> TrialResult:
        """Return what is likely wrong if neither a row nor a dead letter came of an upload."""
        lines = self._log.lines(stored, ROW_EVENTS)
        if lines:
            failures = [attempt for attempt in lines if attempt.outcome == "failed"]
            if any(attempt.outcome in _STORED for attempt in lines):
                problem = "the function has stored it, but not in these tables"
                return refuted(line, problem, _ELSEWHERE)
            if failures:
                cause = ": ".join(filter(None, (failures[0].error_type, failures[0].error)))
                problem = f"the function failed {counted(len(failures), 'time')}: {cause}"
                return refuted(line, problem, _FAILING)
        missing = "dead letter" if line is TrialLine.DEAD_LETTER else "row"
        problem = f"no {missing} within {duration(self._waiting.seconds)}"
        no_trigger = _NO_TRIGGER.format("finalized")
        if lines is not None:
            problem += f", and the log of project {self._log.project} does not mention it"
            return refuted(line, problem, f"{no_trigger}; check input.namePattern of the function")
        if any(events & ROW_EVENTS for events in sighting.events.values()):
            remedy = f"{_FAILING}; its account must be able to write to both tables"
            return refuted(line, f"{problem}, though other objects have rows", remedy)
        if has_marker:
            return refuted(
                line,
                f"{problem}, though the deletion has left a marker",
                f"{no_trigger}; or the function cannot read the bucket: {_FAILING}",
            )
        return refuted(
            line,
            f"{problem}, and no trace of other events",
            f"in this order: {no_trigger}; look for errors in the function's log: {_FAILING}; "
            f"{_ELSEWHERE}, and input.namePattern",
        )

    def _conversion(self, stored: StoredObject) -> dicom.Conversion:
        """Return what the function must have made of an object."""
        root = row_names(self._config.privacy).object(stored).bulk_data_root
        return dicom.convert(self._contents[stored], self._config, bulk_data_root=root)


def _dead_lettered(line: TrialLine, letter: Entry) -> TrialResult:
    message = f": {letter.message}" if letter.message else ""
    return refuted(line, f"dead letter, {letter.reason}{message}", _DEAD_LETTERED)
