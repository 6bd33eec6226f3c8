"""Whether the dataset is that of this release, and what a query for one study reads."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dcm2bq import schema
from dcm2bq.bigquery.dataset import Dataset
from dcm2bq.config import Config
from dcm2bq.schema import PRIVACY_LABEL, Definition, DefinitionKind
from dcm2bq.schema.compare import SchemaDifference, compare
from dcm2bq.tools.trial.lines import TrialLine, TrialResult, confirmed, not_tried, refuted

_INIT = "run dcm2bq init, or apply Terraform"
_MIB, _GIB = 1 << 20, 1 << 30
_TELLING_BYTES = _GIB
"""BigQuery reads whole blocks: on fewer bytes than that, a query that prunes reads all the same."""
_AFFORDABLE_BYTES = 20 * _GIB
"""Most bytes that a look at pruning may bill: some $0.12 at list price."""
_PRUNED = 2
"""A query for one study must read less than that part of everything."""
_NO_STUDY = "2.25.0"
_PRUNING_SQL = "SELECT COUNT(path) AS n FROM {source}"


@dataclass(frozen=True, slots=True)
class _Checked:
    definition: Definition
    existing: Mapping[str, Any] | None
    difference: SchemaDifference

    @property
    def is_table(self) -> bool:
        return self.definition.kind is DefinitionKind.TABLE

    @property
    def problems(self) -> list[str]:
        name = self.definition.name
        if self.existing is None:
            return [f"{self.definition.qualified_name} does not exist"]
        return [f"{name}: {text}" for text in (*self.difference.refusals, *self._changes)]

    @property
    def lacks_columns(self) -> bool:
        """Whether the function or a query fails for want of it, or of one of its columns."""
        if self.existing is None:
            return True
        columns = (self.existing.get("schema") or {}).get("fields") or []
        return self.definition.kind is DefinitionKind.TABLE and len(self.difference.fields) > len(
            columns
        )

    @property
    def _changes(self) -> list[str]:
        return [_as_state(change) for change in self.difference.changes]


class DatasetChecks:
    """Compares the dataset with this release, without changing anything."""

    def __init__(self, dataset: Dataset, config: Config) -> None:
        self._dataset = dataset
        self._checked = [
            self._compare(definition) for definition in schema.load(config, dataset.project)
        ]

    @property
    def blocking(self) -> str | None:
        """Why nothing can be uploaded yet: what is missing; None if all is there."""
        missing = [check.definition.name for check in self._checked if check.lacks_columns]
        return f"{', '.join(missing)}: missing or without columns" if missing else None

    def results(self) -> list[TrialResult]:
        """Return the lines about tables, views and privacy."""
        tables = [check for check in self._checked if check.is_table]
        others = [check for check in self._checked if not check.is_table]
        return [
            self._line(TrialLine.TABLES, tables),
            self._line(TrialLine.VIEWS, others),
            self._privacy(),
        ]

    def pruning(self) -> TrialResult:
        """Return the line about what a query for one study reads, on Google's BigQuery."""
        line = TrialLine.PRUNING
        if self.blocking:
            return not_tried(line, self.blocking)
        whole = self._dataset.bytes_processed(_PRUNING_SQL.format(source="instances_live"))
        bounds, worst = [], ""
        for source in ("study(@uid)", "instances_live WHERE StudyInstanceUID = @uid"):
            sql, uid = _PRUNING_SQL.format(source=source), {"uid": _NO_STUDY}
            read = self._dataset.bytes_processed(sql, uid)
            # A dry run gives an upper bound for clustered tables; only a run shows the truth.
            if read * _PRUNED >= whole >= _TELLING_BYTES and read <= _AFFORDABLE_BYTES:
                read = self._dataset.bytes_processed(sql, uid, dry_run=False)
            bounds.append(read)
            worst = sql if read == max(bounds) else worst
        detail = f"{_size(max(bounds))} of {_size(whole)}"
        if max(bounds) * _PRUNED < whole:
            return confirmed(line, detail)
        if whole < _TELLING_BYTES:
            return not_tried(line, f"the table is too small to show it: {_size(whole)}")
        if max(bounds) > _AFFORDABLE_BYTES:
            return not_tried(
                line,
                f"a dry run gives an upper bound only, {detail}; look at the bytes billed of: "
                + worst.replace("@uid", f"'{_NO_STUDY}'"),
            )
        return refuted(line, detail, "query one study by study(uid), and report this")

    def _compare(self, definition: Definition) -> _Checked:
        is_function = definition.kind is DefinitionKind.FUNCTION
        get = self._dataset.get_routine if is_function else self._dataset.get_table
        existing = get(definition.name)
        if existing is None:
            return _Checked(definition, None, SchemaDifference())
        # The label has a line of its own.
        labels = {"labels": definition.resource.get("labels", {})}
        return _Checked(definition, existing, compare({**existing, **labels}, definition))

    def _line(self, line: TrialLine, checks: Sequence[_Checked]) -> TrialResult:
        problems = [problem for check in checks for problem in check.problems]
        if not problems:
            return confirmed(line, f"{len(checks)} compared")
        is_final = any(check.difference.refusals for check in checks)
        remedy = (
            "this cannot be changed in place: make another dataset with dcm2bq init, name it in "
            "bigQuery.datasetId of the function, and fill it with dcm2bq backfill"
        )
        return refuted(line, "; ".join(problems), remedy if is_final else _INIT)

    def _privacy(self) -> TrialResult:
        line, instances = TrialLine.PRIVACY_LABEL, self._checked[0]
        if instances.existing is None:
            return not_tried(line, f"{instances.definition.name} does not exist")
        made_by = (instances.existing.get("labels") or {}).get(PRIVACY_LABEL)
        expected = instances.definition.resource.get("labels", {}).get(PRIVACY_LABEL)
        if made_by == expected:
            return confirmed(line, f"{PRIVACY_LABEL} is {made_by or 'not set: no privacy options'}")
        return refuted(
            line,
            f"{PRIVACY_LABEL} is {made_by or 'not set'}, not {expected or 'left out'}",
            "run dcm2bq try with the function's own privacy options; if these are they, rows of "
            "different options would be mixed: use another dataset",
        )


def _as_state(change: str) -> str:
    """Return a change that init would make as what is wrong now."""
    if change.endswith(" added"):
        return f"{change.removesuffix(' added')} is missing"
    return change if change.startswith("column") else f"another {change}"


def _size(number: int) -> str:
    return f"{number / _MIB:,.0f} MiB"
