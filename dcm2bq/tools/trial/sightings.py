"""What the tables show of a trial's objects."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec

from dcm2bq.bigquery.dataset import Dataset
from dcm2bq.config import Config
from dcm2bq.gcs.uri import GsUri
from dcm2bq.lifted import LIFTED
from dcm2bq.row_names import RowNames, row_names
from dcm2bq.stored_object import StoredObject
from dcm2bq.tools import dead_letters
from dcm2bq.tools.dead_letters import Entry, Filter

ROW_EVENTS = frozenset({"finalized", "metadataUpdated"})
MARKER_EVENTS = frozenset({"deleted", "archived"})


@dataclass(frozen=True, slots=True)
class Sighting:
    """What was recorded by a moment: events by path and version, and open dead letters.

    `names` are those that rows have for objects.
    """

    events: Mapping[tuple[str, str], frozenset[str]] = field(default_factory=dict)
    letters: tuple[Entry, ...] = ()
    names: RowNames = field(default_factory=RowNames)

    def has(self, stored: StoredObject, events: frozenset[str]) -> bool:
        """Return whether a generation has a row or marker of one of the `events`."""
        return bool(self.events.get(self._key(stored), frozenset()) & events)

    def letter(self, stored: StoredObject, events: frozenset[str] = ROW_EVENTS) -> Entry | None:
        """Return the open dead letter of a generation, about one of the `events`."""
        for entry in self.letters:
            if (entry.path, entry.version) == self._key(stored) and entry.event in events:
                return entry
        return None

    def _key(self, stored: StoredObject) -> tuple[str, str]:
        return self.names.path(stored.path), str(stored.generation)


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveRow:
    """A row of the live view; `columns` holds text by keyword."""

    version: str
    release: str | None
    metadata: Any
    columns: Mapping[str, str | None]


class Watched:
    """Queries what the tables hold about the objects under a prefix, in rows since `since`.

    `instances` is queried by partition and the live view by study, so that a query costs little
    even with a billion rows. Where names are hashed, the rows of the whole bucket are queried.
    Raises what `Dataset.stream` raises.
    """

    def __init__(self, dataset: Dataset, config: Config, path: str, since: datetime) -> None:
        self._dataset = dataset
        self._instances = config.big_query.instances_table_id
        self._dead_letter = config.big_query.dead_letter_table_id
        self._names = row_names(config.privacy)
        self._path = str(GsUri(GsUri.parse(path).bucket)) if self._names.are_hashed else path
        self._since = since
        self._letters_counted = 0
        self._letters: tuple[Entry, ...] = ()

    def look(self) -> Sighting:
        """Return what is recorded now."""
        sql = f"""
            SELECT path, version, event FROM `{self._instances}`
            WHERE ingested_at >= @since AND STARTS_WITH(path, @path)
        """  # noqa: S608 - the configuration restricts the characters of a table's id
        seen: dict[tuple[str, str], frozenset[str]] = {}
        for row in self._dataset.query(sql, {"since": self._since, "path": self._path}):
            key = (row["path"], row["version"])
            seen[key] = seen.get(key, frozenset()) | {row["event"]}
        return Sighting(seen, self._open_letters(), self._names)

    def look_at_letters(self) -> Sighting:
        """Return the dead letters that are open now, by the view."""
        return Sighting(letters=self._letters_of_view(), names=self._names)

    def _letters_of_view(self) -> tuple[Entry, ...]:
        return tuple(dead_letters.find(self._dataset, Filter(path=f"{self._path}*")))

    def live(self, stored: StoredObject, study_uid: str | None) -> list[LiveRow]:
        """Return the live rows of an object, whatever their generation.

        `study_uid` is the value of the column, None if the privacy options empty it.
        """
        source = "instances_live" if study_uid is None else "study(@study)"
        columns = ", ".join(
            f"CAST({column.keyword} AS STRING) AS {column.keyword}" for column in LIFTED
        )
        sql = f"""
            SELECT version, info.dcm2bq_version AS release, TO_JSON_STRING(metadata) AS metadata,
              {columns}
            FROM {source} WHERE path = @path
        """  # noqa: S608 - made of the texts above
        path = self._names.path(stored.path)
        parameters = {"path": path} | ({} if study_uid is None else {"study": study_uid})
        return [
            LiveRow(
                version=row["version"],
                release=row["release"],
                metadata=msgspec.json.decode(row["metadata"] or "null"),
                columns={column.keyword: row[column.keyword] for column in LIFTED},
            )
            for row in self._dataset.query(sql, parameters)
        ]

    def _open_letters(self) -> tuple[Entry, ...]:
        """Return the open dead letters; the view is queried only if the table has grown."""
        sql = f"SELECT COUNT(*) AS n FROM `{self._dead_letter}` WHERE publish_time >= @since"  # noqa: S608
        (row,) = self._dataset.query(sql, {"since": self._since})
        if row["n"] != self._letters_counted:
            self._letters_counted, self._letters = row["n"], self._letters_of_view()
        return self._letters
