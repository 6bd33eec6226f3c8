"""A bucket, a staging folder and a dataset, and the command of the environment with Apache Beam."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from queue import Queue
from typing import Any

import pytest
from pydicom.data import get_testdata_file

from dcm2bq import config
from dcm2bq.bigquery.dataset import Dataset
from dcm2bq.local import servers
from dcm2bq.local.bucket import Bucket
from tests.support.commands import Done
from tests.support.forks import Forks
from tests.support.function_stack import ROOT, unique
from tests.support.patience import until
from tests.support.processes import guarded
from tests.support.proxy import HELD, Fault, Proxy

PYTHON = ROOT / ".venv-backfill" / "bin" / "python"
DCM2BQ = PYTHON.with_name("dcm2bq")
CT_SMALL, MR_SMALL = (
    Path(str(get_testdata_file(name))).read_bytes() for name in ("CT_small.dcm", "MR_small.dcm")
)

INTERRUPTIBLE = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.argv[1], sys.argv[1:])
"""
"""Runs a command that receives interrupts, even if a shell makes background jobs ignore them."""


class Site:
    """What a backfill works on: `source` and `staging` are its own buckets."""

    def __init__(
        self,
        storage: Proxy,
        storage_url: str,
        bigquery_url: str,
        dataset: Dataset,
        forks: Forks | None = None,
    ) -> None:
        self.storage = storage
        self.forks = forks
        self.storage_url = storage_url
        self.bigquery_url = bigquery_url
        self.source = Bucket(storage_url, unique("source-"), connections=8)
        self.staging = Bucket(storage_url, unique("staging-"), connections=8)
        self.source.create()
        self.staging.create()
        self.overrides: dict[str, Any] = {"bigQuery": {"datasetId": dataset.dataset_id}}
        self.objects: dict[str, str] = {}
        self.environ = {
            "BIGQUERY_EMULATOR_HOST": bigquery_url,
            "STORAGE_EMULATOR_HOST": storage.url,
        }
        self.config = config.from_overrides(self.overrides)
        self.dataset = dataset

    def upload(self, name: str, content: bytes) -> dict[str, Any]:
        """Store an object in the source; return its resource."""
        resource = dict(self.source.upload(name, content))
        self.objects[f"gs://{self.source.name}/{name}"] = resource["generation"]
        return resource

    def start(self, *args: str, where: str = "", **environ: str) -> subprocess.Popen[str]:
        """Start the command on the source, in a new session."""
        return self.run([str(DCM2BQ), *self._arguments(args, where)], **environ)

    def run(self, command: list[str], **environ: str) -> subprocess.Popen[str]:
        """Start any command in the environment of the backfill."""
        assert PYTHON.exists(), "make test makes .venv-backfill"
        return subprocess.Popen(
            guarded([sys.executable, "-c", INTERRUPTIBLE, *command]),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**self._variables(), **environ},
        )

    def backfill(self, *args: str, where: str = "", **environ: str) -> Done:
        """Run the command on the source to its end."""
        return self.command(*self._arguments(args, where), **environ)

    def killed(self, *args: str) -> Done:
        """Run the command on the source; kill it in the middle, once it has staged a shard."""
        assert self.forks
        group: Queue[int] = Queue()
        command = [str(DCM2BQ), *self._arguments(args, "")], self._variables(), group.put
        with ThreadPoolExecutor(1) as pool, self.held_once_staged() as is_held:
            run = pool.submit(self.forks.run, *command)
            until(lambda: is_held() or run.done())
            assert not run.done()
            os.killpg(group.get(), signal.SIGKILL)
            return Done(*run.result())

    @contextmanager
    def held_once_staged(self) -> Iterator[Callable[[], bool]]:
        """Until the block ends, hold every run once it has staged a shard.

        Yields a function that tells whether one is held.
        """
        earlier, faults = self.staged_records(), self.storage.faults
        hold = Fault("POST /upload", content=b"/shards/", how=HELD)
        self.storage.faults = [*faults, hold]
        try:
            yield lambda: hold.met > 0 and self.staged_records() > earlier
        finally:
            self.storage.faults = faults

    def command(self, *words: str, **environ: str) -> Done:
        """Run `dcm2bq` with these words to its end: in a fork, if there is a process to fork."""
        command = [str(DCM2BQ), *words]
        if self.forks:
            return Done(*self.forks.run(command, {**self._variables(), **environ}))
        return finish(self.run(command, **environ))

    @property
    def staging_folder(self) -> str:
        """The URI of the folder for all runs."""
        return f"gs://{self.staging.name}/b"

    def _arguments(self, args: Sequence[str], where: str) -> list[str]:
        staging = ["--staging", self.staging_folder]
        return ["backfill", f"gs://{self.source.name}/{where}", *staging, *args]

    def _variables(self) -> dict[str, str]:
        config_variable = {"DCM2BQ_CONFIG": json.dumps(self.overrides)}
        return {**servers.isolated(os.environ), **self.environ, **config_variable}

    def live(self) -> list[tuple[str, str]]:
        """Return path and generation of each row of the live view, by path."""
        rows = self._select("path, version", "instances_live")
        return [(row["path"], row["version"]) for row in rows]

    def members(self) -> list[tuple[str, str]]:
        """Return the base name and the member of each row of the live view, in order."""
        rows = self._select("path, IFNULL(member, '') AS member", "instances_live")
        return sorted((row["path"].rpartition("/")[2], row["member"]) for row in rows)

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows of the table, by path."""
        return self._select("*", "instances")

    def dead_letters(self) -> list[dict[str, Any]]:
        """Return the open dead letters, by path."""
        return self._select("*", "dead_letters")

    def _select(self, what: str, table: str) -> list[dict[str, Any]]:
        """Return what a table or view says of the source, by path."""
        return self.dataset.query(
            f"SELECT {what} FROM {table} WHERE STARTS_WITH(path, @source) ORDER BY path",
            {"source": f"gs://{self.source.name}/"},
        )

    def staged(self, run: str, under: str = "") -> list[str]:
        """Return the names in a run's folder."""
        prefix = f"b/{run}/"
        names = self.names(prefix + under)
        return [name.removeprefix(prefix) for name in names]

    def names(self, prefix: str) -> list[str]:
        """Return the names in the staging bucket."""
        store = self.store()
        return [stored.name for stored in store.list(self.staging.name, prefix)]

    def store(self) -> Any:
        """Return a store on the local Cloud Storage."""
        from dcm2bq.gcs.store import Store  # noqa: PLC0415

        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("STORAGE_EMULATOR_HOST", self.storage_url)
            return Store(self.config)

    def staged_records(self) -> int:
        """Return how many shards are staged by now."""
        return sum("/shards/" in name for name in self.names("b/"))


def finish(process: subprocess.Popen[str]) -> Done:
    """Wait for a command."""
    try:
        out, err = process.communicate(timeout=1000)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return Done(process.returncode, out, err)
