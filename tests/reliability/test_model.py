"""The promise, tested by random histories, and the test itself, tested by planted bugs."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from dcm2bq import schema
from dcm2bq.row_names import row_names
from tests.reliability.conftest import MakeStack, retry_dead_letters
from tests.reliability.state_machine import Figures, Machine, assert_privacy
from tests.support.function_stack import ROOT, Stack

LONG_DELIVERIES = 100_000
SEED, SHOWING = 9, 4
"""Of the search for planted bugs: the first four histories show them all; most others need more."""
QUIET = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}

Report = Callable[[str], None]


class BugFoundError(BaseException):
    """Ends the search: Hypothesis would run a history that fails once more."""


@seed(SEED)
class SearchingMachine(Machine):
    """A history that may show a planted bug."""

    def teardown(self) -> None:
        try:
            super().teardown()
        except AssertionError as error:
            raise BugFoundError from error


def run(
    stack: Stack,
    kind: type[Machine] = Machine,
    *,
    most_again: int = 40,
    only_fault: str = "",
    **options: Any,
) -> Figures:
    """Let Hypothesis look for a history that breaks the promise."""
    retry = staticmethod(lambda pattern: retry_dead_letters(stack, pattern))
    figures = Figures()
    members = {
        "stack": stack,
        "names": row_names(stack.config.privacy),
        "figures": figures,
        "retry": retry,
        "most_again": most_again,
        "only_fault": only_fault,
    }
    machine = type("Bound", (kind,), members)
    run_state_machine_as_test(machine, settings=settings(**{**QUIET, **options}))
    return figures


@pytest.mark.timeout(4 * 3600)
def test_the_live_view_and_the_dead_letters_account_for_the_bucket(
    make_stack: MakeStack, report: Report, monkeypatch: pytest.MonkeyPatch, *, is_long: bool
) -> None:
    """Whether duplicated, reordered, delayed, failed, given up or retried: the tables are right.

    Objects of any name are read, and recorded if they are DICOM. In half of the histories, the
    tables and the log have hashes instead of names.
    """
    monkeypatch.setenv("DCM2BQ_HASH_KEY", "the key of the model")
    figures = Figures()
    while figures.deliveries < (LONG_DELIVERIES if is_long else 1):
        for shown in ("full", "hash"):
            with make_stack(
                input={"archives": "read", "otherNames": "sniff"},
                privacy={"path": shown},
                log={"path": shown},
            ) as stack:
                figures += run(
                    stack,
                    most_again=300 if is_long else 40,
                    max_examples=10 if is_long else 2,
                    stateful_step_count=40 if is_long else 20,
                    derandomize=not is_long,
                )
                assert_privacy(stack)
        if is_long:
            print(figures, flush=True)  # noqa: T201 - it takes a while
    assert figures.deliveries > 500
    report(str(figures))


PLANTED = {
    "acknowledged before the insert": (
        "dcm2bq/handler.py",
        "        self._sink.insert(row, deadline)\n",
        (
            "        import threading\n"
            "        threading.Thread(target=self._sink.insert, args=(row, deadline)).start()\n"
        ),
        "the insert is forbidden",
    ),
    "row errors ignored": (
        "dcm2bq/bigquery/row_sink.py",
        "return {row.index: _codes(row.errors) for row in refused}",
        "return {}",
        "the row is refused",
    ),
    "uploads of notifications ignored": (
        "dcm2bq/notifications.py",
        '"OBJECT_FINALIZE": "finalized"',
        '"OBJECT_FINALIZE": "metadataUpdated"',
        "",
    ),
    "an archive recorded as expanded before its rows are stored": (
        "dcm2bq/expansion.py",
        "                    expansion = self._store_members(event, content, claim, deadline)\n",
        (
            "                    none = rows.ArchiveInfo(\n"
            "                        members=0, instances=0, dead_letters=0, others=0)\n"
            "                    early = rows.expanded_row(event, none, now=datetime.now(UTC))\n"
            "                    self._sink.insert(early, deadline)\n"
            "                    expansion = self._store_members(event, content, claim, deadline)\n"
        ),
        "the object cannot be read",
    ),
    "markers of another generation": (
        "dcm2bq/rows.py",
        "        version=str(event.object.generation),\n",
        (
            "        version=str(event.object.generation\n"
            "            - (event.kind.value in ('deleted', 'archived'))),\n"
        ),
        "",
    ),
}
"""Bugs: the file, the right text in it, the wrong text in its place, the fault that shows it.

Without a fault, the bug shows under each.
"""


def plant(bug: str, folder: Path) -> Path:
    """Return a copy of the function with a bug."""
    shutil.copy(ROOT / "main.py", folder)
    shutil.copytree(ROOT / "dcm2bq", folder / "dcm2bq")
    file, right, wrong, _ = PLANTED[bug]
    text = (folder / file).read_text()
    assert text.count(right) == 1
    (folder / file).write_text(text.replace(right, wrong))
    return folder


def finds_a_bug(stack: Stack, only_fault: str = "", *, histories: int = 40) -> bool:
    """Whether a bug is found; soon, where the only fault is the one that it shows under."""
    is_found = False
    try:
        run(
            stack,
            SearchingMachine,
            only_fault=only_fault,
            most_again=10,
            max_examples=histories,
            stateful_step_count=10,
            phases=[Phase.generate],
        )
    except* (AssertionError, BugFoundError):
        is_found = True
    return is_found


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("bug", PLANTED)
def test_a_planted_bug_in_the_function_is_detected(
    make_stack: MakeStack, tmp_path: Path, bug: str
) -> None:
    *_, fault = PLANTED[bug]
    with make_stack(plant(bug, tmp_path)) as stack:
        assert finds_a_bug(stack, fault)


PLANTED_IN_THE_VIEW = {
    "markers compared by time": (
        "CAST(m.version AS INT64) >= CAST(r.version AS INT64)",
        "m.timestamp >= r.timestamp",
    ),
    "members left out of the key": (
        "r.SOPInstanceUID, r.path, r.member",
        "r.SOPInstanceUID, r.path",
    ),
}
"""Bugs of `instances_live`: the right text in it, and the wrong text in its place."""


@pytest.fixture(scope="module")
def stack_of_views(make_stack: MakeStack) -> Iterator[Stack]:
    """A stack whose view each test replaces."""
    with make_stack() as stack:
        yield stack


def replace_view(stack: Stack, right: str, wrong: str) -> None:
    """Make `instances_live` with another text in place of the right one."""
    definitions = schema.load(stack.config, stack.dataset.project)
    view = next(definition for definition in definitions if definition.name == "instances_live")
    assert view.ddl.count(right) == 1
    stack.dataset.query(view.ddl.replace(right, wrong))


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("bug", PLANTED_IN_THE_VIEW)
def test_a_planted_bug_in_the_view_is_detected(stack_of_views: Stack, bug: str) -> None:
    replace_view(stack_of_views, *PLANTED_IN_THE_VIEW[bug])
    assert finds_a_bug(stack_of_views)


def test_without_a_planted_bug_the_same_histories_detect_none(stack_of_views: Stack) -> None:
    right, _ = PLANTED_IN_THE_VIEW["markers compared by time"]
    replace_view(stack_of_views, right, right)
    assert not finds_a_bug(stack_of_views, histories=SHOWING)
