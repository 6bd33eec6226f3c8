"""The function `ingest`: it handles Cloud Storage object events from Eventarc or Pub/Sub.

An event is acknowledged (HTTP 200) only when its row or its dead letter is durable. Everything
else is answered with HTTP 500, so that the trigger delivers the event again.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import flask
import functions_framework
from cloudevents.http import CloudEvent
from msgspec.structs import asdict
from werkzeug.exceptions import HTTPException

from dcm2bq import config, dicom, emulators, log, notifications
from dcm2bq.delivery import Delivery
from dcm2bq.errors import ConfigError, InvalidEventError, RetryableError, describe
from dcm2bq.events import ObjectEvent, event_type, parse, received
from dcm2bq.handler import Handler, Outcome, Result


def _refuse_developer_settings(environ: Mapping[str, str]) -> None:
    """Raise `ConfigError` if settings for a developer's machine are set in the cloud.

    With DEBUG the framework answers errors with a console that runs code. With the variable of
    an emulator, headers and tokens would go to the host that it names.
    """
    if not environ.get("K_SERVICE"):  # set by Cloud Run
        return
    for name, value in environ.items():
        if value and (name in {"DEBUG", "FLASK_DEBUG"} or name.endswith("_EMULATOR_HOST")):
            raise ConfigError(f"{name} is set, but is for a developer's machine only: unset it")


try:
    _refuse_developer_settings(os.environ)
    emulators.check()
    CONFIG = config.load()
    if CONFIG.privacy.hash_key_secret:
        from dcm2bq.secret_manager import provide_hash_key

        provide_hash_key(CONFIG.privacy)
    dicom.privacy_rules(CONFIG.privacy)
    MEMORY = dicom.budget_of(CONFIG.limits)
except (ConfigError, RetryableError) as error:
    sys.exit(f"dcm2bq: {error}")
log.setup(CONFIG)

_ignored = log.Tally("events ignored", "ignored")
_handlers: list[Handler] = []
_making = threading.Lock()


@functions_framework.cloud_event
def ingest(event: CloudEvent) -> None:
    """Handle one event; raise `RetryableError` if it must be delivered again."""
    _serve(_delivery(event))


def _serve(delivery: Delivery) -> None:
    started = time.monotonic()
    try:
        outcome = _handler().handle(delivery)
    except Exception as error:
        _log_failure(delivery, error, started)
        raise RetryableError(describe(error)) from None
    _log_outcome(delivery, outcome, started)


def refuse(_: Exception) -> tuple[str, int]:
    """Answer a request that is not a CloudEvent, without quoting it as the framework would.

    The framework also refuses a message of Pub/Sub that has no data. That one is handled.
    """
    if pushed := notifications.pushed(flask.request.get_data()):
        _serve(pushed)
        return "OK", HTTPStatus.OK
    log.write("WARNING", "not a CloudEvent", outcome="refused")
    return "not a CloudEvent\n", HTTPStatus.BAD_REQUEST


def serve_unparsed(error: Exception) -> tuple[str, int] | HTTPException:
    """Handle a request that the framework failed to turn into a CloudEvent.

    A detail such as deeply nested JSON, or an extension named like one of its own fields, makes
    it raise an exception, which would be answered with 500 at every delivery. The request itself
    is read instead, and becomes a row, or a dead letter with the reason.
    """
    if isinstance(error, HTTPException):
        return error
    if isinstance(error, RetryableError):  # raised and logged by `ingest`
        raise error
    _serve(_received())
    return "OK", HTTPStatus.OK


functions_framework.errorhandler(HTTPStatus.BAD_REQUEST)(refuse)
functions_framework.errorhandler(Exception)(serve_unparsed)


def _handler() -> Handler:
    """Return this process's handler; its clients are made with the first event.

    They cannot be made at import, because gunicorn forks after it, and connections do not survive
    a fork.
    """
    with _making:
        if not _handlers:
            from dcm2bq.bigquery.row_sink import RowSink  # noqa: PLC0415
            from dcm2bq.gcs.store import Store  # noqa: PLC0415

            store, sink = Store(CONFIG), RowSink(CONFIG)
            _handlers.append(Handler(CONFIG, store, sink, memory=MEMORY, on_large=_log_large))
        return _handlers[0]


def _received() -> Delivery:
    return received(dict(flask.request.headers), flask.request.get_data())


def _delivery(event: CloudEvent) -> Delivery:
    if event["type"] == notifications.TYPE:
        return _received()  # of what Pub/Sub pushes, the framework drops the count of deliveries
    attributes = {f"ce-{k}": str(v) for k, v in event.get_attributes().items() if v is not None}
    data = event.get_data()
    return Delivery(attributes, data if isinstance(data, bytes) else json.dumps(data).encode())


def _log_outcome(delivery: Delivery, outcome: Outcome, started: float) -> None:
    severity: log.Severity = "INFO"
    if outcome.result is Result.IGNORED:
        severity = "DEBUG"
    elif outcome.result is Result.DEAD_LETTERED:
        severity = "ERROR"
    log.write(
        severity,
        f"event {outcome.result}",
        outcome=outcome.result,
        ignored=outcome.ignored,
        bytes_read=outcome.bytes_read,
        warnings=outcome.warnings,
        archive=outcome.archive and asdict(outcome.archive),
        error_type=outcome.error and type(outcome.error).__name__,
        error=outcome.error and describe(outcome.error),
        **_about(delivery, outcome.event, started),
    )
    if outcome.ignored:
        _ignored.add(outcome.ignored)
    _ignored.write_if_due()


def _log_large(event: ObjectEvent, memory_bytes: int) -> None:
    """Log an unusually large object before it is converted, in case that ends the process."""
    log.write(
        "INFO",
        "the object is unusually large",
        event_id=event.event_id,
        path=event.object.path,
        generation=str(event.object.generation),
        size=event.object.size,
        memory_bytes=memory_bytes,
    )


def _log_failure(delivery: Delivery, error: Exception, started: float) -> None:
    try:
        event = parse(delivery)
    except InvalidEventError:
        event = None
    log.write(
        "WARNING" if isinstance(error, RetryableError) else "ERROR",
        "event failed and will be delivered again",
        outcome="failed",
        error_type=type(error).__name__,
        error=describe(error),
        **_about(delivery, event, started),
    )


def _about(delivery: Delivery, event: ObjectEvent | None, started: float) -> dict[str, Any]:
    """Return the fields of every line: event, object, duration, trace."""
    trace = flask.request.headers.get("X-Cloud-Trace-Context") if flask.request else None
    return {
        "event_id": delivery.id,
        "event_type": event_type(delivery),
        "path": event and event.object.path,
        "generation": event and str(event.object.generation),
        "milliseconds": round((time.monotonic() - started) * 1000),
        "logging.googleapis.com/trace": trace and _trace_name(trace),
    }


def _trace_name(header: str) -> str:
    """Return the trace's resource name, from a header of the form `TRACE_ID/SPAN_ID;o=1`."""
    trace_id = header.partition("/")[0]
    project = os.environ.get("GOOGLE_CLOUD_PROJECT")
    return f"projects/{project}/traces/{trace_id}" if project else trace_id
