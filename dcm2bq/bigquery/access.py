"""The dataset's access list: who has a right to it, apart from roles on the project and above.

BigQuery gives the basic roles of the project (Viewer, Editor) rights to every new dataset, unless
the list says otherwise. A dataset is *closed* when its list has no entry for them, for a whole
domain or for everyone.

The list is handled as BigQuery sends it: entries of kinds that are not known here must survive.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import msgspec

from dcm2bq import emulators
from dcm2bq.bigquery.row_sink import SERVICE
from dcm2bq.deadline import Deadline
from dcm2bq.errors import ConfigError, ServiceError
from dcm2bq.transport import Answer, NoAnswerError, Transport

type Entry = Mapping[str, Any]

_POLICY_VERSION = "accessPolicyVersion=3"
"""Without it, BigQuery sends entries that have conditions in a form that it does not take back."""
_TRIES = 3
"""Attempts to change a list that others change at the same time, which is rare."""
_OPEN_GROUPS = frozenset({"projectReaders", "projectWriters", "allAuthenticatedUsers"})
_OPEN_MEMBERS = {
    "allUsers": "allUsers",
    "allAuthenticatedUsers": "allAuthenticatedUsers",
    "projectViewer": "projectReaders",
    "projectEditor": "projectWriters",
    "domain": "a domain",
}
"""Members of IAM policies, up to their colon, and what they are called here."""


@dataclass(frozen=True, slots=True)
class AccessList:
    """The entries of the list at one moment, which `etag` identifies."""

    entries: Sequence[Entry]
    etag: str

    @property
    def openings(self) -> tuple[str, ...]:
        """The entries that a closed dataset does not have: `READER for projectReaders`."""
        return tuple(f"{entry.get('role')} for {name}" for entry, name in self._named() if name)

    @property
    def rest(self) -> list[Entry]:
        """The entries that a closed dataset may have: everything else."""
        return [entry for entry, name in self._named() if not name]

    def _named(self) -> list[tuple[Entry, str | None]]:
        return [(entry, opening(entry)) for entry in self.entries]


class DatasetAccess:
    """Reads and closes the access list of a dataset; raises `ServiceError` as `Dataset` does."""

    def __init__(self, project: str, dataset_id: str, timeout: float) -> None:
        self._transport = Transport(SERVICE, emulators.BIGQUERY)
        self._path = f"/bigquery/v2/projects/{project}/datasets/{dataset_id}?{_POLICY_VERSION}"
        self._name = f"BigQuery: {project}.{dataset_id}"
        self._timeout = timeout

    def read(self) -> AccessList | None:
        """Return the access list; None if BigQuery does not show it to this caller."""
        answer = self._request("GET")
        try:
            content = msgspec.json.decode(answer.body)
            entries = content.get("access")
            return None if entries is None else AccessList(tuple(entries), content["etag"])
        except (ValueError, LookupError, TypeError, AttributeError):
            raise ServiceError(f"{self._name}: the answer is not a dataset") from None

    def close(self) -> None:
        """Remove the entries that open the dataset, and nothing else; read the list back.

        A list that changes meanwhile is read again, so that no change of others is undone.
        """
        for _ in range(_TRIES):
            access = self.read()
            if access is None:
                raise ConfigError(
                    f"{self._name}: its access list is not shown: grant this identity "
                    "roles/bigquery.dataOwner on the dataset"
                )
            if not access.openings:
                return
            body = msgspec.json.encode({"access": access.rest})
            if self._request("PATCH", access.etag, body).status != HTTPStatus.PRECONDITION_FAILED:
                break
        else:
            raise ServiceError(
                f"{self._name}: its access list is being changed by others: try again"
            )
        after = self.read()
        if after is None or after.openings:
            raise ServiceError(
                f"{self._name}: a change was accepted but not made: the dataset is still open"
            )

    def _request(self, method: str, etag: str | None = None, body: bytes | None = None) -> Answer:
        """Return an answer of status 200, or of 412 if the dataset is no longer that of `etag`."""
        headers = {"Content-Type": "application/json"} if body else {}
        if etag:
            headers["If-Match"] = etag
        deadline = Deadline.after(self._timeout)
        try:
            answer = self._transport.request(
                method, self._path, deadline=deadline, headers=headers, body=body
            )
        except NoAnswerError as error:
            raise ServiceError(f"{self._name}: {error}") from None
        if answer.status == HTTPStatus.OK:
            return answer
        if etag and answer.status == HTTPStatus.PRECONDITION_FAILED:
            return answer
        raise ServiceError(f"{self._name}: {answer}")


def opening(entry: Entry) -> str | None:
    """Return whom an entry lets in, if a closed dataset keeps them out; names nobody."""
    group = entry.get("specialGroup")
    if group in _OPEN_GROUPS:
        return str(group)
    if "domain" in entry:
        return "a domain"
    return _OPEN_MEMBERS.get(str(entry.get("iamMember", "")).partition(":")[0])
