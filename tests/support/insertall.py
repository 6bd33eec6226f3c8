"""A stub of BigQuery's `tabledata.insertAll` that keeps what it stores, and fails on demand."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tests.support.http_server import Exchange, serving

type Row = dict[str, Any]


class InsertAll:
    """Stores each row once by its insert id; `fail` may answer otherwise.

    `fail` gets the number of the request and its rows; it returns None to go on, "reset" to
    store the rows and hang up, or a status with a body.
    """

    def __init__(self) -> None:
        self.stored: dict[str, Row] = {}
        self.batches: list[int] = []
        self.fail: Callable[[int, list[Row]], Any] = lambda _number, _rows: None
        self.is_bad: Callable[[Row], bool] = lambda _row: False
        self.seconds = 0.0
        self.lock = threading.Lock()

    @contextmanager
    def running(self) -> Iterator[str]:
        """Serve until the block ends; yield the URL."""
        with serving(self._serve) as url:
            yield url

    def insert(self, rows: list[Row]) -> Row:
        """Store the rows, or refuse them all because of the bad ones."""
        bad = {n for n, row in enumerate(rows) if self.is_bad(row["json"])}
        if not bad:
            for row in rows:
                self.stored.setdefault(row["insertId"], row["json"])
            return {}
        reasons = ["invalid" if n in bad else "stopped" for n in range(len(rows))]
        return {
            "insertErrors": [
                {"index": n, "errors": [{"reason": reason}]} for n, reason in enumerate(reasons)
            ]
        }

    def _serve(self, exchange: Exchange) -> None:
        rows = json.loads(exchange.body)["rows"]
        time.sleep(self.seconds)
        with self.lock:
            self.batches.append(len(rows))
            failure = self.fail(len(self.batches), rows)
            answer = self.insert(rows) if failure in {None, "reset"} else None
        if failure == "reset":
            exchange.reset()
            return
        status, body = failure or (200, json.dumps(answer).encode())
        exchange.answer(status, body, {"Content-Type": "application/json"})
