"""`init` on the local BigQuery, and `compare` for differences that it cannot have."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import msgspec
import pytest
import requests
from google.cloud import bigquery

from dcm2bq import hash_key, schema
from dcm2bq.bigquery.dataset import Dataset
from dcm2bq.config import Config, Privacy, from_overrides
from dcm2bq.dicom import privacy_rules
from dcm2bq.errors import ConfigError, ServiceError
from dcm2bq.lifted import ADDED
from dcm2bq.schema import Definition, DefinitionKind
from dcm2bq.schema.compare import compare
from dcm2bq.tools import indexing
from dcm2bq.tools.init import SchemaAction, SchemaEntry, init
from tests.schema.conftest import with_own_dataset
from tests.support import datasets
from tests.support.datasets import CORE, fresh_dataset
from tests.support.proxy import Fault, Proxy

MakeRow = Callable[..., dict[str, Any]]
Insert = Callable[..., None]
NAMES = [definition.name for definition in schema.load(Config(), "p")]
SOME = (*CORE, "live/studies", "live/series", "analysis/reports/sr_content")
"""Definitions of each kind, by file. To make all takes the local BigQuery 15 s."""


class Place:
    """A dataset, its configuration, and ways to change its objects."""

    def __init__(self, dataset: Dataset, config: Config, client: bigquery.Client) -> None:
        self.dataset, self.config, self.client = dataset, config, client
        self.definitions = {each.name: each for each in schema.load(config, dataset.project)}

    def init(self, **options: Any) -> dict[str, SchemaEntry]:
        entries = init(self.dataset, self.config, **options)
        assert entries[0].kind == "dataset"
        return {each.name: each for each in entries[1:]}

    def sql(self, statement: str) -> None:
        self.client.query_and_wait(statement.replace("D.", f"{self.dataset.name}."))

    def create(self, name: str, edit: Callable[[dict[str, Any]], object]) -> None:
        """Create the table `name` from its definition, changed by `edit`."""
        if self.dataset.get() is None:
            self.dataset.create(None)
        resource = copy.deepcopy(self.definitions[name].resource)
        edit(resource)
        self.dataset.create_table(resource)

    def snapshot(self) -> list[Any]:
        """Return the names of all objects, and the complete tables."""
        name = self.dataset.name
        names = [each.table_id for each in self.client.list_tables(name)]
        routines = [each.routine_id for each in self.client.list_routines(name)]
        tables = [self.dataset.get_table(each) or {} for each in names]
        return [*names, *routines, *({**each, "etag": None} for each in tables)]


@pytest.fixture(scope="session")
def bigquery_url(core_bigquery_url: str) -> str:
    """A running BigQuery with few views, where statements cost less."""
    return core_bigquery_url


@pytest.fixture
def place(
    config: Callable[..., Config],
    connect: Callable[[Config], Dataset],
    client: bigquery.Client,
) -> Place:
    """A dataset that does not exist yet."""
    made = config()
    return Place(connect(made), made, client)


@pytest.fixture
def some_definitions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `init` make only some objects."""
    monkeypatch.setattr(schema, "NAMES", SOME)


@pytest.fixture(scope="module")
def prepared(bigquery_url: str, client: bigquery.Client) -> Iterator[Place]:
    made = with_own_dataset()
    with ExitStack() as exits:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(schema, "NAMES", SOME)
            place = Place(exits.enter_context(fresh_dataset(bigquery_url, made)), made, client)
        yield place


@pytest.fixture
def ready(prepared: Place, some_definitions: None) -> Place:
    """A dataset in order with some objects, for tests that leave it so."""
    del some_definitions  # only its patch
    return prepared


@pytest.fixture
def definitions() -> dict[str, Definition]:
    return {each.name: each for each in schema.load(from_overrides({}), "p")}


def column(resource: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Return a column of a table; one inside RECORDs is written like `info.input.size`."""
    fields: list[dict[str, Any]] = resource["schema"]["fields"]
    *records, last = path.split(".")
    for record in records:
        fields = next(each for each in fields if each["name"] == record)["fields"]
    return next(each for each in fields if each["name"] == last)


def without(resource: dict[str, Any], *paths: str) -> None:
    """Remove columns from a table."""
    for path in paths:
        record = path.rpartition(".")[0]
        fields = (column(resource, record) if record else resource["schema"])["fields"]
        fields.remove(column(resource, path))


def set_column(path: str, **values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda table: column(table, path).update(values)


def descriptions(table: Mapping[str, Any]) -> set[tuple[str, str]]:
    return {(each["name"], each["description"]) for each in table["schema"]["fields"]}


def actions(entries: Mapping[str, SchemaEntry]) -> dict[str, SchemaAction]:
    return {name: each.action for name, each in entries.items() if each.action != "unchanged"}


def test_init_creates_everything_once_as_in_the_schema_files(place: Place) -> None:
    entries = place.init()
    assert list(entries) == NAMES
    assert set(actions(entries).values()) == {SchemaAction.CREATED}
    assert len(actions(entries)) == len(NAMES)
    before = place.snapshot()
    entries = place.init()
    assert actions(entries) == {}
    assert all(each.details == () for each in entries.values())
    assert place.snapshot() == before
    for definition in place.definitions.values():
        is_function = definition.kind is DefinitionKind.FUNCTION
        get = place.dataset.get_routine if is_function else place.dataset.get_table
        found = get(definition.name)
        assert found is not None
        assert found["description"] == definition.resource["description"]
        for key in ("timePartitioning", "clustering"):
            assert found.get(key) == definition.resource.get(key)
        if "schema" in definition.resource:
            assert descriptions(definition.resource) <= descriptions(found)


@pytest.mark.parametrize(
    ("option", "value", "need"),
    [
        ("format", "dicom-json", "jsonOutput.format flat"),
        ("useCommonNames", False, "jsonOutput.useCommonNames true"),
        ("useArrayWithSingleValue", True, "jsonOutput.useArrayWithSingleValue false"),
    ],
)
def test_analysis_views_are_left_out_if_headers_have_another_shape(
    ready: Place, option: str, value: Any, need: str
) -> None:
    """One that exists was made for other rows: it is neither changed nor dropped."""
    dataset = {"datasetId": ready.config.big_query.dataset_id}
    other = from_overrides({"bigQuery": dataset, "jsonOutput": {option: value}})
    analysis = {name for name, each in ready.definitions.items() if each.is_analysis}
    entries = {each.name: each for each in init(ready.dataset, other, dry_run=True)[1:]}
    assert entries.keys() == ready.definitions.keys()
    assert actions(entries) == dict.fromkeys(analysis, SchemaAction.LEFT_OUT)
    for name in analysis:
        assert entries[name].outcome(dry_run=True) == "left out"
        assert entries[name].details[0] == f"needs {need}"
        assert "left alone" in entries[name].details[1]


def test_other_names_and_another_location_are_used(
    config: Callable[..., Config],
    connect: Callable[[Config], Dataset],
    client: bigquery.Client,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    views = ("live/instances_live", "dead_letters/dead_letters")
    monkeypatch.setattr(schema, "NAMES", ("tables/instances", "tables/dead_letter", *views))
    made = config(instancesTableId="objects", deadLetterTableId="failures")
    place = Place(connect(made), made, client)
    entries = init(place.dataset, made, location="europe-west1")
    assert entries[0] == SchemaEntry("dataset", place.dataset.name, SchemaAction.CREATED)
    assert [each.name for each in entries[1:3]] == ["objects", "failures"]
    assert (place.dataset.get() or {})["location"] == "europe-west1"
    assert place.dataset.query("SELECT * FROM instances_live") == []
    assert place.dataset.query("SELECT * FROM dead_letters") == []
    assert actions(place.init(location="EUROPE-west1")) == {}
    with pytest.raises(ConfigError, match="is in europe-west1, not in US"):
        place.init(location="US")


@pytest.mark.parametrize(
    "names",
    [
        {"instancesTableId": "studies"},
        {"deadLetterTableId": "Dead_Letters"},
        {"instancesTableId": "x", "deadLetterTableId": "x"},
    ],
)
def test_equal_names_are_refused(
    config: Callable[..., Config], connect: Callable[[Config], Dataset], names: dict[str, str]
) -> None:
    made = config(**names)
    dataset = connect(made)
    with pytest.raises(ConfigError, match="is the name of another table or view"):
        init(dataset, made)
    assert dataset.get() is None


def test_a_dry_run_changes_nothing(place: Place) -> None:
    assert len(actions(place.init(dry_run=True))) == len(NAMES)
    assert place.dataset.get() is None


@pytest.mark.usefixtures("live_view_only")
def test_missing_columns_are_added(place: Place, insert: Insert, row: MakeRow) -> None:
    """A dry run reports it, the views show the columns at once, and rows are kept."""
    place.create("instances", lambda table: without(table, "Modality", "metadata"))
    insert(place.dataset, "instances", row("gs://b/old", 1))
    before = place.snapshot()
    told = place.init(dry_run=True)
    assert place.snapshot() == before
    entries = place.init()
    assert entries == told
    assert entries["instances"].action is SchemaAction.UPDATED
    assert entries["instances"].details == ("column Modality added", "column metadata added")
    insert(place.dataset, "instances", row("gs://b/new", 1, Modality="CT"))
    found = place.dataset.query("SELECT path, Modality FROM instances_live ORDER BY path")
    assert [tuple(each.values()) for each in found] == [("gs://b/new", "CT"), ("gs://b/old", None)]
    assert actions(place.init()) == {}


@pytest.mark.usefixtures("live_view_only")
def test_a_table_of_an_older_release_gains_the_columns_added_since(
    place: Place, insert: Insert, row: MakeRow
) -> None:
    """At its end. The views show older rows with the values in their headers, next to new rows."""
    later = [*(each.keyword for each in ADDED), "member"]
    place.create("instances", lambda table: without(table, *later))
    insert(place.dataset, "instances", row("gs://b/old", 1, metadata='{"StationName": "CT1"}'))
    entries = place.init()
    assert entries["instances"].details == tuple(f"column {each} added" for each in later)
    table = place.dataset.get_table("instances") or {}
    assert [each["name"] for each in table["schema"]["fields"]][-len(later) :] == later
    insert(place.dataset, "instances", row("gs://b/new", 1, StationName="CT2", member="m"))
    for table_name, old in (("instances_live", "CT1"), ("instances", None)):
        found = place.dataset.query(f"SELECT StationName, member FROM {table_name} ORDER BY path")
        assert [tuple(each.values()) for each in found] == [("CT2", "m"), (old, None)]
    assert actions(place.init()) == {}


def test_columns_are_added_below_existing_views(ready: Place) -> None:
    """The view of a `SELECT *` is replaced when its table has gained columns."""
    definitions = schema.load(ready.config, ready.dataset.project)
    extra = {"name": "later", "type": "STRING", "description": "A column of a later version"}
    for each in definitions:
        if each.name in {"instances", "instances_live"}:
            each.resource["schema"]["fields"].append(extra)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schema, "load", lambda *_: definitions)
        entries = ready.init()
        assert actions(entries) == {"instances": "updated", "instances_live": "updated"}
        assert entries["instances_live"].details == ("columns",)
        assert actions(ready.init()) == {}
    assert ready.dataset.query("SELECT later FROM instances_live") == []
    assert ready.dataset.query("SELECT later FROM study('1')") == []
    # An older version finds the column, and lets it be.
    entries = ready.init()
    assert entries["instances"].details == ("column later is not dcm2bq's: left alone",)
    assert actions(entries) == {}


@pytest.mark.usefixtures("tables_only")
def test_columns_are_relaxed_and_descriptions_updated(place: Place, insert: Insert) -> None:
    def edit(table: dict[str, Any]) -> None:
        table["description"] = "old"
        for path in ("info", "info.input.size", "path"):
            column(table, path)["description"] = "old"

    place.create("instances", edit)
    place.create("dead_letter", set_column("data", mode="REQUIRED"))
    entries = place.init()
    assert entries["instances"].details == (
        "description of column path",
        "description of column info",
        "description of column info.input.size",
        "description",
    )
    assert entries["dead_letter"].details == ("column data is no longer REQUIRED",)
    insert(place.dataset, "dead_letter", {"message_id": "m"})
    assert actions(place.init()) == {}


def test_labels_are_kept_when_a_view_is_replaced(ready: Place) -> None:
    ready.sql("CREATE OR REPLACE VIEW D.series AS SELECT 1 AS a")
    for name in ("instances", "series"):
        resource = ready.dataset.get_table(name) or {}
        ready.dataset.patch_table({**resource, "labels": {"team": "pacs"}}, ["labels"])
    assert actions(ready.init()) == {"series": "updated"}
    for name in ("instances", "series"):
        assert (ready.dataset.get_table(name) or {})["labels"] == {"team": "pacs"}


@pytest.mark.parametrize(
    ("name", "sql", "columns"),
    [
        ("instances_live", "SELECT *, 1 AS more FROM D.instances", ()),
        ("studies", "SELECT 1 AS a", ("columns",)),
        # The local BigQuery cannot show a view over one that lacks its columns.
        (
            "dead_letters",
            "SELECT 'x' AS path, 'y' AS member, '1' AS version, 'e' AS event, 'm' AS message_id",
            ("columns",),
        ),
    ],
)
def test_a_changed_view_is_restored(
    ready: Place, name: str, sql: str, columns: tuple[str, ...]
) -> None:
    """After another query or other columns, its query and descriptions are right again."""
    ready.sql(f"CREATE OR REPLACE VIEW D.{name} AS {sql}")
    assert ready.init()[name] == SchemaEntry(
        "view", name, SchemaAction.UPDATED, ("query", *columns, "description")
    )
    assert ready.dataset.query(f"SELECT * FROM {name}") == []
    assert actions(ready.init()) == {}


def test_the_description_of_a_view_column_is_updated(ready: Place) -> None:
    resource = copy.deepcopy(ready.definitions["studies"].resource)
    column(resource, "PatientID")["description"] = "old"
    ready.dataset.patch_table(resource, ["schema"])
    entry = ready.init()["studies"]
    assert (entry.action, entry.details) == (
        SchemaAction.UPDATED,
        ("description of column PatientID",),
    )
    assert actions(ready.init()) == {}


@pytest.mark.parametrize(
    ("statement", "details"),
    [
        (
            "CREATE OR REPLACE TABLE FUNCTION D.study(uid STRING) AS SELECT uid AS a",
            ("query", "description"),
        ),
        (
            "CREATE OR REPLACE TABLE FUNCTION D.study(uid STRING, more INT64) AS SELECT more AS a",
            ("query", "arguments", "description"),
        ),
    ],
)
def test_a_changed_function_is_restored(
    ready: Place, statement: str, details: tuple[str, ...]
) -> None:
    ready.sql(statement)
    assert ready.init()["study"] == SchemaEntry("function", "study", SchemaAction.UPDATED, details)
    assert ready.dataset.query("SELECT path FROM study('1')") == []
    assert actions(ready.init()) == {}


REFUSALS: dict[str, tuple[str, Callable[[dict[str, Any]], object], str]] = {
    "type": (
        "instances",
        set_column("StudyDate", type="STRING"),
        "column StudyDate is STRING, not DATE",
    ),
    "type in a RECORD": (
        "instances",
        set_column("info.input.size", type="STRING"),
        "column info.input.size is STRING, not INTEGER",
    ),
    "RECORD": (
        "instances",
        set_column("info", type="JSON", fields=[]),
        "column info is JSON, not RECORD",
    ),
    "mode": (
        "instances",
        set_column("Modality", mode="REPEATED"),
        "column Modality is REPEATED, not NULLABLE",
    ),
    "not required": (
        "instances",
        set_column("path", mode="NULLABLE"),
        "column path is NULLABLE, not REQUIRED",
    ),
    "missing and required": (
        "instances",
        lambda table: without(table, "path"),
        "column path is missing, and a REQUIRED column cannot be added",
    ),
    "unknown and required": (
        "dead_letter",
        lambda table: table["schema"]["fields"].append(
            {"name": "site", "type": "STRING", "mode": "REQUIRED"}
        ),
        "column site is REQUIRED, and dcm2bq does not write it",
    ),
    "no partitioning": (
        "instances",
        lambda table: table.pop("timePartitioning"),
        "is not partitioned by MONTH of column ingested_at",
    ),
    "other partitioning": (
        "instances",
        lambda table: table["timePartitioning"].update(type="DAY"),
        "is not partitioned by MONTH of column ingested_at",
    ),
    "partitioning of dead letters": (
        "dead_letter",
        lambda table: table.pop("timePartitioning"),
        "is not partitioned by MONTH of column publish_time",
    ),
    "partition filter": (
        "instances",
        lambda table: table.update(requirePartitionFilter=True),
        "requires a partition filter, which the views do not have",
    ),
    "no clustering": (
        "instances",
        lambda table: table.pop("clustering"),
        "is not clustered by event, StudyInstanceUID, SeriesInstanceUID, SOPInstanceUID",
    ),
    "other clustering": (
        "instances",
        lambda table: table["clustering"]["fields"].reverse(),
        "is not clustered by event, StudyInstanceUID, SeriesInstanceUID, SOPInstanceUID",
    ),
}


@pytest.mark.parametrize("what", REFUSALS)
def test_a_difference_that_cannot_be_changed_is_refused(
    definitions: dict[str, Definition], what: str
) -> None:
    name, edit, message = REFUSALS[what]
    found = copy.deepcopy(definitions[name].resource)
    edit(found)
    assert compare(found, definitions[name]).refusals == [message]


def test_all_refusals_are_reported_before_anything_is_changed(place: Place) -> None:
    """Tables, columns and kinds are named; possible changes are not made either."""

    def edit(table: dict[str, Any]) -> None:
        without(table, "path", "Modality")
        column(table, "info.input.size")["type"] = "STRING"
        table["clustering"]["fields"].reverse()

    place.create("instances", edit)
    place.create("dead_letter", lambda table: table.pop("timePartitioning"))
    place.sql("CREATE TABLE D.studies (a INT64)")
    place.sql("CREATE FUNCTION D.study(a INT64) AS (a)")
    before = place.snapshot()
    with pytest.raises(ConfigError) as caught:
        place.init()
    name = place.dataset.name
    assert str(caught.value).splitlines() == [
        (
            f"{name}.instances: is not clustered by "
            "event, StudyInstanceUID, SeriesInstanceUID, SOPInstanceUID"
        ),
        f"{name}.instances: column info.input.size is STRING, not INTEGER",
        f"{name}.instances: column path is missing, and a REQUIRED column cannot be added",
        f"{name}.dead_letter: is not partitioned by MONTH of column publish_time",
        f"{name}.studies: is a TABLE, not a VIEW",
        f"{name}.study: is a SCALAR_FUNCTION, not a TABLE_VALUED_FUNCTION",
        "nothing was changed",
    ]
    assert place.snapshot() == before


def test_a_view_in_place_of_a_table_is_refused(definitions: dict[str, Definition]) -> None:
    found = {**definitions["studies"].resource}
    assert compare(found, definitions["dead_letter"]).refusals == ["is a VIEW, not a TABLE"]


@pytest.mark.parametrize("path", ["info.bytes_read", "info.input.crc32c"])
def test_a_change_that_bigquery_ignored_is_an_error(place: Place, path: str) -> None:
    """The local BigQuery accepts new columns inside RECORDs without adding them."""
    place.create("instances", lambda table: without(table, path))
    with pytest.raises(ServiceError) as caught:
        place.init()
    assert str(caught.value) == (
        f"BigQuery: {place.dataset.name}.instances: a change was accepted but not made: "
        f"column {path} added"
    )


# What the service itself returns cannot be seen here: by its documentation it uses its own
# names for types and fills in or leaves out defaults.


def as_stored(resource: Any) -> Any:
    """Return a resource in which everything with two spellings has the other one."""
    types = {"INTEGER": "INT64", "RECORD": "STRUCT", "BOOLEAN": "BOOL", "FLOAT": "FLOAT64"}
    if isinstance(resource, Sequence) and not isinstance(resource, str):
        return [as_stored(each) for each in resource]
    if not isinstance(resource, Mapping):
        return resource
    stored = {key: as_stored(value) for key, value in resource.items()}
    if stored.get("mode") == "NULLABLE":
        del stored["mode"]
    if stored.get("type") in types:
        stored["type"] = types[stored["type"]]
    if "timePartitioning" in stored:
        stored["timePartitioning"]["expirationMs"] = "31536000000"
    return {**stored, "etag": "x", "numBytes": "0"}


@pytest.mark.parametrize("name", NAMES)
def test_other_spellings_are_not_differences(definitions: dict[str, Definition], name: str) -> None:
    definition = definitions[name]
    assert compare(as_stored(definition.resource), definition).changes == []
    assert compare(as_stored(definition.resource), definition).refusals == []


@pytest.mark.parametrize("name", ["studies", "study"])
def test_layout_and_comments_of_a_query_are_not_differences(
    definitions: dict[str, Definition], name: str
) -> None:
    definition = definitions[name]
    assert definition.sql is not None
    lines = [each for each in definition.sql.splitlines() if not each.lstrip().startswith("--")]
    other = " ".join(lines) + "\n/* by\nhand */"
    resource = {**definition.resource, "view": {"query": other}, "definitionBody": other}
    if definition.kind is DefinitionKind.FUNCTION:
        del resource["view"]
    assert compare(resource, definition).changes == []


def test_another_query_is_a_difference(definitions: dict[str, Definition]) -> None:
    """White space and dashes inside a string are not layout."""
    definition = definitions["dead_letters"]
    assert definition.sql is not None
    for old, new in [("' deliveries", "'deliveries"), ("'gs://'", "'gs://--'"), ("AND", "OR")]:
        other = {"view": {"query": definition.sql.replace(old, new)}}
        assert compare({**definition.resource, **other}, definition).changes == ["query"]


def test_expiring_rows_are_reported(definitions: dict[str, Definition]) -> None:
    """The sandbox, or a default of the dataset, makes rows expire."""
    found = copy.deepcopy(definitions["instances"].resource)
    found["timePartitioning"]["expirationMs"] = "5184000000"
    assert compare(found, definitions["instances"]).notes == [
        "rows expire after 60 days and then vanish from every view"
    ]


def test_other_properties_of_a_column_are_kept(definitions: dict[str, Definition]) -> None:
    """Such as policy tags, which the owner sets."""
    definition = definitions["instances"]
    found = copy.deepcopy(definition.resource)
    column(found, "PatientID").update(description="old", policyTags={"names": ["t"]})
    merged = {"schema": {"fields": compare(found, definition).fields}}
    assert column(merged, "PatientID")["policyTags"] == {"names": ["t"]}
    assert column(merged, "PatientID")["description"] == "(0010,0020) from the header"


@pytest.mark.usefixtures("tables_only")
def test_a_table_made_with_other_privacy_options_is_refused(place: Place) -> None:
    hashed = msgspec.structs.replace(place.config, privacy=Privacy(hash=("PatientID",)))
    init(place.dataset, hashed)
    labels = (place.dataset.get_table("instances") or {})["labels"]
    assert labels == {"dcm2bq_privacy": hashed.privacy.fingerprint}
    assert {each.action for each in init(place.dataset, hashed)} == {SchemaAction.UNCHANGED}
    others = [
        Privacy(),
        Privacy(hash=("PatientID", "PatientName")),
        Privacy(hash=("PatientID",), key_version="2"),
    ]
    for other in others:
        with pytest.raises(ConfigError, match="made with other privacy options"):
            init(place.dataset, msgspec.structs.replace(place.config, privacy=other))


TAGS = {"names": ["projects/p/locations/eu/taxonomies/1/policyTags/2"]}


def hospital_changes(place: Place) -> dict[str, Any]:
    """Let a hospital add tags, labels and columns to `instances`; return the table."""
    table = place.dataset.get_table("instances") or {}
    for path in ("PatientID", "info.warnings"):
        column(table, path)["policyTags"] = TAGS
    table["schema"]["fields"] += [
        {"name": "Ward", "type": "STRING", "description": "Where", "policyTags": TAGS},
        {
            "name": "Visit",
            "type": "RECORD",
            "mode": "REPEATED",
            "fields": [{"name": "number", "type": "STRING", "policyTags": TAGS}],
        },
    ]
    changed = {**table, "labels": {**(table.get("labels") or {}), "cost_centre": "radiology"}}
    place.dataset.patch_table(changed, ["schema", "labels"])
    return place.dataset.get_table("instances") or {}


@pytest.mark.usefixtures("tables_only")
def test_an_update_keeps_what_others_added_to_a_table(place: Place) -> None:
    place.create("instances", lambda table: without(table, "Modality", "metadata"))
    before = hospital_changes(place)
    assert column(before, "info.warnings")["policyTags"] == TAGS
    assert place.init()["instances"].action is SchemaAction.UPDATED
    after = place.dataset.get_table("instances") or {}
    assert after["labels"] == {"cost_centre": "radiology"}
    kept = after["schema"]["fields"][: len(before["schema"]["fields"])]
    assert kept == before["schema"]["fields"]
    added = after["schema"]["fields"][len(kept) :]
    assert [each["name"] for each in added] == ["Modality", "metadata"]


@pytest.mark.usefixtures("live_view_only")
def test_a_replaced_view_keeps_the_descriptions_of_columns_that_others_added(place: Place) -> None:
    place.init()
    hospital_changes(place)
    place.sql("CREATE OR REPLACE VIEW `D.instances_live` AS SELECT * FROM `D.instances`")
    view = place.dataset.get_table("instances_live") or {}
    column(view, "Ward")["description"] = "Where the patient was"
    place.dataset.patch_table(view, ["schema"])
    assert "query" in place.init()["instances_live"].details
    view = place.dataset.get_table("instances_live") or {}
    assert column(view, "Ward")["description"] == "Where the patient was"
    assert column(view, "PatientID")["description"] == "(0010,0020) from the header"
    assert actions(place.init()) == {}


class Intruder(Proxy):
    """The local BigQuery, where somebody sets a label just before each change of `instances`."""

    def take_fault(self, line: str, body: bytes) -> Fault | None:
        if line.startswith("PATCH") and "/tables/instances?" in line.replace(" ", "?"):
            url = f"http://{self._upstream}{line.split()[1]}"
            requests.patch(url, json={"labels": {"theirs": "x"}}, timeout=60).raise_for_status()
        return super().take_fault(line, body)


@pytest.mark.usefixtures("tables_only")
def test_a_table_that_changes_meanwhile_is_not_overwritten(place: Place, bigquery_url: str) -> None:
    place.create("instances", lambda table: without(table, "Modality"))
    with Intruder(bigquery_url).running() as proxy:
        dataset = datasets.connect(proxy.url, place.config)
        with pytest.raises(ServiceError, match="instances: was changed by someone else: try again"):
            init(dataset, place.config)
    table = place.dataset.get_table("instances") or {}
    assert table["labels"] == {"theirs": "x"}
    assert "Modality" not in {each["name"] for each in table["schema"]["fields"]}
    assert place.init()["instances"].details == ("column Modality added",)


KEY = "SENTINEL-key-of-the-pseudonyms"


@pytest.mark.usefixtures("tables_only")
def test_a_table_accepts_pseudonyms_of_one_key(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same key with a newline at its end is the same key."""
    hashed = msgspec.structs.replace(place.config, privacy=Privacy(hash=("PatientID",)))
    monkeypatch.setenv("DCM2BQ_HASH_KEY", KEY)
    init(place.dataset, hashed)
    labels = (place.dataset.get_table("instances") or {})["labels"]
    assert labels == {
        "dcm2bq_privacy": hashed.privacy.fingerprint,
        "dcm2bq_key": hash_key.digest(hashed.privacy),
    }
    monkeypatch.setenv("DCM2BQ_HASH_KEY", f"{KEY}\n")
    assert {each.action for each in init(place.dataset, hashed)} == {SchemaAction.UNCHANGED}
    privacy_rules.cache_clear()
    monkeypatch.setenv("DCM2BQ_HASH_KEY", f"{KEY}2")
    for refused in (init, indexing.require_table):
        with pytest.raises(ConfigError, match="pseudonyms made with another key") as caught:
            refused(place.dataset, hashed)
        assert "SENTINEL" not in str(caught.value)
    monkeypatch.delenv("DCM2BQ_HASH_KEY")
    entries = {each.name: each for each in init(place.dataset, hashed)}
    assert entries["instances"].action is SchemaAction.UNCHANGED
    assert entries["instances"].details == (
        "labelled with the digest of a key that is not known here",
    )


@pytest.mark.usefixtures("tables_only")
def test_a_table_without_the_digest_of_a_key_is_accepted_and_labelled(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Terraform, which does not know the key, makes such tables, and so did earlier releases."""
    hashed = msgspec.structs.replace(place.config, privacy=Privacy(hash=("PatientID",)))
    init(place.dataset, hashed)
    table = place.dataset.get_table("instances") or {}
    table["labels"] |= {"cost_centre": "radiology"}
    place.dataset.patch_table(table, ["labels"])
    privacy_rules.cache_clear()
    monkeypatch.setenv("DCM2BQ_HASH_KEY", KEY)
    indexing.require_table(place.dataset, hashed)
    planned = init(place.dataset, hashed, dry_run=True)
    assert (place.dataset.get_table("instances") or {})["labels"] == table["labels"]
    assert init(place.dataset, hashed) == planned
    assert planned[1].details == (
        "label dcm2bq_key added: from now on, only the key in use is accepted",
    )
    after = place.dataset.get_table("instances") or {}
    assert after["labels"] == {
        "cost_centre": "radiology",
        "dcm2bq_privacy": hashed.privacy.fingerprint,
        "dcm2bq_key": hash_key.digest(hashed.privacy),
    }
    assert {each.action for each in init(place.dataset, hashed)} == {SchemaAction.UNCHANGED}


def test_a_key_that_is_too_short_labels_no_table(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed = msgspec.structs.replace(place.config, privacy=Privacy(hash=("PatientID",)))
    monkeypatch.setenv("DCM2BQ_HASH_KEY", "short")
    with pytest.raises(ConfigError, match="must hold 16 bytes"):
        init(place.dataset, hashed)
    assert place.dataset.get() is None


@pytest.mark.usefixtures("tables_only")
def test_a_table_made_without_privacy_options_stays_without(place: Place) -> None:
    place.init()
    private = msgspec.structs.replace(place.config, privacy=Privacy(remove=("PatientID",)))
    with pytest.raises(ConfigError, match="made with other privacy options"):
        init(place.dataset, private)
