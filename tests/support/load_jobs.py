"""A stand-in for BigQuery's load jobs: it keeps jobs and the files they load, and has a quota."""

import json
import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tests.support.http_server import Exchange

QUOTA_EXCEEDED = "quotaExceeded"


@dataclass
class LoadJobs:
    """Serves `datasets.get`, `jobs.insert` and `jobs.get`; a job is done when it is looked at.

    `quota` is the number of jobs that it still accepts; jobs that fail count too. Beyond that, it
    refuses the request, or accepts the job and lets it fail if `fails_late`. `failures` are the
    reasons why the next jobs fail. A request whose line contains `denied` is refused; one whose
    line contains `held` is carried out, but not answered.
    """

    quota: int = 1500
    fails_late: bool = False
    failures: list[str] = field(default_factory=list)
    denied: str = ""
    held: str = ""
    is_holding: threading.Event = field(default_factory=threading.Event)
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    loaded: Counter[str] = field(default_factory=Counter)
    requests: int = 0
    refused: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def serve(self, exchange: Exchange) -> None:
        """Answer a request."""
        with self._lock:
            self.requests += 1
            content, status = self._answer(exchange)
        if self.held and self.held in exchange.requestline:
            self.is_holding.set()
            exchange.hang_up()
            threading.Event().wait(20)  # until the client is killed
            return
        exchange.answer_json(content, status)

    def _answer(self, exchange: Exchange) -> tuple[dict[str, Any], int]:
        path = exchange.path.partition("?")[0]
        if self.denied and self.denied in exchange.requestline:
            return _error(403, "accessDenied")
        if "/datasets/" in path:
            reference = {"projectId": "local", "datasetId": path.rpartition("/")[2]}
            return {"datasetReference": reference, "location": "EU"}, 200
        if exchange.command == "POST":
            return self._insert(json.loads(exchange.body))
        job = self.jobs.get(path.rpartition("/")[2])
        return (job, 200) if job else _error(404, "notFound")

    def _insert(self, job: dict[str, Any]) -> tuple[dict[str, Any], int]:
        job_id = job["jobReference"]["jobId"]
        if job_id in self.jobs:
            return _error(409, "duplicate")
        is_beyond = self.quota <= 0
        self.refused += is_beyond
        if is_beyond and not self.fails_late:
            return _error(403, QUOTA_EXCEEDED)
        self.quota -= 1
        reason = QUOTA_EXCEEDED if is_beyond else self.failures.pop(0) if self.failures else ""
        uris = job["configuration"]["load"]["sourceUris"]
        job["status"] = {"state": "DONE"}
        job["statistics"] = {"load": {"outputRows": str(len(uris))}}
        if reason:
            job["status"]["errorResult"] = {"reason": reason, "message": "SENTINEL^PATIENT"}
        else:
            self.loaded.update(uris)
        self.jobs[job_id] = job
        return job, 200


def _error(code: int, reason: str) -> tuple[dict[str, Any], int]:
    errors = [{"reason": reason, "message": "SENTINEL^PATIENT", "domain": "global"}]
    return {"error": {"code": code, "message": "SENTINEL^PATIENT", "errors": errors}}, code
