"""The tables, views and table functions as files, and the loader that substitutes their names.

`NAME.json` is a resource of BigQuery's REST API: a table, a view or a table function (a routine).
`NAME.sql` is the query of a view or table function. The files write names as
`${project}.${dataset}.${instances}`, a form that Terraform's `templatefile` reads as well.
`${filled}` and the other names in `FRAGMENTS` stand for parts that several queries share.
"""

import json
from dataclasses import dataclass
from enum import StrEnum
from importlib import resources
from string import Template
from typing import Any

from dcm2bq import hash_key
from dcm2bq.config import Config

NAMES = (
    "instances",
    "dead_letter",
    "instances_live",
    "studies",
    "series",
    "patients",
    "dead_letters",
    "dismissed_letters",
    "study",
    "ingested_between",
    "changes_between",
)
"""The files, in an order in which their objects can be created."""

FRAGMENTS = ("filled", "hides", "supersedes", "newest", "closes")
"""The files `NAME.sql` that are parts of queries; they contain no names to substitute."""

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
    and `sql` is the query, or None for a table.
    """

    kind: DefinitionKind
    name: str
    qualified_name: str
    resource: dict[str, Any]
    sql: str | None = None

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
    """Return all objects of the configured dataset in `project`, in order of creation.

    `instances` has the label of the key only if the key is known to this process.
    """
    names = {
        "project": project,
        "dataset": config.big_query.dataset_id,
        "instances": config.big_query.instances_table_id,
        "dead_letter": config.big_query.dead_letter_table_id,
        **{name: _read(f"{name}.sql") for name in FRAGMENTS},
    }
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
