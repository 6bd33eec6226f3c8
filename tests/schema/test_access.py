"""A dataset is made closed; `init --close` closes an open one and changes nothing else."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests

from dcm2bq.bigquery.access import DatasetAccess
from dcm2bq.bigquery.dataset import Dataset
from dcm2bq.config import Config
from dcm2bq.errors import ConfigError, ServiceError
from dcm2bq.tools.init import SchemaAction, SchemaEntry, init
from tests.support.http_server import Exchange, serving

OWNERS = {"role": "OWNER", "specialGroup": "projectOwners"}
OPENINGS: list[dict[str, Any]] = [
    {"role": "READER", "specialGroup": "projectReaders"},
    {"role": "WRITER", "specialGroup": "projectWriters"},
    {"role": "READER", "specialGroup": "allAuthenticatedUsers"},
    {"role": "READER", "iamMember": "allUsers"},
    {"role": "roles/bigquery.dataViewer", "iamMember": "projectViewer:p"},
    {"role": "READER", "domain": "secret-hospital.example"},
]
GRANTS: list[dict[str, Any]] = [
    OWNERS,
    {"role": "OWNER", "userByEmail": "creator@secret-hospital.example"},
    {"role": "READER", "groupByEmail": "analysts@secret-hospital.example"},
    {
        "role": "roles/bigquery.dataViewer",
        "userByEmail": "guest@secret-hospital.example",
        "condition": {"title": "until May", "expression": "request.time < timestamp('2027-05-01')"},
    },
    {"role": "READER", "iamMember": "principal://iam.googleapis.com/locations/global/x"},
    {"view": {"projectId": "p", "datasetId": "shared", "tableId": "anonymous"}},
    {"routine": {"projectId": "p", "datasetId": "shared", "routineId": "f"}},
    {"dataset": {"dataset": {"projectId": "p", "datasetId": "x"}, "targetTypes": ["VIEWS"]}},
]
MIXED = [entry for pair in zip(GRANTS, OPENINGS, strict=False) for entry in pair] + GRANTS[6:]
SHOWN = (
    "READER for projectReaders",
    "WRITER for projectWriters",
    "READER for allAuthenticatedUsers",
    "READER for allUsers",
    "roles/bigquery.dataViewer for projectReaders",
    "READER for a domain",
)


class Place:
    """A dataset of the local BigQuery, with its access list."""

    def __init__(self, dataset: Dataset, config: Config, url: str) -> None:
        self.dataset, self._config = dataset, config
        self._url = f"{url}/bigquery/v2/projects/local/datasets/{dataset.dataset_id}"

    def init(self, **options: Any) -> SchemaEntry:
        return init(self.dataset, self._config, **options)[0]

    @property
    def entries(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = requests.get(self._url, timeout=60).json()["access"]
        return found

    def grant(self, entries: list[dict[str, Any]]) -> None:
        answer = requests.patch(self._url, json={"access": entries}, timeout=60)
        answer.raise_for_status()


@pytest.fixture
def place(
    config: Callable[..., Config], connect: Callable[[Config], Dataset], bigquery_url: str
) -> Place:
    """A dataset that does not exist yet."""
    made = config()
    return Place(connect(made), made, bigquery_url)


@pytest.mark.usefixtures("tables_only")
def test_a_new_dataset_is_closed(place: Place) -> None:
    """The local BigQuery, like the real one, opens a new dataset to viewers and editors."""
    assert place.init() == SchemaEntry("dataset", place.dataset.name, SchemaAction.CREATED)
    assert place.entries == [OWNERS]


@pytest.mark.usefixtures("tables_only")
def test_an_open_dataset_is_reported_and_left_open(place: Place) -> None:
    place.dataset.create(None)
    place.grant(MIXED)
    entry = place.init()
    assert entry.action is SchemaAction.UNCHANGED
    assert entry.details == (f"open ({', '.join(SHOWN)}): run dcm2bq init --close to remove these",)
    assert place.entries == MIXED


@pytest.mark.usefixtures("tables_only")
def test_closing_removes_what_opens_the_dataset_and_nothing_else(place: Place) -> None:
    place.dataset.create(None)
    place.grant(MIXED)
    planned = place.init(close=True, dry_run=True)
    assert place.entries == MIXED
    entry = place.init(close=True)
    assert entry == planned
    assert entry.action is SchemaAction.UPDATED
    assert entry.details == tuple(f"{shown} removed" for shown in SHOWN)
    assert "secret" not in str(entry.details)
    assert place.entries == GRANTS
    again = place.init(close=True)
    assert (again.action, again.details) == (SchemaAction.UNCHANGED, ())


class DatasetsApi:
    """The datasets of BigQuery's REST API: one dataset, whose list others may change as well.

    `intruders` are entries that somebody else adds, one just before each request to change it.
    """

    def __init__(self, entries: list[dict[str, Any]] | None) -> None:
        self.entries = entries
        self.intruders: list[dict[str, Any]] = []
        self.ignores_changes = False
        self.requests: list[tuple[str, str, str | None, Any]] = []
        self._version = 1

    def serve(self, exchange: Exchange) -> None:
        body: Any = json.loads(exchange.body) if exchange.body else None
        condition = exchange.headers.get("If-Match")
        self.requests.append((exchange.command, exchange.path, condition, body))
        if exchange.command == "PATCH":
            if self.intruders and self.entries is not None:
                self.entries = [*self.entries, self.intruders.pop(0)]
                self._version += 1
            if condition != f"v{self._version}":
                exchange.answer_json({"error": {"code": 412}}, 412)
                return
            if not self.ignores_changes:
                self.entries = body["access"]
                self._version += 1
        content: dict[str, Any] = {"etag": f"v{self._version}"}
        if self.entries is not None:
            content["access"] = self.entries
        exchange.answer_json(content)


@pytest.fixture
def api() -> DatasetsApi:
    return DatasetsApi(MIXED)


@pytest.fixture
def access(api: DatasetsApi, monkeypatch: pytest.MonkeyPatch) -> Iterator[DatasetAccess]:
    with serving(api.serve) as url:
        monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", url)
        yield DatasetAccess("p", "dicom", 5)


def test_the_list_is_changed_only_if_it_is_still_the_one_that_was_read(
    access: DatasetAccess, api: DatasetsApi
) -> None:
    """Every request asks for conditions, without which they would be lost."""
    access.close()
    path = "/bigquery/v2/projects/p/datasets/dicom?accessPolicyVersion=3"
    assert api.requests == [
        ("GET", path, None, None),
        ("PATCH", path, "v1", {"access": GRANTS}),
        ("GET", path, None, None),
    ]


def test_a_grant_made_at_the_same_time_survives(access: DatasetAccess, api: DatasetsApi) -> None:
    other = {"role": "READER", "userByEmail": "new@example.org"}
    api.intruders = [other]
    access.close()
    assert api.entries == [*GRANTS, other]


def test_a_list_that_never_stays_the_same_is_reported(
    access: DatasetAccess, api: DatasetsApi
) -> None:
    api.intruders = [{"role": "READER", "userByEmail": f"{n}@example.org"} for n in range(9)]
    with pytest.raises(ServiceError, match=r"BigQuery: p\.dicom: its access list is being changed"):
        access.close()
    assert set(map(str, MIXED)) <= set(map(str, api.entries or []))


def test_a_change_that_was_not_made_is_reported(access: DatasetAccess, api: DatasetsApi) -> None:
    api.ignores_changes = True
    with pytest.raises(ServiceError, match="the dataset is still open"):
        access.close()


def test_a_list_that_is_not_shown_is_not_called_closed(
    access: DatasetAccess, api: DatasetsApi
) -> None:
    api.entries = None
    assert access.read() is None
    with pytest.raises(ConfigError, match=r"grant this identity roles/bigquery\.dataOwner"):
        access.close()


def test_a_refusal_names_the_dataset_and_the_status(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(lambda exchange: exchange.answer_json({"error": {}}, 403)) as url:
        monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", url)
        with pytest.raises(ServiceError, match=r"^BigQuery: p\.dicom: HTTP 403$"):
            DatasetAccess("p", "dicom", 5).read()
