"""The tables, views and table functions as files, and the loader that substitutes their names.

`NAME.json` is a resource of BigQuery's REST API: a table, a view or a table function (a routine).
`NAME.sql` is the query of a view or table function. A table function that does not return rows of
`instances_live` has `columns` too: BigQuery infers them, but has no place for their descriptions.
The files write names as
`${project}.${dataset}.${instances}`, a form that Terraform's `templatefile` reads as well.
`${filled}` and the other names in `FRAGMENTS` stand for parts that several queries share.
The folders: `tables`; `live` for the objects that exist; `objects` for look-ups at any scale;
`dead_letters`; `analysis` for views that read the inside of headers, by subject; `compaction`.
"""

import json
from dataclasses import dataclass
from enum import StrEnum
from importlib import resources
from string import Template
from typing import Any

from dcm2bq import hash_key
from dcm2bq.config import Config, JsonOutput

NAMES = (
    "tables/instances",
    "tables/dead_letter",
    "tables/objects",
    "tables/protocol_reference",
    "tables/dicom_dictionary",
    "live/instances_live",
    "live/studies",
    "live/series",
    "live/patients",
    "live/storage",
    "objects/objects_live",
    "dead_letters/dead_letters",
    "dead_letters/dismissed_letters",
    "analysis/reports/sr_content",
    "analysis/reports/sr_measurements",
    "analysis/reports/dose_events",
    "analysis/reports/dose_summary",
    "analysis/series/series_attributes",
    "analysis/series/series_geometry",
    "analysis/quality/quality_findings",
    "analysis/fleet/devices",
    "analysis/fleet/protocols",
    "analysis/private/private_creators",
    "analysis/private/private_elements",
    "analysis/regions/segments",
    "analysis/regions/rois",
    "live/study",
    "live/ingested_between",
    "live/changes_between",
    "analysis/fleet/protocol_deviations",
    "analysis/private/private_element",
)
"""The files, in an order in which their objects can be created."""

FRAGMENTS = (
    "live/filled",
    "live/hides",
    "live/supersedes",
    "live/newest",
    "objects/object_key",
    "objects/object_columns",
    "objects/overlap",
    "dead_letters/closes",
    "analysis/first_copy",
    "analysis/reports/dose_units",
    "analysis/fleet/parameters",
)
"""The files `NAME.sql` that are parts of queries; they contain no names to substitute."""

STATEMENTS = (
    "objects/refresh_from",
    "objects/refresh",
    "compaction/compaction_plan",
    "compaction/compaction",
)
"""The files `NAME.sql` that are statements: those of `dcm2bq refresh` and `dcm2bq compact`.

Terraform can schedule the first two: in its script `${since}` is a variable instead of a parameter.
"""

PRIVACY_LABEL = "dcm2bq_privacy"
"""The label of `instances` with the fingerprint of the `privacy` options that made its rows."""
KEY_LABEL = "dcm2bq_key"
"""The label of `instances` with the digest of the key of the pseudonyms in its rows."""


class DefinitionKind(StrEnum):
    """The kinds of objects in the dataset."""

    TABLE = "table"
    VIEW = "view"
    FUNCTION = "function"


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """How an object of the dataset must be.

    `resource` is its REST resource with the query, `qualified_name` is `project.dataset.name`,
    and `sql` is the query, or None for a table. An analysis view or function reads the inside of
    headers, which it can only if they are stored as `unmet_needs` demands.
    """

    kind: DefinitionKind
    name: str
    qualified_name: str
    resource: dict[str, Any]
    sql: str | None = None
    is_analysis: bool = False

    @property
    def ddl(self) -> str:
        """The statement that creates or replaces the view or table function."""
        if self.kind is DefinitionKind.VIEW:
            return f"CREATE OR REPLACE VIEW `{self.qualified_name}` AS\n{self.sql}"
        arguments = ", ".join(
            f"{argument['name']} {argument['dataType']['typeKind']}"
            for argument in self.resource["arguments"]
        )
        description = json.dumps(self.resource["description"])
        return (
            f"CREATE OR REPLACE TABLE FUNCTION `{self.qualified_name}`({arguments})\n"
            f"OPTIONS (description = {description})\n"
            f"AS\n{self.sql}"
        )


def load(config: Config, project: str) -> tuple[Definition, ...]:
    """Return the objects that the configured dataset must have, in order of creation.

    `instances` has the label of the key only if the key is known to this process.
    """
    is_readable = not unmet_needs(config.json_output)
    return tuple(
        definition
        for definition in _definitions(config, project)
        if is_readable or not definition.is_analysis
    )


def statement(file: str, config: Config, project: str) -> str:
    """Return one of `STATEMENTS` for the configured dataset."""
    return _render(f"{file}.sql", _names(config, project))


def left_out(config: Config, project: str) -> tuple[Definition, ...]:
    """Return the analysis views and functions that the configured dataset cannot have."""
    if not unmet_needs(config.json_output):
        return ()
    return tuple(
        definition for definition in _definitions(config, project) if definition.is_analysis
    )


def unmet_needs(options: JsonOutput) -> tuple[str, ...]:
    """Return the options that analysis views need and that are set otherwise; none by default.

    Terraform has the same list.

    >>> unmet_needs(JsonOutput(format="dicom-json"))
    ('jsonOutput.format flat',)
    """
    needs = {
        "jsonOutput.format flat": options.format == "flat",
        "jsonOutput.useCommonNames true": options.use_common_names,
        "jsonOutput.useArrayWithSingleValue false": not options.use_array_with_single_value,
    }
    return tuple(need for need, is_met in needs.items() if not is_met)


def _names(config: Config, project: str) -> dict[str, str]:
    return {
        "project": project,
        "dataset": config.big_query.dataset_id,
        "instances": config.big_query.instances_table_id,
        "dead_letter": config.big_query.dead_letter_table_id,
        "since": "@since",
        **{file.rpartition("/")[2]: _read(f"{file}.sql") for file in FRAGMENTS},
    }


def _definitions(config: Config, project: str) -> tuple[Definition, ...]:
    names = _names(config, project)
    definitions = tuple(_definition(file, names) for file in NAMES)
    if config.privacy.is_on:  # rows are in the first one, `instances`
        labels = {
            PRIVACY_LABEL: config.privacy.fingerprint,
            KEY_LABEL: hash_key.digest(config.privacy),
        }
        definitions[0].resource["labels"] = {
            name: value for name, value in labels.items() if value is not None
        }
    return definitions


def _definition(file: str, names: dict[str, str]) -> Definition:
    resource = json.loads(_render(f"{file}.json", names))
    kind, name = _identify(resource)
    sql = None if kind is DefinitionKind.TABLE else _render(f"{file}.sql", names)
    if kind is DefinitionKind.VIEW:
        resource["view"] = {"query": sql, "useLegacySql": False}
    elif kind is DefinitionKind.FUNCTION:
        resource["definitionBody"] = sql
    return Definition(
        kind=kind,
        name=name,
        qualified_name=f"{names['project']}.{names['dataset']}.{name}",
        resource=resource,
        sql=sql,
        is_analysis=file.startswith("analysis/"),
    )


def _identify(resource: dict[str, Any]) -> tuple[DefinitionKind, str]:
    if "routineReference" in resource:
        return DefinitionKind.FUNCTION, resource["routineReference"]["routineId"]
    kind = DefinitionKind.VIEW if resource.get("type") == "VIEW" else DefinitionKind.TABLE
    return kind, resource["tableReference"]["tableId"]


def _render(file: str, names: dict[str, str]) -> str:
    return Template(_read(file)).substitute(names)


def _read(file: str) -> str:
    return resources.files(__package__).joinpath(file).read_text(encoding="utf-8")
