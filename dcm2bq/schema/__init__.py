"""The tables, views and table functions as files, and the loader that fills in their names.

`NAME.json` is a whole resource of BigQuery's REST API: of a table, a view or a table function
(a routine). For the latter two `NAME.sql` holds the query. The files name things as
`${project}.${dataset}.${instances}`, which Terraform's `templatefile` reads as well;
`${filled}` stands for `filled.sql`, which several queries have in common.
"""

import json
from dataclasses import dataclass
from enum import StrEnum
from importlib import resources
from string import Template
from typing import Any

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


PRIVACY_LABEL = "dcm2bq_privacy"
"""The label of `instances` that tells by which `privacy` options its rows were made."""


class Kind(StrEnum):
    """What an object of the dataset is."""

    TABLE = "table"
    VIEW = "view"
    FUNCTION = "function"


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """One object as it must be: `resource` as in the REST API, its query included.

    `qualified_name` is `project.dataset.name`; `sql` is the query, and None for a table.
    """

    kind: Kind
    name: str
    qualified_name: str
    resource: dict[str, Any]
    sql: str | None = None

    @property
    def ddl(self) -> str:
        """The statement that creates or replaces a view or table function."""
        if self.kind is Kind.VIEW:
            return f"CREATE OR REPLACE VIEW `{self.qualified_name}` AS\n{self.sql}"
        arguments = ", ".join(
            f"{each['name']} {each['dataType']['typeKind']}" for each in self.resource["arguments"]
        )
        description = json.dumps(self.resource["description"])
        return (
            f"CREATE OR REPLACE TABLE FUNCTION `{self.qualified_name}`({arguments})\n"
            f"OPTIONS (description = {description})\n"
            f"AS\n{self.sql}"
        )


def load(config: Config, project: str) -> tuple[Definition, ...]:
    """Return every object of the configured dataset in `project`, in the order of creation."""
    names = {
        "project": project,
        "dataset": config.big_query.dataset_id,
        "instances": config.big_query.instances_table_id,
        "dead_letter": config.big_query.dead_letter_table_id,
        "filled": _read("filled.sql"),
    }
    definitions = tuple(_definition(file, names) for file in NAMES)
    if config.privacy.is_on:
        definitions[0].resource["labels"] = {PRIVACY_LABEL: config.privacy.fingerprint}
    return definitions


def _definition(file: str, names: dict[str, str]) -> Definition:
    resource = json.loads(_render(f"{file}.json", names))
    kind, name = _identify(resource)
    sql = None if kind is Kind.TABLE else _render(f"{file}.sql", names)
    if kind is Kind.VIEW:
        resource["view"] = {"query": sql, "useLegacySql": False}
    elif kind is Kind.FUNCTION:
        resource["definitionBody"] = sql
    return Definition(
        kind=kind,
        name=name,
        qualified_name=f"{names['project']}.{names['dataset']}.{name}",
        resource=resource,
        sql=sql,
    )


def _identify(resource: dict[str, Any]) -> tuple[Kind, str]:
    if "routineReference" in resource:
        return Kind.FUNCTION, resource["routineReference"]["routineId"]
    kind = Kind.VIEW if resource.get("type") == "VIEW" else Kind.TABLE
    return kind, resource["tableReference"]["tableId"]


def _render(file: str, names: dict[str, str]) -> str:
    return Template(_read(file)).substitute(names)


def _read(file: str) -> str:
    return resources.files(__package__).joinpath(file).read_text(encoding="utf-8")
