"""The function as a process, between proxies, with its own dataset."""

import json
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dcm2bq import config
from dcm2bq.bigquery.dataset import Dataset
from tests.support.cloud import Bucket
from tests.support.datasets import borrowed_dataset, connect, dropped, in_dataset
from tests.support.function_forks import forked_function
from tests.support.proxy import Proxy

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, kw_only=True)
class Stack:
    """A running function, the services that it uses, and its log."""

    url: str
    bucket: Bucket
    versioned_bucket: Bucket
    storage: Proxy
    bigquery: Proxy
    dataset: Dataset
    config: config.Config
    log_file: Path

    def live(self, where: str = "TRUE") -> list[dict[str, Any]]:
        """Return rows of the live view."""
        return self.dataset.query(f"SELECT * FROM instances_live WHERE {where} ORDER BY path")

    def rows(self, name: str) -> list[dict[str, Any]]:
        """Return every row about an object in either bucket, in the order of arrival."""
        return self.dataset.query(
            "SELECT * FROM instances WHERE ENDS_WITH(path, @name) ORDER BY ingested_at",
            {"name": f"/{name}"},
        )

    def dead_letters(self) -> list[dict[str, Any]]:
        """Return the raw dead letters, with the attributes decoded."""
        rows = self.dataset.query("SELECT * FROM dead_letter ORDER BY publish_time")
        return [{**row, "attributes": json.loads(row["attributes"])} for row in rows]

    def log_lines(self, event_id: str) -> list[dict[str, Any]]:
        """Return the log lines of an event."""
        lines = [json.loads(line) for line in self.log_file.read_text().splitlines()]
        return [line for line in lines if line.get("event_id") == event_id]


def unique(prefix: str) -> str:
    """Return a name that no other test uses."""
    return f"{prefix}{uuid.uuid4().hex[:12]}"


@contextmanager
def function_stack(
    folder: Path,
    bigquery_url: str,
    storage_url: str,
    overrides: dict[str, Any],
    *,
    source: Path = ROOT,
    threads: int | None = None,
    has_tables: bool = True,
) -> Iterator[Stack]:
    """Run the function with an empty dataset and fresh buckets behind fault proxies.

    `source` is the folder of `main.py` and of the package that it imports. Without tables there is
    not even a dataset.
    """
    with ExitStack() as stack:
        if has_tables:
            dataset = stack.enter_context(borrowed_dataset(bigquery_url, overrides))
        else:
            dataset_id = unique("test_")
            stack.enter_context(dropped(bigquery_url, dataset_id))
            settings = config.from_overrides(in_dataset(dataset_id, overrides))
            dataset = connect(bigquery_url, settings)
        overrides = in_dataset(dataset.dataset_id, overrides)
        storage = stack.enter_context(Proxy(storage_url).running())
        bigquery = stack.enter_context(Proxy(bigquery_url).running())
        environ = {
            "STORAGE_EMULATOR_HOST": storage.url,
            "BIGQUERY_EMULATOR_HOST": bigquery.url,
            "DCM2BQ_CONFIG": json.dumps(overrides),
            "PYTHONPATH": str(source),
            **({"THREADS": str(threads)} if threads else {}),
        }
        url = stack.enter_context(forked_function(folder, source / "main.py", environ))
        yield Stack(
            url=url,
            bucket=Bucket(storage_url, unique("bucket-")),
            versioned_bucket=Bucket(storage_url, unique("versioned-"), versioned=True),
            storage=storage,
            bigquery=bigquery,
            dataset=dataset,
            config=config.from_overrides(overrides),
            log_file=folder / "function" / "log",
        )
