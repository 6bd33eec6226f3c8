"""The tables and views of a new stack, kept from one start to the next.

Making them takes the local BigQuery seconds, about a third of a second for each view. The first
start therefore copies its database, with no rows but the dictionary's, to the user's cache folder,
and later starts begin with that copy. Each start runs `init` all the same, which makes what is
missing from a copy or differs in it.
"""

import contextlib
import hashlib
import shutil
import tempfile
from contextlib import ExitStack
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from dcm2bq import emulators, schema
from dcm2bq.config import Config
from dcm2bq.local import servers
from dcm2bq.local.user_cache import user_cache

MOST_KEPT = 8
"""Copies that are kept, of 2 MB each: for as many configurations and versions in use."""

_WRITERS = ("local-bigquery", "duckdb", "duckdb-extension-ducklake")
"""The packages that decide the format of the files."""


class PreparedDatabase:
    """The copy for a configuration; there is none with `privacy` options.

    These put a digest of the key into the database, which must not outlive the stack.
    """

    def __init__(self, config: Config) -> None:
        self._is_kept = not config.privacy.is_on
        definitions = schema.load(config, emulators.PROJECT) if self._is_kept else ()
        content = repr(([_version(name) for name in _WRITERS], definitions))
        self._folder = user_cache() / "local" / hashlib.sha256(content.encode()).hexdigest()[:32]

    def start_server(
        self, exits: ExitStack, folder: Path, port: int | None = None, *, storage: str = ""
    ) -> str:
        """Start a BigQuery as `servers.bigquery_server` does, with the copy if there is one.

        Return its URL; `exits` stops it.
        """
        if self.lend(folder):
            try:
                return exits.enter_context(servers.bigquery_server(folder, port, storage=storage))
            except servers.ServerError:  # the copy is damaged
                shutil.rmtree(self._folder, ignore_errors=True)
                shutil.rmtree(servers.bigquery_data(folder), ignore_errors=True)
        return exits.enter_context(servers.bigquery_server(folder, port, storage=storage))

    def lend(self, folder: Path) -> bool:
        """Copy the database to the folder of a new server; return whether there was a copy."""
        data = servers.bigquery_data(folder)
        try:
            shutil.copytree(self._folder, data)
        except OSError:  # there is none, or another process is removing it
            shutil.rmtree(data, ignore_errors=True)
            return False
        return True

    def keep(self, folder: Path) -> None:
        """Keep the database of a server that nobody uses yet, unless there is a copy."""
        if not self._is_kept or self._folder.exists():
            return
        cache = self._folder.parent
        with contextlib.suppress(OSError):  # full or read-only: then every start makes the tables
            cache.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=cache) as partial:
                data = servers.bigquery_data(folder)
                shutil.copytree(data, Path(partial, data.name)).rename(self._folder)
            kept = sorted(cache.iterdir(), key=lambda copy: copy.stat().st_mtime)
            for old in kept[:-MOST_KEPT]:
                shutil.rmtree(old, ignore_errors=True)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # the start of the server says what to do
        return ""
