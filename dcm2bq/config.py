"""Every option, its default and its meaning, in one place.

The configuration is a JSON object of overrides, given in the environment variable
`DCM2BQ_CONFIG` or in the file that `DCM2BQ_CONFIG_FILE` names. Overrides merge deeply:
an option that is not given keeps its default. Option names are camelCase in JSON and
snake_case here (`jsonOutput.ignorePrivate` is `json_output.ignore_private`).
"""

import difflib
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin

import msgspec
from msgspec import Meta, field

from dcm2bq.errors import ConfigError

INLINE_VARIABLE = "DCM2BQ_CONFIG"
FILE_VARIABLE = "DCM2BQ_CONFIG_FILE"

MIB = 1024 * 1024

TableId = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_]{1,1024}$(?!\n)")]
Positive = Annotated[int, Meta(ge=1)]
NotNegative = Annotated[int, Meta(ge=0)]
BucketName = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]$(?!\n)")]
Seconds = Annotated[int, Meta(ge=1, le=590)]
"""Below the longest acknowledgement deadline of Pub/Sub, 600 s."""
Text = Annotated[str, Meta(max_length=4096)]

_MAX_BYTES = MIB
"""Bounds the configuration itself: nobody writes more by hand."""


class _Options(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A group of options."""


class BigQuery(_Options, frozen=True, kw_only=True):
    """Where the rows go."""

    project_id: Annotated[
        Annotated[str, Meta(pattern=r"^[a-z][a-z0-9.:-]{0,62}[a-z0-9]$(?!\n)")] | None,
        Meta(description="Project of the dataset; null is the project of the credentials"),
    ] = None
    dataset_id: Annotated[TableId, Meta(description="Dataset of the tables and views")] = "dicom"
    instances_table_id: Annotated[TableId, Meta(description="Table of the instance rows")] = (
        "instances"
    )
    dead_letter_table_id: Annotated[
        TableId, Meta(description="Table of the events that could not be handled")
    ] = "dead_letter"
    timeout_seconds: Annotated[Seconds, Meta(description="Longest wait for one insert")] = 30


class Input(_Options, frozen=True, kw_only=True):
    """Which objects are read, and how."""

    name_pattern: Annotated[
        Text,
        Meta(
            description="Regular expression, searched in the object's name in any case; "
            "objects that do not match are ignored"
        ),
    ] = r"\.(dcm|dicom)$"
    user_project: Annotated[
        str | None, Meta(description="Project billed for reads from requester-pays buckets")
    ] = None
    buckets: Annotated[
        tuple[BucketName, ...],
        Meta(
            description="Buckets whose events are believed; those of others become dead "
            "letters. Empty: any bucket"
        ),
    ] = ()

    def admits(self, bucket: str) -> bool:
        """Whether events of a bucket are believed."""
        return not self.buckets or bucket in self.buckets


class Events(_Options, frozen=True, kw_only=True):
    """What the kinds of event do."""

    reindex_on_metadata_update: Annotated[
        bool,
        Meta(description="Treat `metadataUpdated` events as `finalized` ones: index again"),
    ] = False


class JsonOutput(_Options, frozen=True, kw_only=True):
    """The shape of the metadata."""

    format: Annotated[
        Literal["flat", "dicom-json"],
        Meta(description="`flat`: keyword and plain value; `dicom-json`: PS3.18 Annex F"),
    ] = "flat"
    use_array_with_single_value: Annotated[
        bool, Meta(description="Write single values as arrays of one, empty ones as `[]`")
    ] = False
    ignore_group_length: Annotated[
        bool, Meta(description="Leave out group lengths, elements (gggg,0000)")
    ] = True
    ignore_meta_header: Annotated[
        bool, Meta(description="Leave out the File Meta Information, group 0002")
    ] = False
    ignore_private: Annotated[
        bool, Meta(description="Leave out private elements and creators, at every level")
    ] = False
    ignore_binary: Annotated[
        bool,
        Meta(description="Leave out elements of VR OB, OD, OF, OL, OV, OW, UN, at every level"),
    ] = False
    use_common_names: Annotated[
        bool, Meta(description="Name elements by keyword; otherwise by eight hex digits")
    ] = True
    explicit_bulk_data_root: Annotated[
        bool,
        Meta(description="Begin each BulkDataURI with the object's `gs://` URI and generation"),
    ] = False


class BulkData(_Options, frozen=True, kw_only=True):
    """Which values stay in the object and are replaced by a BulkDataURI."""

    inline_max_bytes: Annotated[
        NotNegative, Meta(description="Longest binary value that is kept, as InlineBinary")
    ] = 0
    text_max_bytes: Annotated[
        NotNegative, Meta(description="Longest text or array of numbers that is kept")
    ] = 65536


class Limits(_Options, frozen=True, kw_only=True):
    """Bounds on the work for one event, and on the memory of all events together."""

    memory_bytes: Annotated[
        Annotated[int, Meta(ge=16 * MIB)] | None,
        Meta(
            description="Memory that all events in flight may share; null is 70 % of what the "
            "process may use, less what it uses at its start"
        ),
    ] = None

    header_bytes: Annotated[
        Positive, Meta(description="Most bytes of elements kept from one object")
    ] = 64 * MIB
    elements: Annotated[Positive, Meta(description="Most elements and items in one object")] = (
        2_000_000
    )
    depth: Annotated[
        Positive,
        Meta(description="Deepest nesting of sequences; BigQuery allows 500 JSON levels"),
    ] = 160
    output_bytes: Annotated[
        Positive,
        Meta(
            description="Longest metadata as an escaped JSON string; the largest parts of a "
            "longer one become BulkDataURIs"
        ),
    ] = 9_000_000
    inflated_bytes: Annotated[
        Positive, Meta(description="Most bytes inflated from one deflated or gzip encoded object")
    ] = 4 * 1024 * MIB
    hops: Annotated[
        NotNegative,
        Meta(description="Most reads in search of the end of encapsulated pixel data"),
    ] = 16
    deadline_seconds: Annotated[
        Seconds,
        Meta(description="Time for one event; keep it below the function's timeout"),
    ] = 50


class Privacy(_Options, frozen=True, kw_only=True):
    """What is taken out of rows, or pseudonymised in them, metadata and columns alike."""

    profile: Annotated[
        Literal["basic"] | None,
        Meta(description="`basic`: the Basic Profile of PS3.15 Annex E, for what a header holds"),
    ] = None
    remove: Annotated[
        tuple[str, ...],
        Meta(
            description="Attributes to remove at every level: keywords, tags (`00100010`, "
            "`60xx3000`), `private`"
        ),
    ] = ()
    hash: Annotated[
        tuple[str, ...],
        Meta(description="Attributes to replace by a keyed hash at every level: keywords, tags"),
    ] = ()
    hash_key_variable: Annotated[
        str,
        Meta(
            description="Environment variable that holds the key of the hash; a newline at its "
            "end is no part of it"
        ),
    ] = "DCM2BQ_HASH_KEY"
    key_version: Annotated[
        str | None, Meta(description="Name of the key's version; part of the tables' fingerprint")
    ] = None

    @property
    def is_on(self) -> bool:
        """Whether anything is removed or replaced."""
        return bool(self.profile or self.remove or self.hash)

    @property
    def needs_key(self) -> bool:
        """Whether anything is replaced by a keyed hash."""
        return bool(self.profile or self.hash)

    @property
    def fingerprint(self) -> str:
        """The first 16 hex digits of the SHA-256 of this group as canonical JSON.

        Canonical: every option, in the order of the names, without white space.
        """
        canonical = json.dumps(msgspec.to_builtins(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]


class Retry(_Options, frozen=True, kw_only=True):
    """When an event is given up."""

    max_age_seconds: Annotated[
        Positive,
        Meta(
            description="Age at which an event that still fails becomes a dead letter; "
            "keep it below the retention of the trigger's subscription"
        ),
    ] = 43200


class Log(_Options, frozen=True, kw_only=True):
    """What the logs show."""

    path: Annotated[
        Literal["full", "hash"],
        Meta(
            description="Object names in logs: as they are, or hashed (SHA-256, keyed where "
            "`privacy.hashKeyVariable` has a key)"
        ),
    ] = "full"
    level: Annotated[
        Literal["DEBUG", "INFO", "WARNING", "ERROR"],
        Meta(description="Least severity that is logged"),
    ] = "INFO"


class Config(_Options, frozen=True, kw_only=True):
    """The configuration in force."""

    big_query: BigQuery = field(default_factory=BigQuery)
    input: Input = field(default_factory=Input)
    events: Events = field(default_factory=Events)
    json_output: JsonOutput = field(default_factory=JsonOutput)
    bulk_data: BulkData = field(default_factory=BulkData)
    limits: Limits = field(default_factory=Limits)
    privacy: Privacy = field(default_factory=Privacy)
    retry: Retry = field(default_factory=Retry)
    log: Log = field(default_factory=Log)


class Option(NamedTuple):
    """One option as the documentation shows it."""

    path: str
    type: Any
    default: Any
    description: str


def load(environ: Mapping[str, str] | None = None) -> Config:
    """Return the configuration that the environment gives.

    Raises `ConfigError` with the option's path for an unknown option, a wrong type or a
    value out of range, and with the variable's name for what is not a JSON object.
    """
    environ = os.environ if environ is None else environ
    inline, path = environ.get(INLINE_VARIABLE), environ.get(FILE_VARIABLE)
    if inline and path:
        raise ConfigError(f"{INLINE_VARIABLE} and {FILE_VARIABLE} are both set: use one")
    if path:
        return _parse(_read(path), source=f"{FILE_VARIABLE} ({path})")
    return _parse(os.fsencode(inline), source=INLINE_VARIABLE) if inline else Config()


def hash_key(options: Privacy, environ: Mapping[str, str] | None = None) -> bytes:
    """Return the key of the hash that the environment gives; nothing where there is none.

    A secret made by a pipe ends in a newline, which a shell that passes it on takes away: one
    newline at the end is no part of the key.
    """
    environ = os.environ if environ is None else environ
    return os.fsencode(environ.get(options.hash_key_variable, "")).removesuffix(b"\n")


def from_overrides(overrides: Mapping[str, Any]) -> Config:
    """Return the configuration with `overrides` (camelCase, nested) over the defaults.

    Raises `ConfigError` with the option's path.
    """
    _refuse_unknown(overrides, Config)
    try:
        config = msgspec.convert(overrides, Config)
    except msgspec.ValidationError as error:
        reason, _, where = str(error).partition(" - at `$")
        option = where.strip("`.")
        raise ConfigError(f"{option}: {reason}{_choices(option)}") from None
    _check_pattern(config.input.name_pattern)
    return config


def to_json(config: Config) -> str:
    """Return the whole configuration as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(config), indent=2).decode()


def json_schema() -> str:
    """Return the JSON Schema of the overrides as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(msgspec.json.schema(Config)), indent=2).decode()


def options() -> Iterator[Option]:
    """Yield every option with its default and its meaning."""
    for group in msgspec.structs.fields(Config):
        for option in msgspec.structs.fields(group.type):
            path = f"{group.encode_name}.{option.encode_name}"
            described = option.type.__metadata__[-1]
            yield Option(path, option.type.__origin__, option.default, described.description)


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"{FILE_VARIABLE} ({path}): {error.strerror}") from None


def _parse(text: bytes, *, source: str) -> Config:
    if len(text) > _MAX_BYTES:
        raise ConfigError(f"{source} has more than {_MAX_BYTES} bytes")
    try:
        overrides = msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise ConfigError(f"{source} is not JSON: {error}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{source} is not JSON: it is not valid UTF-8") from None
    if not isinstance(overrides, dict):
        raise ConfigError(f"{source} must hold a JSON object")
    return from_overrides(overrides)


def _refuse_unknown(overrides: Mapping[str, Any], struct: type, prefix: str = "") -> None:
    known = {each.encode_name: each.type for each in msgspec.structs.fields(struct)}
    for key, value in overrides.items():
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f" (did you mean {prefix}{close[0]}?)" if close else ""
            raise ConfigError(f"{prefix}{key}: no such option{hint}")
        inner = known[key]
        if isinstance(inner, type) and isinstance(value, Mapping):
            _refuse_unknown(value, inner, f"{prefix}{key}.")


def _choices(path: str) -> str:
    """Return what an option of a few named values may be, as the end of a sentence."""
    for option in options():
        if option.path == path and (names := _names(option.type)):
            return f", expected {' or '.join(names)}"
    return ""


def _names(kind: Any) -> list[str]:
    """Return the values that a type names; none where it takes others beside them."""
    if get_origin(kind) is Literal:
        return list(get_args(kind))
    named = [_names(each) for each in get_args(kind) if each is not NoneType]
    return [*named[0], "null"] if len(named) == 1 and named[0] else []


def _check_pattern(pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"input.namePattern: {error}") from None
