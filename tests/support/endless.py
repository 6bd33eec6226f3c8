"""A test that never ends, with every kind of process below it: for tests/local/test_termination."""

import os
import threading
from pathlib import Path

from dcm2bq.config import Config
from dcm2bq.local import servers
from tests.support.backfill_site import Site
from tests.support.datasets import connect
from tests.support.function_stack import ROOT
from tests.support.patience import until
from tests.support.proxy import Fault, Proxy


def test_never_ends(tmp_path: Path, storage_url: str, bigquery_url: str) -> None:
    dataset = connect(bigquery_url, Config())
    with (
        Proxy(storage_url).running() as proxy,
        servers.function_server(tmp_path, ROOT / "main.py", {}),
    ):
        proxy.faults = [Fault("/o?", how="stall")]
        site = Site(proxy, storage_url, bigquery_url, dataset)
        with site.start():
            until(lambda: proxy.requests)
            Path(os.environ["TEST_READY"]).touch()
            threading.Event().wait()
