"""Create or update the dataset with its tables, views and table functions.

A change that would lose data (a column's type, the partitioning) is refused before anything is
changed. Every change is read back, since a service may accept a change without making it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from dcm2bq import schema, secret_manager
from dcm2bq.bigquery.dataset import Dataset
from dcm2bq.config import Config
from dcm2bq.errors import ConfigError, ServiceError
from dcm2bq.schema import Definition, DefinitionKind
from dcm2bq.schema.compare import SchemaDifference, compare, fields_of


class SchemaAction(StrEnum):
    """What was done to an object of the dataset, or would be."""

    CREATED = "created"
    UPDATED = "updated"
    UNCHANGED = "unchanged"
    LEFT_OUT = "left out"


@dataclass(frozen=True, slots=True)
class SchemaEntry:
    """An object of the dataset; `details` are its changes, and differences left as they are."""

    kind: str
    name: str
    action: SchemaAction
    details: tuple[str, ...] = ()

    def outcome(self, *, dry_run: bool) -> str:
        """What was done or, in a dry run, what would be done."""
        is_change = self.action in {SchemaAction.CREATED, SchemaAction.UPDATED}
        return f"would be {self.action}" if dry_run and is_change else str(self.action)


@dataclass(frozen=True, slots=True)
class _Step:
    """A definition and how the existing object differs; `existing` is None if there is none."""

    definition: Definition
    existing: dict[str, Any] | None
    difference: SchemaDifference

    @property
    def entry(self) -> SchemaEntry:
        if self.existing is None:
            action = SchemaAction.CREATED
        else:
            action = SchemaAction.UPDATED if self.difference.changes else SchemaAction.UNCHANGED
        details = (*self.difference.changes, *self.difference.notes)
        return SchemaEntry(self.definition.kind, self.definition.name, action, details)


def init(
    dataset: Dataset,
    config: Config,
    *,
    location: str | None = None,
    close: bool = False,
    dry_run: bool = False,
) -> tuple[SchemaEntry, ...]:
    """Create or update the dataset to match the definitions; return an entry for each object.

    The dataset's own entry comes first; those of analysis views that it cannot have come last. A
    missing dataset is created, closed, in `location`, by default in BigQuery's default location; an
    existing one is closed if `close` is set. With `dry_run` nothing is changed. Raises
    `ConfigError`, naming table and column, before changing anything if a change is impossible;
    raises `ServiceError` if BigQuery accepted a change but did not make it.
    """
    refuse_equal_names(config)
    if config.privacy.needs_key:
        secret_manager.provide_hash_key(config.privacy)
    definitions = schema.load(config, dataset.project)
    existing = dataset.get()
    _refuse_other_location(dataset, existing, location)
    steps = [_compare(dataset, definition) for definition in definitions]
    _refuse(steps)
    entry = _dataset_entry(dataset, existing, close=close)
    if not dry_run:
        if existing is None:
            dataset.create(location)
        if existing is None or close:
            dataset.access.close()
        for step in steps:
            _apply(dataset, step)
            _check(dataset, step)
    return (entry, *(step.entry for step in steps), *_left_out(dataset, config))


def apply_view(dataset: Dataset, definition: Definition) -> SchemaEntry:
    """Create a view that is not one of the dataset's own, or update it; its labels are added."""
    step = _compare(dataset, definition)
    labels = definition.resource.get("labels", {})
    if step.existing is not None and labels.items() - (step.existing.get("labels") or {}).items():
        step.difference.changes.append("labels")
    _apply(dataset, step)
    _check(dataset, step)
    return step.entry


def _dataset_entry(
    dataset: Dataset, existing: Mapping[str, Any] | None, *, close: bool
) -> SchemaEntry:
    """Return the dataset's own entry, with those of its access list that open it."""
    if existing is None:
        return SchemaEntry("dataset", dataset.name, SchemaAction.CREATED)
    access = dataset.access.read()
    details: tuple[str, ...] = ()
    action = SchemaAction.UNCHANGED
    if access is None:
        details = ("its access list is not visible to you: it may be open",)
    elif access.openings and close:
        action = SchemaAction.UPDATED
        details = tuple(f"{opening} removed" for opening in access.openings)
    elif access.openings:
        details = (f"open ({', '.join(access.openings)}): run dcm2bq init --close to remove these",)
    return SchemaEntry("dataset", dataset.name, action, details)


def _left_out(dataset: Dataset, config: Config) -> Iterator[SchemaEntry]:
    """Yield an entry for each analysis view that the `jsonOutput` options rule out.

    One that exists was created with other options. It still reads the rows of that time, so it is
    not dropped.
    """
    needs = f"needs {', '.join(schema.unmet_needs(config.json_output))}"
    for definition in schema.left_out(config, dataset.project):
        is_there = _compare(dataset, definition).existing is not None
        kept = ("exists and is left alone: rows stored with these options are not shown in it",)
        details = (needs, *(kept if is_there else ()))
        yield SchemaEntry(definition.kind, definition.name, SchemaAction.LEFT_OUT, details)


def refuse_equal_names(config: Config) -> None:
    """Raise `ConfigError` if a table has the name of another table or of a view."""
    seen: set[str] = set()
    for definition in schema.load(config, ""):
        if definition.kind is DefinitionKind.FUNCTION:
            continue
        if definition.name.casefold() in seen:
            raise ConfigError(
                "bigQuery.instancesTableId and bigQuery.deadLetterTableId: "
                f"{definition.name} is the name of another table or view"
            )
        seen.add(definition.name.casefold())


def _refuse_other_location(
    dataset: Dataset, existing: Mapping[str, Any] | None, location: str | None
) -> None:
    if existing is None or location is None:
        return
    if existing["location"].casefold() != location.casefold():
        raise ConfigError(f"{dataset.name} is in {existing['location']}, not in {location}")


def _refuse(steps: Sequence[_Step]) -> None:
    refusals = [
        f"{step.definition.qualified_name}: {refusal}"
        for step in steps
        for refusal in step.difference.refusals
    ]
    if refusals:
        raise ConfigError("\n".join([*refusals, "nothing was changed"]))


def _compare(dataset: Dataset, definition: Definition) -> _Step:
    get = dataset.get_routine if definition.kind is DefinitionKind.FUNCTION else dataset.get_table
    existing = get(definition.name)
    difference = SchemaDifference() if existing is None else compare(existing, definition)
    return _Step(definition, existing, difference)


def _apply(dataset: Dataset, step: _Step) -> None:
    if step.entry.action is SchemaAction.UNCHANGED:
        return
    match step.definition.kind:
        case DefinitionKind.TABLE:
            _apply_table(dataset, step)
        case DefinitionKind.VIEW:
            _apply_view(dataset, step)
        case DefinitionKind.FUNCTION:
            dataset.query(step.definition.ddl)


def _apply_table(dataset: Dataset, step: _Step) -> None:
    """Create the table, or change what differs and keep everything else.

    Schema and labels are sent whole, so the table must not have changed since they were read.
    """
    resource, existing = step.definition.resource, step.existing
    if existing is None:
        dataset.create_table(resource)
        return
    merged = {
        "schema": {"fields": step.difference.fields},
        "description": resource["description"],
        "labels": (existing.get("labels") or {}) | resource.get("labels", {}),
    }
    before = {**existing, "schema": {"fields": fields_of(existing)}}
    changed = [name for name, value in merged.items() if value != (before.get(name) or {})]
    dataset.patch_table({**resource, **merged, "etag": existing.get("etag")}, changed)


def _apply_view(dataset: Dataset, step: _Step) -> None:
    """Set the query, then the descriptions of columns: BigQuery accepts no call with both."""
    resource = step.definition.resource
    labels = (step.existing or {}).get("labels", {}) | resource.get("labels", {})
    resource = {**resource, "labels": labels}
    if step.existing is None:
        dataset.create_table({key: value for key, value in resource.items() if key != "schema"})
    else:
        if step.difference.replace:
            # Only the statement renews the columns of a `SELECT *`, but it drops the labels and
            # may reformat the query; the patch restores both.
            dataset.query(step.definition.ddl)
        dataset.patch_table(resource, ["view", "description", "labels"])
    columns = _compare(dataset, step.definition).difference.fields
    if step.existing is not None and step.difference.replace:
        columns = _redescribed(columns, step.existing)
    dataset.patch_table({**resource, "schema": {"fields": columns}}, ["schema"])


def _redescribed(
    columns: Sequence[dict[str, Any]], existing: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return a replaced view's columns, those that are not ours described as before."""
    before = {column["name"]: column.get("description") for column in fields_of(existing)}
    return [
        column
        if column.get("description") or not before.get(column["name"])
        else {**column, "description": before[column["name"]]}
        for column in columns
    ]


def _check(dataset: Dataset, step: _Step) -> None:
    """Raise `ServiceError` unless the change was made."""
    if step.entry.action is SchemaAction.UNCHANGED:
        return
    again = _compare(dataset, step.definition)
    missing = [*again.difference.changes, *again.difference.refusals]
    if again.existing is None or missing:
        detail = ", ".join(missing) or "the object does not exist"
        raise ServiceError(
            f"BigQuery: {step.definition.qualified_name}: a change was accepted but not made: "
            f"{detail}"
        )
