"""All options, with their defaults and descriptions.

The configuration is a JSON object of overrides, given in the environment variable
`DCM2BQ_CONFIG` or in the file that `DCM2BQ_CONFIG_FILE` names. Overrides are merged deeply:
an option that is not given keeps its default. Option names are camelCase in JSON and
snake_case in Python (`jsonOutput.ignorePrivate` is `json_output.ignore_private`).
"""

import difflib
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin

import msgspec
from msgspec import Meta, field

from dcm2bq import bucket_names
from dcm2bq.errors import ConfigError

INLINE_VARIABLE = "DCM2BQ_CONFIG"
FILE_VARIABLE = "DCM2BQ_CONFIG_FILE"

MIB = 1024 * 1024

_RULES: dict[str, str] = {}
"""Each pattern that an option must match, in words."""


def _matching(pattern: str, rule: str) -> Meta:
    """Return the constraint that a whole text matches; messages quote `rule`, not `pattern`."""
    whole = rf"^{pattern}$(?!\n)"  # `$` alone would accept a newline at the end
    _RULES[whole] = rule
    return Meta(pattern=whole)


TableId = Annotated[
    str,
    _matching(
        "[A-Za-z0-9_]{1,1024}",
        "a dataset or table ID has 1 to 1,024 characters: letters, digits and '_'",
    ),
]
ProjectId = Annotated[
    str,
    _matching(
        "[a-z][a-z0-9.:-]{0,62}[a-z0-9]",
        "a project ID has 2 to 64 characters (lowercase letters, digits, '-', '.' and ':'), begins "
        "with a letter and ends with a letter or digit",
    ),
]
BucketName = Annotated[str, _matching(bucket_names.PATTERN, bucket_names.RULE)]
Positive = Annotated[int, Meta(ge=1)]
SecretName = Annotated[
    str,
    _matching(
        "projects/[a-z0-9][a-z0-9.:-]{0,63}/secrets/[A-Za-z0-9_-]{1,255}"
        "(/versions/[A-Za-z0-9_-]{1,63})?",
        "a secret is named projects/PROJECT/secrets/SECRET, with or without /versions/VERSION",
    ),
]
NotNegative = Annotated[int, Meta(ge=0)]
ShiftDays = Annotated[int, Meta(ge=1, le=3650)]
"""3,650: ten years leave ages and the order of scanners' generations plausible."""
Descriptor = Annotated[str, Meta(max_length=1024)]
"""1,024: longer than any description that a scanner writes (LO has 64 characters, ST 1,024)."""
Seconds = Annotated[int, Meta(ge=1, le=590)]
"""590: below 600 s, the longest acknowledgement deadline of Pub/Sub."""
Text = Annotated[str, Meta(max_length=4096)]
"""Far longer than any pattern of names."""

_EXPECTED = re.compile(
    r"Expected `(?P<type>\w+)(?P<null> \| null)?`"
    r"(?: (?P<bound>>=|<=|of length <=) (?P<limit>\d+))?(?:, got `(?P<actual>\w+)`)?"
)
"""The messages of msgspec, which name Python's types."""
_BOUNDS = {">=": "at least {}", "<=": "at most {}", "of length <=": "at most {} characters"}
_KINDS = {
    "bool": "a Boolean",
    "int": "an integer",
    "float": "a decimal number",
    "str": "a string",
    "array": "a list",
    "object": "an object",
    "null": "null",
}
"""Types of JSON by their names in these messages."""

_MAX_BYTES = MIB
"""Longest configuration that is parsed: far more than anyone writes by hand."""


class _Options(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A group of options."""


class BigQuery(_Options, frozen=True, kw_only=True):
    """Where the rows go."""

    project_id: Annotated[
        ProjectId | None,
        Meta(description="Project that holds the dataset; null: the project of the credentials"),
    ] = None
    dataset_id: Annotated[TableId, Meta(description="Dataset that holds the tables and views")] = (
        "dicom"
    )
    instances_table_id: Annotated[TableId, Meta(description="Table for instance rows")] = (
        "instances"
    )
    dead_letter_table_id: Annotated[
        TableId, Meta(description="Table for events that could not be handled")
    ] = "dead_letter"
    timeout_seconds: Annotated[Seconds, Meta(description="Longest wait for one insert")] = 30


class Input(_Options, frozen=True, kw_only=True):
    """Which objects are read, and how."""

    name_pattern: Annotated[
        Text,
        Meta(
            description="Regular expression, searched for in object names, ignoring case; "
            "`input.otherNames` decides about objects that do not match"
        ),
    ] = r"\.(dcm|dicom|ima)$"
    other_names: Annotated[
        Literal["ignore", "sniff"],
        Meta(
            description="`ignore`: objects whose names do not match `input.namePattern` are "
            "ignored; `sniff`: they are read too, and ignored unless they begin like DICOM"
        ),
    ] = "ignore"
    archives: Annotated[
        Literal["ignore", "read"],
        Meta(
            description="Objects whose names end in `.zip`, `.tar`, `.tar.gz` or `.tgz`: `read` "
            "makes a row for each DICOM member; with `ignore`, only `namePattern` counts"
        ),
    ] = "ignore"
    user_project: Annotated[
        str | None, Meta(description="Project billed for reads from requester-pays buckets")
    ] = None
    buckets: Annotated[
        tuple[BucketName, ...],
        Meta(
            description="Buckets whose events are accepted; events of other buckets become "
            "dead letters. Empty: any bucket"
        ),
    ] = ()

    def admits(self, bucket: str) -> bool:
        """Return whether events of a bucket are accepted."""
        return not self.buckets or bucket in self.buckets


class Events(_Options, frozen=True, kw_only=True):
    """How types of event are treated."""

    reindex_on_metadata_update: Annotated[
        bool,
        Meta(description="Treat `metadataUpdated` events like `finalized`: index the object again"),
    ] = False


class JsonOutput(_Options, frozen=True, kw_only=True):
    """The shape of the metadata."""

    format: Annotated[
        Literal["flat", "dicom-json"],
        Meta(description="`flat`: keyword and plain value; `dicom-json`: PS3.18 Annex F"),
    ] = "flat"
    use_array_with_single_value: Annotated[
        bool, Meta(description="Write single values as arrays of one, and empty values as `[]`")
    ] = False
    ignore_group_length: Annotated[
        bool, Meta(description="Omit group lengths: elements (gggg,0000)")
    ] = True
    ignore_meta_header: Annotated[
        bool, Meta(description="Omit the File Meta Information (group 0002)")
    ] = False
    ignore_private: Annotated[
        bool, Meta(description="Omit private elements and their creators, at every level")
    ] = False
    ignore_binary: Annotated[
        bool,
        Meta(description="Omit elements with VR OB, OD, OF, OL, OV, OW or UN, at every level"),
    ] = False
    use_common_names: Annotated[
        bool, Meta(description="Use keywords as keys; otherwise eight hex digits")
    ] = True
    explicit_bulk_data_root: Annotated[
        bool,
        Meta(description="Start each BulkDataURI with the object's `gs://` URI and generation"),
    ] = False


class BulkData(_Options, frozen=True, kw_only=True):
    """Which values stay in the object, replaced in the row by a BulkDataURI."""

    inline_max_bytes: Annotated[
        NotNegative,
        Meta(description="Longest binary value, in bytes, to keep in the row as InlineBinary"),
    ] = 0
    text_max_bytes: Annotated[
        NotNegative,
        Meta(description="Longest text or array of numbers, in bytes, to keep in the row"),
    ] = 65536


class Limits(_Options, frozen=True, kw_only=True):
    """Bounds on the work for one event, and on the memory of all events together."""

    memory_bytes: Annotated[
        Annotated[int, Meta(ge=16 * MIB)] | None,
        Meta(
            description="Memory shared by all events in flight; null: 70 % of what the process "
            "may use, less what it uses at start"
        ),
    ] = None
    header_bytes: Annotated[
        Positive, Meta(description="Most bytes of elements to keep from one object")
    ] = 64 * MIB  # the largest structure sets in the tests have 60 MiB (docs/RELIABILITY.md)
    elements: Annotated[Positive, Meta(description="Most elements and items in one object")] = (
        2_000_000
    )
    depth: Annotated[
        Positive,
        Meta(description="Deepest nesting of sequences; BigQuery allows 500 JSON levels"),
    ] = 160  # 484 levels in DICOM JSON, where a sequence adds three
    output_bytes: Annotated[
        Positive,
        Meta(
            description="Longest metadata, as an escaped JSON string; the largest parts of "
            "longer metadata become BulkDataURIs"
        ),
    ] = 9_000_000  # of BigQuery's 10 MB for a row: the other columns need the rest
    inflated_bytes: Annotated[
        Positive,
        Meta(
            description="Most bytes to inflate from one deflated or gzip-encoded object, and from "
            "all members of one archive together"
        ),
    ] = 4 * 1024 * MIB  # no value of known length is longer (PS3.5 7.1.1)
    members: Annotated[
        Positive, Meta(description="Most members of one archive, of any kind: folders count")
    ] = 10_000  # few studies have more; the directory of such a ZIP takes 10 MiB of memory
    hops: Annotated[
        NotNegative,
        Meta(description="Most reads to find the end of encapsulated pixel data"),
    ] = 16  # then the end is inferred from the object's last bytes (docs/PERFORMANCE.md)
    deadline_seconds: Annotated[
        Seconds,
        Meta(description="Time for one event; keep it below the function's timeout"),
    ] = 50  # with 8 more for a dead letter, within Google's default time-out of 60


ProfileOption = Literal[
    "retainLongitudinalModifiedDates",
    "retainLongitudinalFullDates",
    "retainDeviceIdentity",
    "retainInstitutionIdentity",
    "retainPatientCharacteristics",
    "retainUids",
    "retainSafePrivate",
    "cleanStructuredContent",
    "cleanDescriptors",
]
"""The options of PS3.15 E.3 that concern headers, by the columns of Table E.1-1."""
_DATE_OPTIONS = frozenset({"retainLongitudinalModifiedDates", "retainLongitudinalFullDates"})


class Privacy(_Options, frozen=True, kw_only=True):
    """What is removed from rows or pseudonymised in them, in metadata and columns alike."""

    profile: Annotated[
        Literal["basic"] | None,
        Meta(description="`basic`: the Basic Profile of PS3.15 Annex E, as far as headers go"),
    ] = None
    options: Annotated[
        tuple[ProfileOption, ...],
        Meta(
            description="Options of the profile (PS3.15 E.3), each of which keeps more: "
            "`retainLongitudinalModifiedDates` (dates are shifted) or "
            "`retainLongitudinalFullDates`, `retainDeviceIdentity`, `retainInstitutionIdentity`, "
            "`retainPatientCharacteristics`, `retainUids`, `retainSafePrivate`, "
            "`cleanStructuredContent`, `cleanDescriptors`"
        ),
    ] = ()
    shift_days: Annotated[
        ShiftDays,
        Meta(
            description="Most days by which `retainLongitudinalModifiedDates` shifts the dates of "
            "a patient into the past"
        ),
    ] = 365
    kept_descriptors: Annotated[
        tuple[Descriptor, ...],
        Meta(
            description="What `cleanDescriptors` keeps: descriptions with these values "
            "(`CT THORAX`), without regard to case and blanks, and attributes with these "
            "keywords (`ProtocolName`), whatever their value"
        ),
    ] = ()
    remove: Annotated[
        tuple[str, ...],
        Meta(
            description="Attributes to remove at every level: keywords, tags (`00100010`, "
            "`60xx3000`) or `private`"
        ),
    ] = ()
    hash: Annotated[
        tuple[str, ...],
        Meta(
            description="Attributes to replace with a keyed hash at every level: keywords or tags"
        ),
    ] = ()
    hash_key_variable: Annotated[
        str,
        Meta(
            description="Environment variable that holds the key of the hash; one newline at "
            "its end is ignored"
        ),
    ] = "DCM2BQ_HASH_KEY"
    hash_key_secret: Annotated[
        SecretName | None,
        Meta(
            description="Secret of Secret Manager that holds the key of the hash, read at start: "
            "`projects/P/secrets/S`, best with `/versions/V`. It takes precedence over "
            "`hashKeyVariable`, which must hold the same key if it is set"
        ),
    ] = None
    key_version: Annotated[
        str | None, Meta(description="Name of the key's version; part of the table's fingerprint")
    ] = None
    path: Annotated[
        Literal["full", "hash"],
        Meta(
            description="Names of objects and of members of archives in the tables: in full, or "
            "replaced with a keyed hash"
        ),
    ] = "full"

    @property
    def is_on(self) -> bool:
        """Whether anything is removed or replaced."""
        return self.changes_headers or self.hashes_paths

    @property
    def changes_headers(self) -> bool:
        """Whether anything of a header is removed or replaced."""
        return bool(self.profile or self.remove or self.hash)

    @property
    def hashes_paths(self) -> bool:
        """Whether names of objects and members are replaced."""
        return self.path == "hash"

    @property
    def needs_key(self) -> bool:
        """Whether anything is replaced with a keyed hash."""
        return bool(self.profile or self.hash) or self.hashes_paths

    @property
    def fingerprint(self) -> str:
        """The first 16 hex digits of the SHA-256 of this group as canonical JSON.

        Canonical JSON has every option but `hashKeySecret`, sorted by name, without white space;
        Terraform's `jsonencode` writes the same. Where the key is kept does not change a row, and
        the key itself has a label of its own, by `hash_key.digest`. Of the options of the profile,
        and of `path`, only those that change rows are part of it, whatever their order; kept
        descriptors are hashed, because the two languages would escape some characters
        differently.
        """
        options = msgspec.to_builtins(self)
        for name in ("hashKeySecret", "options", "shiftDays", "keptDescriptors", "path"):
            del options[name]
        if self.options:
            options["options"] = sorted(set(self.options))
        if "retainLongitudinalModifiedDates" in self.options:
            options["shiftDays"] = self.shift_days
        if self.kept_descriptors:
            kept = {hashlib.sha256(text.encode()).hexdigest() for text in self.kept_descriptors}
            options["keptDescriptors"] = sorted(kept)
        if self.hashes_paths:
            options["path"] = self.path
        canonical = json.dumps(options, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]


class Retry(_Options, frozen=True, kw_only=True):
    """When to give up on an event."""

    max_age_seconds: Annotated[
        Positive,
        Meta(
            description="Age after which an event that still fails becomes a dead letter; "
            "keep it below the retention of the trigger's subscription"
        ),
    ] = 43200  # 12 hours: the trigger gives up after about 15


class Log(_Options, frozen=True, kw_only=True):
    """What the logs show."""

    path: Annotated[
        Literal["full", "hash"],
        Meta(
            description="Object names in logs: in full, or hashed (SHA-256, keyed if "
            "`privacy.hashKeySecret` is set or `privacy.hashKeyVariable` names a variable that is)"
        ),
    ] = "full"
    level: Annotated[
        Literal["DEBUG", "INFO", "WARNING", "ERROR"],
        Meta(description="Lowest severity to log"),
    ] = "INFO"


class Config(_Options, frozen=True, kw_only=True):
    """The whole configuration."""

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
    """One option, as documented: `path` is `jsonOutput.format`, for instance."""

    path: str
    type: Any
    default: Any
    description: str


def load(environ: Mapping[str, str] | None = None) -> Config:
    """Return the configuration that the environment variables specify.

    Raises `ConfigError`, which names the option if it is unknown, has the wrong type or is out
    of range, and the variable if its content is not a JSON object.
    """
    environ = os.environ if environ is None else environ
    inline, path = environ.get(INLINE_VARIABLE), environ.get(FILE_VARIABLE)
    if inline and path:
        raise ConfigError(f"{INLINE_VARIABLE} and {FILE_VARIABLE} are both set: use one")
    if path:
        return _parse(_read(path), source=f"{FILE_VARIABLE} ({path})")
    return _parse(os.fsencode(inline), source=INLINE_VARIABLE) if inline else Config()


def from_overrides(overrides: Mapping[str, Any]) -> Config:
    """Return the defaults with `overrides`, nested and in camelCase, applied.

    Raises `ConfigError`, which names each option that is wrong.

    >>> from_overrides({"jsonOutput": {"ignorePrivate": True}}).json_output.ignore_private
    True
    """
    problems = list(_unknown(overrides, Config))
    try:
        config = msgspec.convert(overrides, Config)
    except msgspec.ValidationError:  # names only the first problem
        problems += _invalid(overrides)
    if problems:
        raise ConfigError("; ".join(problems))
    _check_pattern(config.input.name_pattern)
    _check_profile(config.privacy)
    return config


def with_overrides(config: Config, overrides: Mapping[str, Any]) -> Config:
    """Return `config` with `overrides` applied; otherwise like `from_overrides`."""
    return from_overrides(_merge(msgspec.to_builtins(config), overrides))


def to_json(config: Config) -> str:
    """Return the whole configuration as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(config), indent=2).decode()


def json_schema() -> str:
    """Return the JSON Schema of the overrides as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(msgspec.json.schema(Config)), indent=2).decode()


def options() -> Iterator[Option]:
    """Yield every option with its type, default and description."""
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
        raise ConfigError(f"{source} exceeds {_MAX_BYTES} bytes")
    try:
        overrides = msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise ConfigError(f"{source} is not JSON: {error}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{source} is not JSON: it is not valid UTF-8") from None
    if not isinstance(overrides, dict):
        raise ConfigError(f"{source} must hold a JSON object")
    return from_overrides(overrides)


def _unknown(overrides: Mapping[str, Any], struct: type, prefix: str = "") -> Iterator[str]:
    """Yield a message for each option that does not exist."""
    known = _types(struct)
    for key, value in overrides.items():
        if key not in known:
            elsewhere = [option.path for option in options() if option.path.endswith(f".{key}")]
            close = [prefix + name for name in difflib.get_close_matches(key, known, n=1)]
            names = " or ".join(elsewhere or close)
            hint = f" (did you mean {names}?)" if names else ""
            yield f"{prefix}{key}: no such option{hint}"
        elif isinstance(inner := known[key], type) and isinstance(value, Mapping):
            yield from _unknown(value, inner, f"{prefix}{key}.")


@cache  # takes longer than to convert a small object
def _types(struct: type) -> Mapping[str, Any]:
    """Return the type of each option, or group of options, by its name in camelCase."""
    return {option.encode_name: option.type for option in msgspec.structs.fields(struct)}


def _invalid(overrides: Mapping[str, Any]) -> Iterator[str]:
    """Yield a message for each option whose value has the wrong type or is out of range."""
    for group in msgspec.structs.fields(Config):
        values = overrides.get(group.encode_name, {})
        if not isinstance(values, Mapping):
            yield from _problem(group.encode_name, values, group.type)
            continue
        for option in msgspec.structs.fields(group.type):
            if option.encode_name in values:
                path = f"{group.encode_name}.{option.encode_name}"
                yield from _problem(path, values[option.encode_name], option.type)


def _problem(path: str, value: Any, kind: Any) -> Iterator[str]:
    """Yield what is wrong with a value, if anything is."""
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        reason, _, where = str(error).partition(" - at `$")
        option = path + where.removesuffix("`")
        yield f"{option}: {_choices(option) or _in_words(reason)}"


def _merge(values: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return `values` with `overrides` applied, at every level."""
    return {**values} | {
        key: _merge(values[key], value)
        if isinstance(value, Mapping) and isinstance(values.get(key), Mapping)
        else value
        for key, value in overrides.items()
    }


def _in_words(reason: str) -> str:
    """Return the reason of a validation error in the terms of JSON instead of Python's types.

    >>> _in_words("Expected `int | null`, got `str`")
    'must be an integer or null, not a string'
    >>> _in_words("Expected `int` >= 1")
    'must be an integer of at least 1'
    """
    for pattern, rule in _RULES.items():
        if reason.endswith(f"matching regex {pattern!r}"):
            return rule
    match = _EXPECTED.fullmatch(reason)
    if match is None or match["type"] not in _KINDS:
        return reason
    null = " or null" if match["null"] else ""
    bound = f" of {_BOUNDS[match['bound']].format(match['limit'])}" if match["bound"] else ""
    actual = f", not {_KINDS[match['actual']]}" if match["actual"] in _KINDS else ""
    kind = "true or false" if match["type"] == "bool" else _KINDS[match["type"]]
    return f"must be {kind}{null}{bound}{actual}"


def _choices(path: str) -> str:
    """Return which values an option, or a member of a list, accepts, if they are a few names.

    Otherwise, return "".
    """
    name, is_member, _ = path.partition("[")
    for option in options():
        if option.path == name:
            names = _names(get_args(option.type)[0] if is_member else option.type)
            return f"must be one of {', '.join(names)}" if names else ""
    return ""


def _names(kind: Any) -> list[str]:
    """Return the values that a type lists; none if it accepts others."""
    if get_origin(kind) is Literal:
        return list(get_args(kind))
    named = [_names(member) for member in get_args(kind) if member is not NoneType]
    return [*named[0], "null"] if len(named) == 1 and named[0] else []


def _check_profile(privacy: Privacy) -> None:
    """Raise `ConfigError` for options of the profile that contradict each other."""
    options = privacy.options
    if options and privacy.profile is None:
        raise ConfigError(f"privacy.options: {options[0]} needs privacy.profile: set it to basic")
    dates = [option for option in options if option in _DATE_OPTIONS]
    if len(set(dates)) > 1:
        raise ConfigError(f"privacy.options: {' and '.join(sorted(dates))} exclude each other")
    if "cleanDescriptors" in options and not privacy.kept_descriptors:
        raise ConfigError(
            "privacy.keptDescriptors: is empty, so that cleanDescriptors in privacy.options would "
            "keep nothing: list values or keywords, or omit cleanDescriptors"
        )
    if privacy.kept_descriptors and "cleanDescriptors" not in options:
        raise ConfigError("privacy.keptDescriptors: needs cleanDescriptors in privacy.options")
    if not all(text.strip() for text in privacy.kept_descriptors):
        raise ConfigError("privacy.keptDescriptors: an empty value describes nothing: remove it")


def _check_pattern(pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"input.namePattern: is not a regular expression: {error}") from None
