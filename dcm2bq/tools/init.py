"""Create the dataset with its tables, views and table functions, or bring them up to date.

What cannot be changed without loss (a column's type, the partitioning) is refused before
anything is changed. What was changed is read back, since a service may accept a change and
not make it.
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


class Action(StrEnum):
    """What was done, or would be."""

    CREATED = "created"
    UPDATED = "updated"
    UNCHANGED = "unchanged"


@dataclass(frozen=True, slots=True)
class Entry:
    """One object; `details` are the changes made to it, and what was left alone."""

    kind: str
    name: str
    action: Action
    details: tuple[str, ...] = ()

    def outcome(self, *, dry_run: bool) -> str:
        """What was done; of a dry run, what would be."""
        is_change = self.action is not Action.UNCHANGED
        return f"would be {self.action}" if dry_run and is_change else str(self.action)


@dataclass(frozen=True, slots=True)
class _Step:
    """A definition, what is there now, and how it differs; `found` is None for nothing."""

    definition: Definition
    found: dict[str, Any] | None
    difference: SchemaDifference

    @property
    def entry(self) -> Entry:
        if self.found is None:
            action = Action.CREATED
        else:
            action = Action.UPDATED if self.difference.changes else Action.UNCHANGED
        details = (*self.difference.changes, *self.difference.notes)
        return Entry(self.definition.kind, self.definition.name, action, details)


def init(
    dataset: Dataset, config: Config, *, location: str | None = None, dry_run: bool = False
) -> tuple[Entry, ...]:
    """Make the dataset hold what the definitions say; return an entry for each object.

    The dataset itself comes first; a missing one is created in `location`, by default where
    BigQuery puts it. With `dry_run` nothing is changed. Raises `ConfigError` for what cannot
    be changed, naming table and column, before anything was changed; `ServiceError` where
    BigQuery did not make a change that it accepted.
    """
    refuse_equal_names(config)
    definitions = schema.load(config, dataset.project)
    found = dataset.get()
    _refuse_other_location(dataset, found, location)
    steps = [_compare(dataset, definition) for definition in definitions]
    _refuse(steps)
    if not dry_run:
        if found is None:
            dataset.create(location)
        for step in steps:
            _apply(dataset, step)
            _check(dataset, step)
    action = Action.CREATED if found is None else Action.UNCHANGED
    return (Entry("dataset", dataset.name, action), *(step.entry for step in steps))


def refuse_equal_names(config: Config) -> None:
    """Raise `ConfigError` for a table that is named as another, or as a view."""
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
    dataset: Dataset, found: Mapping[str, Any] | None, location: str | None
) -> None:
    if found is None or location is None:
        return
    if found["location"].casefold() != location.casefold():
        raise ConfigError(f"{dataset.name} is in {found['location']}, not in {location}")


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
    found = get(definition.name)
    difference = SchemaDifference() if found is None else compare(found, definition)
    return _Step(definition, found, difference)


def _apply(dataset: Dataset, step: _Step) -> None:
    if step.entry.action is Action.UNCHANGED:
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
    if step.found is None:
        dataset.create_table(resource)
    else:
        columns = {"fields": step.difference.fields}
        dataset.patch_table({**resource, "schema": columns}, ["schema", "description"])


def _apply_view(dataset: Dataset, step: _Step) -> None:
    """Set the query before the columns' descriptions: BigQuery takes no call with both."""
    resource = {**step.definition.resource, "labels": (step.found or {}).get("labels", {})}
    if step.found is None:
        dataset.create_table({key: value for key, value in resource.items() if key != "schema"})
    else:
        if step.difference.replace:
            # The columns of a `SELECT *` are renewed by the statement alone, which drops the
            # labels; the patch brings them back, and the query's text to the letter.
            dataset.query(step.definition.ddl)
        dataset.patch_table(resource, ["view", "description", "labels"])
    columns = _compare(dataset, step.definition).difference.fields
    dataset.patch_table({**resource, "schema": {"fields": columns}}, ["schema"])


def _check(dataset: Dataset, step: _Step) -> None:
    """Raise `ServiceError` when the change is not there."""
    if step.entry.action is Action.UNCHANGED:
        return
    again = _compare(dataset, step.definition)
    missing = [*again.difference.changes, *again.difference.refusals]
    if again.found is None or missing:
        what = ", ".join(missing) or "it is not there"
        raise ServiceError(
            f"BigQuery: {step.definition.qualified_name}: a change was accepted and not made: "
            f"{what}"
        )
