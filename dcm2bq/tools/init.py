"""Create or update the dataset with its tables, views and table functions.

A change that would lose data (a column's type, the partitioning) is refused before anything is
changed. Every change is read back, since a service may accept a change without making it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from dcm2bq import schema
from dcm2bq.bigquery.dataset import Dataset
from dcm2bq.config import Config
from dcm2bq.errors import ConfigError, ServiceError
from dcm2bq.schema import Definition, DefinitionKind
from dcm2bq.schema.compare import SchemaDifference, compare


class SchemaAction(StrEnum):
    """What was done to an object of the dataset, or would be."""

    CREATED = "created"
    UPDATED = "updated"
    UNCHANGED = "unchanged"


@dataclass(frozen=True, slots=True)
class SchemaEntry:
    """An object of the dataset; `details` are its changes, and differences left as they are."""

    kind: str
    name: str
    action: SchemaAction
    details: tuple[str, ...] = ()

    def outcome(self, *, dry_run: bool) -> str:
        """What was done or, in a dry run, what would be done."""
        is_change = self.action is not SchemaAction.UNCHANGED
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
    dataset: Dataset, config: Config, *, location: str | None = None, dry_run: bool = False
) -> tuple[SchemaEntry, ...]:
    """Create or update the dataset to match the definitions; return an entry for each object.

    The dataset's own entry comes first. A missing dataset is created in `location`, by default
    in BigQuery's default location. With `dry_run` nothing is changed. Raises `ConfigError`,
    naming table and column, before changing anything if a change is impossible; raises
    `ServiceError` if BigQuery accepted a change but did not make it.
    """
    refuse_equal_names(config)
    definitions = schema.load(config, dataset.project)
    existing = dataset.get()
    _refuse_other_location(dataset, existing, location)
    steps = [_compare(dataset, definition) for definition in definitions]
    _refuse(steps)
    if not dry_run:
        if existing is None:
            dataset.create(location)
        for step in steps:
            _apply(dataset, step)
            _check(dataset, step)
    action = SchemaAction.CREATED if existing is None else SchemaAction.UNCHANGED
    return (SchemaEntry("dataset", dataset.name, action), *(step.entry for step in steps))


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
    resource = step.definition.resource
    if step.existing is None:
        dataset.create_table(resource)
    else:
        columns = {"fields": step.difference.fields}
        dataset.patch_table({**resource, "schema": columns}, ["schema", "description"])


def _apply_view(dataset: Dataset, step: _Step) -> None:
    """Set the query, then the descriptions of columns: BigQuery accepts no call with both."""
    resource = {**step.definition.resource, "labels": (step.existing or {}).get("labels", {})}
    if step.existing is None:
        dataset.create_table({key: value for key, value in resource.items() if key != "schema"})
    else:
        if step.difference.replace:
            # Only the statement renews the columns of a `SELECT *`, but it drops the labels and
            # may reformat the query; the patch restores both.
            dataset.query(step.definition.ddl)
        dataset.patch_table(resource, ["view", "description", "labels"])
    columns = _compare(dataset, step.definition).difference.fields
    dataset.patch_table({**resource, "schema": {"fields": columns}}, ["schema"])


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
