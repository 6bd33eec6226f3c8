"""The configuration: defaults, overrides, and what is refused."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from dcm2bq import config
from dcm2bq.errors import ConfigError


def load(overrides: Any) -> config.Config:
    return config.load({"DCM2BQ_CONFIG": json.dumps(overrides)})


BOTH_DATES = ["retainLongitudinalModifiedDates", "retainLongitudinalFullDates"]
CLEAN = {"profile": "basic", "options": ["cleanDescriptors"]}


def test_without_overrides_all_options_have_their_defaults() -> None:
    assert config.load({}) == config.Config()
    assert config.load({"DCM2BQ_CONFIG": ""}) == config.Config()


def test_overrides_are_merged_deeply() -> None:
    loaded = load({"bigQuery": {"datasetId": "radiology"}, "jsonOutput": {"ignorePrivate": True}})
    assert loaded.big_query.dataset_id == "radiology"
    assert loaded.big_query.instances_table_id == "instances"
    assert loaded.json_output.ignore_private
    assert loaded.json_output.ignore_group_length


def test_overrides_of_a_configuration_keep_its_other_options() -> None:
    loaded = load({"bulkData": {"textMaxBytes": 5}, "privacy": {"remove": ["PatientName"]}})
    changed = config.with_overrides(loaded, {"bulkData": {"inlineMaxBytes": 7}})
    assert changed.bulk_data == config.BulkData(inline_max_bytes=7, text_max_bytes=5)
    assert changed.privacy == loaded.privacy
    with pytest.raises(ConfigError, match=r"bulkData: must be an object, not an integer"):
        config.with_overrides(loaded, {"bulkData": 7})


def test_overrides_can_be_read_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text('{"retry": {"maxAgeSeconds": 60}}')
    assert config.load({"DCM2BQ_CONFIG_FILE": str(file)}).retry.max_age_seconds == 60


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"bigquery": {}}, "bigquery: no such option (did you mean bigQuery?)"),
        ({"xyz": 1}, "xyz: no such option"),
        (
            {"ignorePrivate": True},
            "ignorePrivate: no such option (did you mean jsonOutput.ignorePrivate?)",
        ),
        (
            {"log": {"profile": "basic"}},
            "log.profile: no such option (did you mean privacy.profile?)",
        ),
        (
            {"jsonOutput": {"ignorePrivates": True}},
            "jsonOutput.ignorePrivates: no such option (did you mean jsonOutput.ignorePrivate?)",
        ),
        ({"bigQuery": {"datasetId": 3}}, "bigQuery.datasetId: must be a string, not an integer"),
        ({"bigQuery": None}, "bigQuery: must be an object, not null"),
        ({"retry": {"maxAgeSeconds": 0}}, "retry.maxAgeSeconds: must be an integer of at least 1"),
        (
            {"limits": {"deadlineSeconds": 600}},
            "limits.deadlineSeconds: must be an integer of at most 590",
        ),
        (
            {"input": {"namePattern": "x" * 4097}},
            "input.namePattern: must be a string of at most 4096 characters",
        ),
        (
            {"limits": {"deadlineSeconds": "50"}},
            "limits.deadlineSeconds: must be an integer, not a string",
        ),
        (
            {"jsonOutput": {"ignorePrivate": "yes"}},
            "jsonOutput.ignorePrivate: must be true or false, not a string",
        ),
        ({"log": {"path": "none"}}, "log.path: must be one of full, hash"),
        ({"log": {"path": 3}}, "log.path: must be one of full, hash"),
        ({"privacy": {"profile": "strict"}}, "privacy.profile: must be one of basic, null"),
        (
            {"privacy": {"options": ["retainUids", "retainUid"]}},
            "privacy.options[1]: must be one of retainLongitudinalModifiedDates, retain",
        ),
        ({"privacy": {"options": "retainUids"}}, "privacy.options: must be a list, not a string"),
        (
            {"privacy": {"options": ["retainUids"]}},
            "privacy.options: retainUids needs privacy.profile: set it to basic",
        ),
        (
            {"privacy": {"profile": "basic", "options": BOTH_DATES}},
            "privacy.options: retainLongitudinalFullDates and retainLongitudinalModifiedDates excl",
        ),
        (
            {"privacy": {"profile": "basic", "options": ["cleanDescriptors"]}},
            "privacy.keptDescriptors: is empty, so that cleanDescriptors in privacy.options would",
        ),
        (
            {"privacy": {"profile": "basic", "keptDescriptors": ["CT THORAX"]}},
            "privacy.keptDescriptors: needs cleanDescriptors in privacy.options",
        ),
        (
            {"privacy": CLEAN | {"keptDescriptors": ["CT THORAX", " "]}},
            "privacy.keptDescriptors: an empty value describes nothing",
        ),
        ({"privacy": {"shiftDays": 0}}, "privacy.shiftDays: must be an integer of at least 1"),
        ({"privacy": {"shiftDays": 4000}}, "privacy.shiftDays: must be an integer of at most 3650"),
        (
            {"limits": {"memoryBytes": "1 GiB"}},
            "limits.memoryBytes: must be an integer or null, not a string",
        ),
        ({"privacy": {"remove": [1]}}, "privacy.remove[0]: must be a string, not an integer"),
        (
            {"input": {"namePattern": "("}},
            "input.namePattern: is not a regular expression: missing ), unterminated subpattern",
        ),
        ({"bigQuery": {"projectId": "Ab"}}, "bigQuery.projectId: a project ID has 2 to 64 char"),
        ({"bigQuery": {"datasetId": "a`b"}}, "bigQuery.datasetId: a dataset or table ID has 1 to"),
        ({"bigQuery": {"datasetId": "a\n"}}, "bigQuery.datasetId: a dataset or table ID has 1 to"),
        ({"input": {"buckets": ["gs://a"]}}, "input.buckets[0]: a bucket's name has 3 to 222 char"),
        ({"input": {"buckets": ["abc\n"]}}, "input.buckets[0]: a bucket's name has 3 to 222 char"),
        ({"input": {"buckets": "scans"}}, "input.buckets: must be a list, not a string"),
        ([], "DCM2BQ_CONFIG must hold a JSON object"),
    ],
)
def test_an_error_names_the_option(overrides: Any, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        load(overrides)
    assert str(error.value).startswith(message)


def test_an_error_names_every_wrong_option() -> None:
    overrides = {
        "input": {"otherNames": "smell", "namePatterns": "x", "buckets": ["scans", "B"]},
        "bigQuery": None,
        "limits": {"depth": 0, "hops": 4},
    }
    with pytest.raises(ConfigError) as error:
        load(overrides)
    problems = str(error.value).split("; ")
    assert [problem.partition(":")[0] for problem in problems] == [
        "input.namePatterns",
        "bigQuery",
        "input.otherNames",
        "input.buckets[1]",
        "limits.depth",
    ]


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"DCM2BQ_CONFIG": "{"}, "DCM2BQ_CONFIG is not JSON: Input data was truncated"),
        (
            {"DCM2BQ_CONFIG": '{"x": "\udcff"}'},  # as Python shows bytes that are not UTF-8
            "DCM2BQ_CONFIG is not JSON: it is not valid UTF-8",
        ),
        ({"DCM2BQ_CONFIG_FILE": "/none"}, "DCM2BQ_CONFIG_FILE (/none): No such file or directory"),
        (
            {"DCM2BQ_CONFIG": "{}", "DCM2BQ_CONFIG_FILE": "/none"},
            "DCM2BQ_CONFIG and DCM2BQ_CONFIG_FILE are both set: use one",
        ),
    ],
)
def test_an_unreadable_configuration_is_refused_by_the_name_of_its_variable(
    environ: dict[str, str], message: str
) -> None:
    with pytest.raises(ConfigError) as error:
        config.load(environ)
    assert str(error.value) == message


def test_a_printed_configuration_can_be_loaded() -> None:
    changed = load({"bigQuery": {"datasetId": "radiology"}})
    assert config.load({"DCM2BQ_CONFIG": config.to_json(changed)}) == changed


def test_every_option_has_a_description_and_a_default() -> None:
    options = list(config.options())
    printed = json.loads(config.to_json(config.Config()))
    assert [option.path for option in options] == [
        f"{group}.{name}" for group, members in printed.items() for name in members
    ]
    for option in options:
        group, name = option.path.split(".")
        assert option.description, option.path
        assert printed[group][name] == json.loads(json.dumps(option.default))


def test_the_json_schema_has_every_option() -> None:
    schema = json.loads(config.json_schema())
    named = {name for part in schema["$defs"].values() for name in part["properties"]}
    assert {option.path.split(".")[1] for option in config.options()} <= named


def test_the_privacy_fingerprint_is_the_hash_of_canonical_json() -> None:
    """Terraform computes it as `substr(sha256(jsonencode(...)), 0, 16)`."""
    options = load({"privacy": {"hash": ["PatientID"], "keyVersion": "3"}}).privacy
    canonical = (
        '{"hash":["PatientID"],"hashKeyVariable":"DCM2BQ_HASH_KEY","keyVersion":"3",'
        '"profile":null,"remove":[]}'
    )
    assert options.fingerprint == hashlib.sha256(canonical.encode()).hexdigest()[:16]


@pytest.mark.parametrize(
    ("more", "is_other"),
    [
        ({}, False),
        ({"shiftDays": 30}, False),  # without an option that shifts
        ({"options": ["retainUids"]}, True),
        ({"options": ["cleanDescriptors"], "keptDescriptors": ["CT THORAX"]}, True),
    ],
)
def test_the_privacy_fingerprint_changes_only_with_options_that_change_rows(
    more: dict[str, Any], *, is_other: bool
) -> None:
    basic = load({"privacy": {"profile": "basic"}}).privacy
    changed = load({"privacy": {"profile": "basic"} | more}).privacy
    assert basic.fingerprint == "64b7b12fc88cb1a8"  # as before there were options
    assert (changed.fingerprint != basic.fingerprint) is is_other


def test_the_order_of_the_options_does_not_change_the_privacy_fingerprint() -> None:
    names = ["retainUids", "cleanDescriptors", "retainLongitudinalModifiedDates"]
    kept = ["Schädel", "<CT> & MR"]
    one = {"profile": "basic", "options": names, "keptDescriptors": kept}
    other = {"profile": "basic", "options": names[::-1] + names, "keptDescriptors": kept[::-1]}
    fingerprint = load({"privacy": one}).privacy.fingerprint
    assert load({"privacy": other}).privacy.fingerprint == fingerprint
    assert load({"privacy": one | {"shiftDays": 30}}).privacy.fingerprint != fingerprint


@pytest.mark.parametrize("variable", ["DCM2BQ_CONFIG", "DCM2BQ_CONFIG_FILE"])
def test_an_enormous_configuration_is_refused_before_it_is_parsed(
    tmp_path: Path, variable: str
) -> None:
    text = "[" * (config.MIB + 1)
    file = tmp_path / "config.json"
    file.write_text(text)
    value = text if variable == "DCM2BQ_CONFIG" else str(file)
    with pytest.raises(ConfigError, match="exceeds 1048576 bytes"):
        config.load({variable: value})
