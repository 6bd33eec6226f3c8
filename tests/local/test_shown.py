"""The outputs that pages show for the samples are real; the stack that gave them ends at last."""

import itertools
import os
import re
import signal
import subprocess
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dcm2bq.local import bigquery_program
from tests.local.conftest import Cli
from tests.support.patience import until

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
SCHEMA = (ROOT / "docs" / "SCHEMA.md").read_text()


@dataclass(frozen=True)
class Shown:
    """A stack with the samples, which also writes the report, as `--once` does."""

    process: subprocess.Popen[str]
    summary: list[str]
    """The lines that it printed before it began to watch."""


@pytest.fixture(scope="module")
def running(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    """The stack, until the last test ends it."""
    report = tmp_path_factory.mktemp("report") / "report.html"
    with cli.start("local", "--report", str(report)) as process:
        assert process.stdout is not None
        summary = list(itertools.takewhile(lambda line: line[:8] != "Watching", process.stdout))
        assert any("Cloud Storage" in line for line in process.stdout)
        yield Shown(process, summary)
        if process.poll() is None:
            process.terminate()


def test_the_readme_shows_the_real_output_for_the_samples(running: Shown) -> None:
    shown = README.partition("<!-- output of make run -->\n")[2].partition("<!-- end of output")[0]
    printed = textwrap.indent("".join(running.summary), " " * 4)

    def settled(text: str) -> list[str]:
        lines = text.strip("\n").splitlines()
        return [re.sub(r"in [\d.]+ s|\S*dcm2bq local|\S*/report.html", "", line) for line in lines]

    assert settled(printed) == settled(shown)


def test_the_pages_show_the_real_answers_for_the_samples(cli: Cli, running: Shown) -> None:
    shown = [answer for page in (README, SCHEMA) for answer in answers(page)]
    assert len(shown) == 4
    assert running.process.poll() is None
    assert [(sql, cli.call("local", "--query", sql).out.rstrip()) for sql, _ in shown] == shown


def answers(page: str) -> list[tuple[str, str]]:
    """Return the queries between the markers, each with the table that follows it."""
    block = page.partition("<!-- answers -->\n")[2].partition("<!-- end of answers -->")[0]
    pairs = re.findall(r"```sql\n(.*?)```\n\n((?: {4}[^\n]*\n)+)", block, re.DOTALL)
    return [(sql, re.sub(r"^ {2}", "", table, flags=re.MULTILINE).rstrip()) for sql, table in pairs]


def test_a_stack_ends_with_its_server_and_names_it(cli: Cli, running: Shown) -> None:
    process = running.process
    threads = Path(f"/proc/{process.pid}/task").iterdir()
    pids = [pid for thread in threads for pid in (thread / "children").read_text().split()]
    commands = {int(pid): Path(f"/proc/{pid}/cmdline").read_text() for pid in pids}
    (victim,) = (pid for pid, command in commands.items() if bigquery_program.__file__ in command)
    os.kill(victim, signal.SIGKILL)
    assert process.wait(600) == 3
    assert process.stderr is not None
    assert "BigQuery has ended" in process.stderr.read()
    until(lambda: not cli.processes())
