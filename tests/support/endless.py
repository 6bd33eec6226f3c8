"""A test that never ends, with every kind of process below it: for tests/local/test_termination."""

import os
import threading
from pathlib import Path

from dcm2bq.config import Config
from tests.support.backfill_site import Site
from tests.support.datasets import connect
from tests.support.function_forks import forked_function
from tests.support.function_stack import ROOT
from tests.support.patience import until
from tests.support.proxy import Fault, Proxy


def test_never_ends(tmp_path: Path, storage_url: str, bigquery_url: str) -> None:
    with (
        Proxy(storage_url).running() as storage,
        Proxy(bigquery_url).running() as bigquery,
        forked_function(tmp_path, ROOT / "main.py", {}),
    ):
        storage.faults = bigquery.faults = [Fault("", how="stall")]
        site = Site(storage, storage_url, bigquery.url, connect(bigquery.url, Config()))
        with site.start() as backfill:
            until(lambda: storage.requests or bigquery.requests)
            assert backfill.poll() is None
            Path(os.environ["TEST_READY"]).touch()
            threading.Event().wait()
