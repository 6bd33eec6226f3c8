"""What the function logged about a generation, read from Cloud Logging."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from dcm2bq import notifications
from dcm2bq.stored_object import StoredObject
from dcm2bq.tools.trial.google_apis import GoogleApis, UntriedError

LOGGING = "https://logging.googleapis.com"

_LINES = 20  # of one object: enough to see that an event fails again and again


@dataclass(frozen=True, slots=True)
class FunctionLogLine:
    """A line about one attempt at an event; its texts hold no values of headers."""

    outcome: str
    error_type: str
    error: str


class FunctionLog:
    """The lines of the function since a moment, as far as the caller may read them."""

    def __init__(self, apis: GoogleApis | None, project: str, since: datetime) -> None:
        self._apis = apis
        self.project = project
        self._since = since

    def lines(
        self, stored: StoredObject, events: Collection[str]
    ) -> Sequence[FunctionLogLine] | None:
        """Return the lines about `events` of a generation, or None if they cannot be read."""
        if self._apis is None:
            return None
        notified = [name for name, event in notifications.KINDS.items() if event in events]
        request = {
            "resourceNames": [f"projects/{self.project}"],
            "filter": (
                'resource.type="cloud_run_revision" '
                f'jsonPayload.generation="{stored.generation}" '
                f"jsonPayload.event_type:({' OR '.join(sorted([*events, *notified]))}) "
                f'timestamp>="{self._since.isoformat()}"'
            ),
            "orderBy": "timestamp desc",
            "pageSize": _LINES,
        }
        try:
            answer = self._apis.post(
                LOGGING, "/v2/entries:list", request, needs="logging.logEntries.list"
            )
        except UntriedError:
            return None
        payloads = [entry.get("jsonPayload") or {} for entry in answer.get("entries") or []]
        return [
            FunctionLogLine(
                str(payload["outcome"]),
                str(payload.get("error_type") or ""),
                str(payload.get("error") or ""),
            )
            for payload in payloads
            if payload.get("outcome")
        ]
