"""The command line as a whole, `init` and `config`."""

import json
import subprocess
import sys
import uuid

import pytest
from click import Option

from dcm2bq import __version__, cli, config
from dcm2bq.bigquery.dataset import Dataset
from dcm2bq.errors import ConfigError
from dcm2bq.local import servers


def help_of(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    assert cli.main([*args, "--help"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"dcm2bq {__version__}\n"


def test_the_help_names_every_command_and_something_to_try(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = help_of(capsys)
    assert set(cli.commands.commands) <= set(text.split())
    assert "    dcm2bq local\n" in text


@pytest.mark.parametrize("command", sorted(cli.commands.commands))
def test_every_command_is_explained_by_examples(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = help_of(capsys, command)
    examples = text.partition("  Examples:\n")[2].partition("\nOptions:")[0].splitlines()
    assert [line for line in examples if line.startswith(f"      dcm2bq {command}")]
    for option in cli.commands.commands[command].params:
        if isinstance(option, Option):
            assert option.opts[0] in text
            assert option.help


def test_help_is_quick_and_needs_no_extras() -> None:
    program = (
        "import sys\n"
        "from dcm2bq.cli import main\n"
        "for command in ('', 'dump', 'local', 'init', 'config', 'verify', 'dead-letters retry'):\n"
        "    assert main([*command.split(), '--help']) == 0\n"
        "heavy = {'google.api_core', 'pydicom', 'rich', 'duckdb', 'urllib3'} & set(sys.modules)\n"
        "sys.exit(f'{heavy}' if heavy else 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("args", [["nonsense"], ["--nonsense"], [], ["dump"], ["config", "x"]])
def test_wrong_usage_is_told_on_stderr(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(args) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "Usage: dcm2bq" in err


def test_the_configuration_in_force_is_shown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DCM2BQ_CONFIG", '{"bigQuery": {"datasetId": "other"}}')
    assert cli.main(["config"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["bigQuery"]["datasetId"] == "other"
    assert shown["jsonOutput"]["format"] == "flat"
    assert config.from_overrides(shown) == config.load()


def test_the_schema_of_the_configuration_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["config", "--schema"]) == 0
    assert "jsonOutput" in json.loads(capsys.readouterr().out)["$defs"]["Config"]["properties"]


@pytest.mark.parametrize("command", ["config", "init", "local"])
def test_a_wrong_configuration_is_one_line(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DCM2BQ_CONFIG", '{"bigQuery": {"dataset": "x"}}')
    assert cli.main([command]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("dcm2bq: bigQuery.dataset: no such option")
    assert len(err.splitlines()) == 1


def test_debug_shows_where_an_error_comes_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DCM2BQ_CONFIG", "{")
    with pytest.raises(ConfigError):
        cli.main(["--debug", "config"])


def test_an_error_that_nobody_foresaw_shows_no_value(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise ValueError("SENTINEL^NAME")

    monkeypatch.setattr(config, "load", fail)
    assert cli.main(["config"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("dcm2bq: ValueError < ")
    assert "SENTINEL" not in err


def test_an_interrupt_is_quiet(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(config, "load", interrupt)
    assert cli.main(["config"]) == 130
    assert capsys.readouterr() == ("", "")


@pytest.fixture
def dataset_id(bigquery_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", bigquery_url)
    return f"init_{uuid.uuid4().hex}"


def test_init_makes_everything_once(dataset_id: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["init", "--dataset", dataset_id, "--location", "EU"]) == 0
    first = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in first} == {"created"}
    assert f"created   dataset        local.{dataset_id}" in first
    names = {line.split()[2].rstrip(":") for line in first}
    assert {"instances", "dead_letter", "instances_live", "studies", "study"} <= names
    assert cli.main(["init", "--dataset", dataset_id]) == 0
    second = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in second} == {"unchanged"}
    assert len(second) == len(first)


def test_init_can_only_tell(dataset_id: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["init", "--dataset", dataset_id, "--dry-run"]) == 0
    out, err = capsys.readouterr()
    assert "instances" in out
    assert err == "dry run: nothing was changed\n"
    options = config.from_overrides({"bigQuery": {"datasetId": dataset_id}})
    assert Dataset(options).get() is None


def test_flags_of_init_go_before_the_configuration(
    dataset_id: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = {"datasetId": "other", "projectId": "other", "instancesTableId": "my_instances"}
    monkeypatch.setenv("DCM2BQ_CONFIG", json.dumps({"bigQuery": overrides}))
    assert cli.main(["init", "--project", "local", "--dataset", dataset_id, "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert f"local.{dataset_id}" in out
    assert "my_instances" in out


def test_a_wrong_flag_of_init_is_a_configuration_error(
    dataset_id: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["init", "--dataset", f"{dataset_id}-x"]) == 2
    assert capsys.readouterr().err.startswith("dcm2bq: bigQuery.datasetId: ")


def test_a_service_that_can_not_be_reached_has_its_own_status(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", servers.url(servers.free_port()))
    monkeypatch.setenv("DCM2BQ_CONFIG", '{"bigQuery": {"timeoutSeconds": 1}}')
    assert cli.main(["init"]) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("dcm2bq: ")


@pytest.mark.parametrize("command", [("dump", "scan.dcm"), ("local", "--once")])
def test_privacy_options_without_a_key_are_a_matter_of_configuration(
    command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DCM2BQ_CONFIG", '{"privacy": {"hash": ["PatientID"]}}')
    assert cli.main(command) == 2
    message = "privacy.hashKeyVariable: DCM2BQ_HASH_KEY must hold 16 bytes or more"
    assert capsys.readouterr().err == f"dcm2bq: {message}\n"
