"""The tables and views of a new stack, kept from one start to the next.

Making them takes the local BigQuery seconds, about an eighth of a second for each view. The first
start therefore copies its database, with no rows but the dictionary's and that of a refresh of
`objects`, to the user's cache folder, and later starts begin with that copy instead of running
`init`. A copy appears and disappears whole, and its name is a digest of everything that decides
what `init` makes: the definitions, the code and the programs that write the files.
"""

import contextlib
import hashlib
import shutil
import tempfile
from contextlib import ExitStack
from importlib import resources
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

from dcm2bq import emulators, schema
from dcm2bq.config import Config
from dcm2bq.local import servers
from dcm2bq.local.user_cache import user_cache

MOST_KEPT = 8
"""Copies that are kept, of 2 MB each: for as many configurations and versions in use."""

_WRITERS = ("local-bigquery", "duckdb")
"""The packages that decide the format of the files."""
MAKERS = (
    "bigquery/access.py",
    "bigquery/dataset.py",
    "local/bigquery_catalog.py",
    "local/bigquery_files.py",
    "local/bigquery_program.py",
    "schema/compare.py",
    "tools/init.py",
)
"""The modules that make the tables and views from their definitions."""


class StartedServer(NamedTuple):
    """A running BigQuery; `has_tables` unless it began without a copy."""

    url: str
    has_tables: bool


class PreparedDatabase:
    """The copy for a configuration; there is none with `privacy` options.

    These put a digest of the key into the database, which must not outlive the stack.
    """

    def __init__(self, config: Config) -> None:
        self._is_kept = not config.privacy.is_on
        definitions = schema.load(config, emulators.PROJECT) if self._is_kept else ()
        makers = [resources.files("dcm2bq").joinpath(name).read_bytes() for name in MAKERS]
        content = repr(([_version(name) for name in _WRITERS], makers, definitions))
        self._folder = user_cache() / "local" / hashlib.sha256(content.encode()).hexdigest()[:32]

    def start_server(
        self, exits: ExitStack, folder: Path, port: int | None = None, *, storage: str = ""
    ) -> StartedServer:
        """Start a BigQuery as `servers.bigquery_server` does, with the copy if there is one.

        `exits` stops it.
        """
        is_lent = self.lend(folder)
        if is_lent:
            try:
                url = exits.enter_context(servers.bigquery_server(folder, port, storage=storage))
            except servers.ServerError:
                shutil.rmtree(servers.bigquery_data(folder), ignore_errors=True)
            else:
                return StartedServer(url, has_tables=True)
        url = exits.enter_context(servers.bigquery_server(folder, port, storage=storage))
        if is_lent:  # the copy is damaged, since the server starts without it
            _remove(self._folder)
        return StartedServer(url, has_tables=False)

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
                _remove(old)


def _remove(copy: Path) -> None:
    """Remove a copy at once: one that was half removed would be lent without some of its files."""
    with contextlib.suppress(OSError), tempfile.TemporaryDirectory(dir=copy.parent) as trash:
        copy.rename(Path(trash, copy.name))


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # the start of the server says what to do
        return ""
