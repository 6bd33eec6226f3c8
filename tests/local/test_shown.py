"""The outputs that pages show for the samples are real; the stack that gave them ends at last."""

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from dcm2bq.local import bigquery_program
from tests.local.conftest import Cli
from tests.support.patience import until

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
SCHEMA = (ROOT / "docs" / "SCHEMA.md").read_text()


@pytest.fixture(scope="module")
def running(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> Iterator[subprocess.Popen[str]]:
    """A stack with the samples that also writes the report, as `--once` does."""
    report = tmp_path_factory.mktemp("report") / "report.html"
    with cli.start("local", "--report", str(report)) as process:
        yield process
        if process.poll() is None:
            process.terminate()


def test_the_readme_shows_the_real_output_for_the_samples(running: subprocess.Popen[str]) -> None:
    shown = README.partition("<!-- output of make run -->\n")[2].partition("<!-- end of output")[0]
    assert running.stdout is not None
    lines = []
    for line in running.stdout:
        if line.startswith("Watching"):
            break
        lines.append(" " * 4 + line.rstrip("\n") if line.strip() else "")
    assert any("Cloud Storage" in line for line in running.stdout)

    def settled(lines: list[str]) -> list[str]:
        return [re.sub(r"in [\d.]+ s|\S*dcm2bq local|\S*/report.html", "", line) for line in lines]

    printed = "\n".join(lines).strip("\n").splitlines()
    assert settled(printed) == settled(shown.strip("\n").splitlines())


def test_the_pages_show_the_real_answers_for_the_samples(
    cli: Cli, running: subprocess.Popen[str]
) -> None:
    shown = [answer for page in (README, SCHEMA) for answer in answers(page)]
    assert len(shown) == 4
    assert running.poll() is None
    assert [(sql, cli.call("local", "--query", sql).out.rstrip()) for sql, _ in shown] == shown


def answers(page: str) -> list[tuple[str, str]]:
    """Return the queries between the markers, each with the table that follows it."""
    block = page.partition("<!-- answers -->\n")[2].partition("<!-- end of answers -->")[0]
    pairs = re.findall(r"```sql\n(.*?)```\n\n((?: {4}[^\n]*\n)+)", block, re.DOTALL)
    return [(sql, re.sub(r"^ {2}", "", table, flags=re.MULTILINE).rstrip()) for sql, table in pairs]


def test_a_stack_ends_with_its_server_and_names_it(
    cli: Cli, running: subprocess.Popen[str]
) -> None:
    threads = Path(f"/proc/{running.pid}/task").iterdir()
    pids = [pid for thread in threads for pid in (thread / "children").read_text().split()]
    commands = {int(pid): Path(f"/proc/{pid}/cmdline").read_text() for pid in pids}
    (victim,) = (pid for pid, command in commands.items() if bigquery_program.__file__ in command)
    os.kill(victim, signal.SIGKILL)
    assert running.wait(600) == 3
    assert running.stderr is not None
    assert "BigQuery has ended" in running.stderr.read()
    until(lambda: not cli.processes())
