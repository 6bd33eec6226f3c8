"""The command line as a whole, `init` and `config`."""

import errno
import json
import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from click import Option
from pydicom.data import get_testdata_file

from dcm2bq import cli, config, schema
from dcm2bq.bigquery.dataset import Dataset
from dcm2bq.local import servers
from dcm2bq.version import VERSION
from tests.support.datasets import CORE, dropped
from tests.support.leaping import leaping

COMMAND = str(Path(sys.executable).with_name("dcm2bq"))
CT_SMALL = str(get_testdata_file("CT_small.dcm"))


def help_of(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    assert cli.main([*args, "--help"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def test_the_version_is_that_of_the_rows(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"dcm2bq {VERSION}\n"


def test_the_help_lists_every_command_and_an_example(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = help_of(capsys)
    assert set(cli.commands.commands) <= set(text.split())
    assert "    dcm2bq local\n" in text


@pytest.mark.parametrize("command", sorted(cli.commands.commands))
def test_the_help_of_every_command_has_examples(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = help_of(capsys, command)
    examples = text.partition("  Examples:\n")[2].partition("\nOptions:")[0].splitlines()
    assert [line for line in examples if line.startswith(f"      dcm2bq {command}")]
    for option in cli.commands.commands[command].params:
        if isinstance(option, Option):
            assert option.opts[0] in text
            assert option.help


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys\n"
        "from dcm2bq.cli import main\n"
        "names = ('', 'dump', 'local', 'init', 'config', 'verify', 'try', 'columns',\n"
        "         'dead-letters retry', 'export')\n"
        "for command in names:\n"
        "    assert main([*command.split(), '--help']) == 0\n"
        "heavy = {'google.api_core', 'pydicom', 'rich', 'duckdb', 'urllib3'} & set(sys.modules)\n"
        "sys.exit(f'{heavy}' if heavy else 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("args", [["nonsense"], ["--nonsense"], [], ["dump"], ["config", "x"]])
def test_wrong_usage_is_explained_on_stderr(
    args: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(args) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "Usage: dcm2bq" in err


def test_config_shows_the_whole_configuration(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DCM2BQ_CONFIG", '{"bigQuery": {"datasetId": "other"}}')
    assert cli.main(["config"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["bigQuery"]["datasetId"] == "other"
    assert shown["jsonOutput"]["format"] == "flat"
    assert config.from_overrides(shown) == config.load()


@pytest.mark.parametrize(
    ("privacy", "message"),
    [
        ('{"remove": ["PatientNam"]}', "privacy.remove"),
        ('{"hash": ["Rows"]}', "privacy.hash"),
        ('{"profile": "Basic"}', "privacy.profile: must be one of basic, null"),
    ],
)
def test_config_makes_the_checks_of_the_functions_start(
    privacy: str,
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DCM2BQ_HASH_KEY", "k" * 16)
    monkeypatch.setenv("DCM2BQ_CONFIG", f'{{"privacy": {privacy}}}')
    assert cli.main(["config"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"dcm2bq: {message}")


def test_config_shows_the_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["config", "--schema"]) == 0
    assert "jsonOutput" in json.loads(capsys.readouterr().out)["$defs"]["Config"]["properties"]


def test_a_configuration_that_is_not_utf8_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_bytes(b'{"log": {"level": "\xff"}}')
    monkeypatch.setenv("DCM2BQ_CONFIG_FILE", str(tmp_path / "config.json"))
    assert cli.main(["config"]) == 2
    assert capsys.readouterr().err.endswith(" is not JSON: it is not valid UTF-8\n")
    monkeypatch.delenv("DCM2BQ_CONFIG_FILE")
    monkeypatch.setenv("DCM2BQ_CONFIG", os.fsdecode(b'{"log": {"level": "\xff"}}'))
    assert cli.main(["config"]) == 2
    assert capsys.readouterr().err == ("dcm2bq: DCM2BQ_CONFIG is not JSON: it is not valid UTF-8\n")


@pytest.mark.parametrize("command", ["config", "init", "local"])
def test_a_wrong_configuration_is_reported_on_one_line(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DCM2BQ_CONFIG", '{"bigQuery": {"dataset": "x"}}')
    assert cli.main([command]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("dcm2bq: bigQuery.dataset: no such option")
    assert len(err.splitlines()) == 1


def test_debug_shows_the_traceback_and_keeps_the_exit_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DCM2BQ_CONFIG", "{")
    assert cli.main(["--debug", "config"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert any(line.startswith("dcm2bq.errors.ConfigError: DCM2BQ_CONFIG is not") for line in lines)


def test_an_unforeseen_error_shows_no_value(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise ValueError("SENTINEL^NAME")

    monkeypatch.setattr(config, "load", fail)
    assert cli.main(["config"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("dcm2bq: ValueError < ")
    assert "SENTINEL" not in err


def test_an_interrupt_prints_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(config, "load", interrupt)
    assert cli.main(["config"]) == 130
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("args", [(), ("dead-letters",)])
def test_the_help_cuts_no_line(
    args: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    listed = help_of(capsys, *args).partition("Commands:")[2]
    assert listed
    assert "..." not in listed


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no full device here")
@pytest.mark.parametrize("args", [("config",), ("dump", CT_SMALL), ("--help",)])
def test_an_output_that_cannot_be_written_is_reported(args: tuple[str, ...]) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [COMMAND, *args], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("dcm2bq: standard output: No space left on device (free some space")


def test_a_system_error_keeps_its_text_and_path(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise PermissionError(errno.EACCES, "SENTINEL", "/some/place")

    monkeypatch.setattr(config, "load", fail)
    assert cli.main(["config"]) == 1
    assert capsys.readouterr().err == (
        "dcm2bq: /some/place: Permission denied "
        "(run it as a user with access, or use another path)\n"
    )


def test_a_broken_pipe_other_than_stdout_is_an_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise BrokenPipeError(errno.EPIPE, "SENTINEL")

    monkeypatch.setattr(config, "load", fail)
    assert cli.main(["config"]) == 1
    assert capsys.readouterr().err == "dcm2bq: Broken pipe\n"


def test_an_encoding_that_lacks_a_character_is_reported() -> None:
    program = (
        "import sys, click\n"
        "from dcm2bq import cli, config\n"
        "config.load = lambda: click.echo('SENTINEL \\u5c71')\n"
        "sys.exit(cli.main(['config']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONIOENCODING": "latin-1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "the output's encoding (latin-1) lacks a character" in done.stderr
    assert "PYTHONIOENCODING=utf-8" in done.stderr
    assert "SENTINEL" not in done.stderr


@pytest.fixture
def dataset_id(bigquery_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", bigquery_url)
    return f"init_{uuid.uuid4().hex}"


def test_init_creates_everything_once(
    dataset_id: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Afterwards it reports the objects as unchanged, and so does a dry run."""
    some = (*CORE, "tables/dicom_dictionary")
    monkeypatch.setattr(schema, "NAMES", some)  # all take the local BigQuery 10 s
    with dropped(os.environ["BIGQUERY_EMULATOR_HOST"], dataset_id):
        assert cli.main(["init", "--dataset", dataset_id, "--location", "EU"]) == 0
        first = capsys.readouterr().out.splitlines()
        assert {line.split()[0] for line in first} == {"created"}
        assert f"created   dataset        local.{dataset_id}" in first
        names = [line.split()[2].rstrip(":") for line in first[1:]]
        assert names == [*(name.rpartition("/")[2] for name in some), "dicom_dictionary"]
        for option in ((), ("--dry-run",)):
            assert cli.main(["init", "--dataset", dataset_id, *option]) == 0
            second = capsys.readouterr().out.splitlines()
            assert {line.split()[0] for line in second} == {"unchanged"}
            assert len(second) == len(first)


def test_a_dry_run_of_init_changes_nothing(
    dataset_id: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["init", "--dataset", dataset_id, "--dry-run"]) == 0
    out, err = capsys.readouterr()
    assert {line[:18] for line in out.splitlines()} == {"would be created  "}
    assert f"would be created  dataset        local.{dataset_id}" in out
    assert err == "dry run: nothing was changed\n"
    options = config.from_overrides({"bigQuery": {"datasetId": dataset_id}})
    assert Dataset(options).get() is None


KEYLESS = '{"privacy": {"hash": ["PatientID"]}}'
SAME_NAME = '{"bigQuery": {"instancesTableId": "Studies"}}'


@pytest.mark.parametrize(
    ("overrides", "args", "message"),
    [
        (SAME_NAME, ["init"], "is the name of another table or view"),
        ("{}", ["try", "gs://UPPER"], "gs://BUCKET or gs://BUCKET/NAME is expected"),
        (KEYLESS, ["try", "gs://bucket"], "DCM2BQ_HASH_KEY"),
        ("{}", ["verify", "gs://UPPER"], "gs://BUCKET or gs://BUCKET/NAME is expected"),
        (KEYLESS, ["verify", "gs://bucket", "--repair"], "DCM2BQ_HASH_KEY"),
        ("{}", ["dead-letters", "show", "gs://"], "gs://BUCKET or gs://BUCKET/NAME is expected"),
        (KEYLESS, ["dead-letters", "retry", "--all"], "DCM2BQ_HASH_KEY"),
        ("{}", ["dead-letters", "retry"], "select entries either by a filter"),
        ("{}", ["dead-letters", "dismiss", "--all"], "--because"),
        ("{}", ["dead-letters", "list", "--reason", "nosuch"], "--reason nosuch: no such reason"),
        ("{}", ["dead-letters", "retry", "--reason", "nosuch"], "--reason nosuch: no such reason"),
        ("{}", ["backfill", "gs://a", "--dry-run"], "gs://BUCKET or gs://BUCKET/NAME is expected"),
        (KEYLESS, ["backfill", "gs://bucket", "--staging", "gs://bucket/s"], "DCM2BQ_HASH_KEY"),
        ("{}", ["dump", "gs://bucket/a.dcm", "gs://a"], "gs://BUCKET or gs://BUCKET/NAME is"),
    ],
)
def test_mistakes_are_reported_before_credentials_are_looked_up(
    overrides: str,
    args: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nonexistent")
    monkeypatch.setenv("DCM2BQ_CONFIG", overrides)
    assert cli.main(args) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err


def test_options_of_init_override_the_configuration(
    dataset_id: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = {"datasetId": "other", "projectId": "other", "instancesTableId": "my_instances"}
    monkeypatch.setenv("DCM2BQ_CONFIG", json.dumps({"bigQuery": overrides}))
    assert cli.main(["init", "--project", "local", "--dataset", dataset_id, "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert f"local.{dataset_id}" in out
    assert "my_instances" in out


def test_a_wrong_option_of_init_is_a_configuration_error(
    dataset_id: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["init", "--dataset", f"{dataset_id}-x"]) == 2
    assert capsys.readouterr().err.startswith("dcm2bq: bigQuery.datasetId: ")


def test_an_unreachable_service_has_its_own_exit_status(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = servers.url(servers.free_port())
    monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", url)
    monkeypatch.setenv("DCM2BQ_CONFIG", '{"bigQuery": {"timeoutSeconds": 1}}')
    with leaping():
        assert cli.main(["init"]) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("dcm2bq: BigQuery: local.dicom: no answer (")
    assert line.endswith(f") at {url} (BIGQUERY_EMULATOR_HOST)")


@pytest.mark.parametrize(("command", "status"), [("config", 0), ("init", 3)])
def test_what_looks_like_a_mistyped_keyword_is_named_before_anything_is_done(
    command: str, status: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", servers.url(servers.free_port()))
    monkeypatch.setenv("DCM2BQ_HASH_KEY", "key of 16 bytes or more")
    cleaning = {"profile": "basic", "options": ["cleanDescriptors"]}
    privacy = {**cleaning, "keptDescriptors": ["protocolName"]}
    overrides = {"bigQuery": {"timeoutSeconds": 1}, "privacy": privacy}
    monkeypatch.setenv("DCM2BQ_CONFIG", json.dumps(overrides))
    with leaping():
        assert cli.main([command]) == status
    first, *_ = capsys.readouterr().err.splitlines()
    assert first.startswith("privacy.keptDescriptors: protocolName is not a keyword")


@pytest.mark.parametrize(
    ("variable", "command"),
    [
        ("BIGQUERY_EMULATOR_HOST", ("init",)),
        ("STORAGE_EMULATOR_HOST", ("dump", "gs://bucket/scan.dcm")),
        ("DCM2BQ_SECRET_MANAGER_EMULATOR_HOST", ("dump", "scan.dcm")),
    ],
)
def test_an_emulator_variable_that_is_not_a_url_is_a_configuration_error(
    variable: str,
    command: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if "SECRET" in variable:
        privacy = {"hash": ["PatientID"], "hashKeySecret": "projects/p/secrets/s"}
        monkeypatch.setenv("DCM2BQ_CONFIG", json.dumps({"privacy": privacy}))
    monkeypatch.setenv(variable, "localhost:9050")
    assert cli.main(command) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(f": {variable}: must begin with http:// or https://, or be unset")


@pytest.mark.parametrize("command", [("dump", "scan.dcm"), ("local", "--once"), ("config",)])
def test_a_missing_hash_key_is_a_configuration_error(
    command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DCM2BQ_CONFIG", '{"privacy": {"hash": ["PatientID"]}}')
    assert cli.main(command) == 2
    variable = "privacy.hashKeyVariable: the environment variable DCM2BQ_HASH_KEY"
    rule = "it must hold 16 bytes or more"
    assert capsys.readouterr().err == f"dcm2bq: {variable} is not set: {rule}\n"
    monkeypatch.setenv("DCM2BQ_HASH_KEY", "short")
    assert cli.main(command) == 2
    assert capsys.readouterr().err == f"dcm2bq: {variable} is too short: {rule}\n"


@pytest.mark.parametrize("command", [("dump", "scan.dcm"), ("local", "--once"), ("config",)])
def test_limits_beyond_the_memory_are_a_configuration_error(
    command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    limits = '{"memoryBytes": 300000000, "headerBytes": 300000001}'
    monkeypatch.setenv("DCM2BQ_CONFIG", f'{{"limits": {limits}}}')
    assert cli.main(command) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("dcm2bq: limits.headerBytes: ")
    assert "limits.memoryBytes, 300000000" in line
