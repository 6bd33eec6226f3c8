"""Streams rows into the two tables by `tabledata.insertAll`."""

from collections.abc import Sequence
from functools import partial
from http import HTTPStatus

import msgspec

from dcm2bq import emulators
from dcm2bq.bigquery.commit import GroupCommit, Verdict, batches
from dcm2bq.config import Config
from dcm2bq.deadline import Deadline
from dcm2bq.errors import ConfigError, Dcm2BqError, RowTooLargeError, WriteFailedError
from dcm2bq.rows import DeadLetterRow, InstanceRow, names_column
from dcm2bq.transport import NoAnswerError, Transport, is_reason

SERVICE = "https://bigquery.googleapis.com"
ROW_LIMIT_BYTES = 10_000_000
"""BigQuery's limit for one streamed row: 10 MB."""

_STOPPED = "stopped"  # the reason of rows that were not tried because other rows are wrong
_REFUSALS = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE})


class _Error(msgspec.Struct):
    reason: str = ""
    location: str = ""


class _RowErrors(msgspec.Struct):
    index: int
    errors: list[_Error] = []


class _InsertAllAnswer(msgspec.Struct, rename="camel"):
    insert_errors: list[_RowErrors] = []


class _RefusedError(Exception):
    """The whole request was refused; one of its rows may be the cause."""


class RowSink:
    """Inserts rows; made once per process, used by all its threads.

    A method returns when BigQuery has stored the row. It raises `RowTooLargeError` for a row that
    BigQuery can never store, and `WriteFailedError` for every other failure. The methods for
    several rows return these errors.
    """

    def __init__(self, config: Config) -> None:
        self._transport = Transport(SERVICE, emulators.BIGQUERY)
        options = config.big_query
        project = options.project_id or self._transport.project
        if project is None:
            raise ConfigError(
                "bigQuery.projectId: the credentials have no project, so this must name it"
            )
        self._dataset = f"/bigquery/v2/projects/{project}/datasets/{options.dataset_id}"
        self._timeout = options.timeout_seconds
        self._instances = GroupCommit(partial(self._send, options.instances_table_id))
        self._dead_letter = GroupCommit(partial(self._send, options.dead_letter_table_id))

    def insert(self, row: InstanceRow, deadline: Deadline) -> None:
        """Insert a row into `instances`."""
        self._instances.insert(_encode(row), deadline)

    def insert_dead_letter(self, row: DeadLetterRow, deadline: Deadline) -> None:
        """Insert a row into `dead_letter`."""
        self._dead_letter.insert(_encode(row), deadline)

    def insert_all(self, rows: Sequence[InstanceRow], deadline: Deadline) -> Sequence[Verdict]:
        """Insert rows into `instances`; return why each one was not stored."""
        return _insert_all(self._instances, rows, deadline)

    def insert_dead_letters(
        self, rows: Sequence[DeadLetterRow], deadline: Deadline
    ) -> Sequence[Verdict]:
        """Insert rows into `dead_letter`; return why each one was not stored."""
        return _insert_all(self._dead_letter, rows, deadline)

    def _send(self, table: str, rows: Sequence[bytes], deadline: Deadline) -> list[Verdict]:
        """Insert rows and return their verdicts; a refused row does not affect the others."""
        try:
            errors = self._post(table, rows, deadline)
        except _RefusedError as refusal:
            if len(rows) == 1:
                return [_verdict(table, rows[0], str(refusal))]
            half = len(rows) // 2
            parts = rows[:half], rows[half:]
            return [verdict for part in parts for verdict in self._send(table, part, deadline)]
        except WriteFailedError as error:
            return [WriteFailedError(str(error)) for _ in rows]
        if not errors:
            return [None] * len(rows)
        # BigQuery stored none: the other rows were stopped, and are sent again without these.
        refused = {n: codes for n, codes in errors.items() if codes != _STOPPED}
        if not refused:
            return [WriteFailedError(f"{table}: the row was stopped") for _ in rows]
        others = [row for n, row in enumerate(rows) if n not in refused]
        verdicts = iter(self._send(table, others, deadline) if others else ())
        return [
            _verdict(table, row, refused[n]) if n in refused else next(verdicts)
            for n, row in enumerate(rows)
        ]

    def _post(self, table: str, rows: Sequence[bytes], deadline: Deadline) -> dict[int, str]:
        """Send one request; return the reasons of the rows that are refused, by their index."""
        deadline = deadline.within(self._timeout)
        if deadline.has_passed:
            raise WriteFailedError(f"{table}: no time left to insert the row")
        try:
            answer = self._transport.request(
                "POST",
                f"{self._dataset}/tables/{table}/insertAll",
                deadline=deadline,
                headers={"Content-Type": "application/json"},
                body=b'{"rows":[' + b",".join(rows) + b"]}",
            )
        except NoAnswerError as error:
            raise WriteFailedError(f"{table}: {error}") from None
        if answer.status in _REFUSALS:
            raise _RefusedError(str(answer))
        if answer.status != HTTPStatus.OK:
            raise WriteFailedError(f"{table}: {answer}")
        try:
            refused = msgspec.json.decode(answer.body, type=_InsertAllAnswer).insert_errors
        except ValueError:
            raise WriteFailedError(f"{table}: the answer cannot be read") from None
        if not all(0 <= row.index < len(rows) for row in refused):
            raise WriteFailedError(f"{table}: the answer names rows that were not sent")
        return {row.index: _codes(row.errors) for row in refused}


def _insert_all(
    commit: GroupCommit, rows: Sequence[InstanceRow | DeadLetterRow], deadline: Deadline
) -> list[Verdict]:
    return [
        verdict
        for batch in batches(map(_encode, rows))
        for verdict in commit.insert_all(batch, deadline)
    ]


def _encode(row: InstanceRow | DeadLetterRow) -> bytes:
    return msgspec.json.encode({"insertId": row.insert_id, "json": row})


def _verdict(table: str, row: bytes, codes: str) -> Dcm2BqError:
    """Return what a refusal means: only a row that is too large is refused forever.

    `no such field`, for instance, passes once a schema change has spread.
    """
    if len(row) > ROW_LIMIT_BYTES:
        return RowTooLargeError(
            f"{table}: the row has {len(row)} bytes, more than BigQuery's {ROW_LIMIT_BYTES}"
        )
    return WriteFailedError(f"{table}: the row was refused ({codes})")


def _codes(errors: Sequence[_Error]) -> str:
    """Return the reasons with the columns that they name; any other text could be a value."""
    causes = {
        f"{error.reason} {error.location}" if names_column(error.location) else error.reason
        for error in errors
        if is_reason(error.reason)
    }
    return ", ".join(sorted(causes)) or "no reason"
