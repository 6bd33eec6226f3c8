"""Which objects leave no row, marker or dead letter, and why."""

import re
from enum import StrEnum

from dcm2bq.config import Config
from dcm2bq.stored_object import StoredObject

_COMPOSITE_TEMPORARIES = "gcloud/tmp/parallel_composite_uploads/"


class Ignored(StrEnum):
    """Why nothing is recorded of an event; its values are those of `ignored` in the log."""

    METADATA = "metadata"  # a metadataUpdated event without events.reindexOnMetadataUpdate
    NAME = "name"  # no match of input.namePattern, and not an archive that is read
    CONTENT = "content"  # nor do the first bytes look like DICOM; with input.otherNames: sniff
    TEMPORARY = "temporary"  # a part of one of gcloud's parallel composite uploads
    EMPTY = "empty"
    FOLDER = "folder"  # the placeholder that a console creates for a folder


def why_ignored(config: Config, stored: StoredObject) -> Ignored | None:
    """Return why nothing is recorded of an object, or None if something is.

    An object of unknown size is not taken for an empty one, and one that `is_sniffed` may turn
    out to be ignored once it is read.
    """
    if stored.name.endswith("/"):
        return Ignored.FOLDER
    if stored.name.startswith(_COMPOSITE_TEMPORARIES):
        return Ignored.TEMPORARY
    if not (
        config.input.other_names == "sniff"
        or matches_name_pattern(config, stored.name)
        or is_archive(config, stored.name)
    ):
        return Ignored.NAME
    return Ignored.EMPTY if stored.size == 0 else None


def is_ignored(config: Config, stored: StoredObject) -> bool:
    """Return whether nothing is recorded of an object."""
    return why_ignored(config, stored) is not None


def is_sniffed(config: Config, stored: StoredObject) -> bool:
    """Return whether only its first bytes show if an object is ignored."""
    return (
        config.input.other_names == "sniff"
        and not matches_name_pattern(config, stored.name)
        and not is_archive(config, stored.name)
    )


def matches_name_pattern(config: Config, name: str) -> bool:
    """Return whether a name matches `input.namePattern`."""
    # No need to compile it first: `re` caches compiled patterns.
    return bool(re.search(config.input.name_pattern, name, re.IGNORECASE))


def is_archive(config: Config, name: str) -> bool:
    """Return whether an object is an archive whose members are read, by its name."""
    if config.input.archives == "ignore":
        return False
    from dcm2bq.archives import is_archive_name  # noqa: PLC0415 - only deployments that read them

    return is_archive_name(name)
