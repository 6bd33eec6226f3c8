"""Every command line that pages, help texts and outputs show can be typed as it stands there.

Those of dcm2bq are parsed by its own commands. Those of gcloud, bq and terraform must fit the
usages below, and names of variables, outputs and resources must be those of tf/; gcloud itself
parses its own where it is installed.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from dcm2bq import cli
from dcm2bq.errors import ConfigError
from tests.support import pages
from tests.support.archive_files import zip_of
from tests.support.cloud import google_error
from tests.support.http_server import serving
from tests.support.pages import ROOT, Line
from tests.support.terraform_blocks import parsed

LINES = pages.lines()
OUTPUTS_WITH_COMMANDS = {"tf/outputs.tf, backfill", "tf/outputs.tf, notifications"}

USAGES = """
bq query --use_legacy_sql= SQL
gcloud auth application-default login
gcloud eventarc triggers create TRIGGER --location=! --destination-run-service=!
    --destination-run-region= --event-filters=! --service-account=! --transport-topic=
gcloud eventarc triggers describe TRIGGER --location=! --format=
gcloud eventarc triggers list --location=
gcloud functions describe NAME --gen2 --region=! --format=
gcloud functions deploy NAME --gen2 --runtime= --region=! --entry-point= --source= --retry
    --timeout= --memory= --cpu= --concurrency= --set-env-vars= --ingress-settings=
    --trigger-location= --trigger-event-filters= --service-account= --build-service-account=
    --trigger-service-account=
gcloud pubsub subscriptions add-iam-policy-binding SUBSCRIPTION --member=! --role=!
gcloud pubsub subscriptions create SUBSCRIPTION --topic=! --push-endpoint=
    --push-auth-token-audience= --push-auth-service-account= --ack-deadline= --min-retry-delay=
    --max-retry-delay= --message-retention-duration= --expiration-period= --dead-letter-topic=
    --max-delivery-attempts=
gcloud pubsub subscriptions update SUBSCRIPTION --ack-deadline= --min-retry-delay=
    --max-retry-delay= --message-retention-duration= --expiration-period= --dead-letter-topic=
    --max-delivery-attempts=
gcloud pubsub topics add-iam-policy-binding TOPIC --member=! --role=!
gcloud pubsub topics create TOPIC --message-storage-policy-allowed-regions=
gcloud secrets create SECRET --data-file= --replication-policy= --locations=
gcloud storage buckets add-iam-policy-binding URL --member=! --role=!
gcloud storage buckets notifications create URL --topic= --skip-topic-setup --payload-format=
    --event-types= --object-prefix=
gcloud storage buckets notifications delete URL
gcloud storage buckets notifications list URL
gcloud storage buckets remove-iam-policy-binding URL --member=! --role=!
gcloud storage cp SOURCE DESTINATION
gcloud storage ls URL --long
gcloud storage service-agent --project=
gcloud storage objects update URL --clear-encryption-key --decryption-keys= --custom-metadata=
terraform apply -var= -target= -replace=
terraform destroy
terraform fmt
terraform import ADDRESS ID
terraform init
terraform output NAME -raw -json
terraform plan
terraform state rm ADDRESS...
"""
"""What the documents use of each command: its arguments, its options (`=` with a value, `!`
required) and, before the command, any option of the whole tool."""

GLOBAL = {"-chdir"}


@dataclass(frozen=True)
class Usage:
    """A line of `USAGES`: words of the command, most arguments, options by whether one follows."""

    arguments: int
    is_open: bool
    options: dict[str, bool]
    required: frozenset[str]


@cache
def usages() -> dict[tuple[str, ...], Usage]:
    """Return the usages by the words of their commands."""
    found = {}
    for text in re.sub(r"\n {4}", " ", USAGES.strip()).splitlines():
        words = text.split()
        options = [word for word in words if word.startswith("-")]
        arguments = [word for word in words if word.isupper() or word.endswith("...")]
        command = tuple(word for word in words if word not in {*options, *arguments})
        found[command] = Usage(
            arguments=len(arguments),
            is_open=any(word.endswith("...") for word in arguments),
            options={each.rstrip("=!"): "=" in each for each in options},
            required=frozenset(each.rstrip("=!") for each in options if each.endswith("!")),
        )
    return found


def complaint(line: Line) -> str | None:
    """Return what is wrong with a line of gcloud, bq or terraform, if anything is."""
    tool, *words = line.words
    while words and words[0].partition("=")[0] in GLOBAL:
        del words[0]
    for length in range(len(words), 0, -1):
        usage = usages().get((tool, *words[:length]))
        if usage is not None:
            return _misuse(usage, words[length:], is_mention=line.is_in_a_sentence)
    return "is no command of those that the documents use"


def _misuse(usage: Usage, words: list[str], *, is_mention: bool) -> str | None:
    if is_mention and not words:
        return None
    given, arguments = set(), 0
    while words:
        name, equals, value = words.pop(0).partition("=")
        if not name.startswith("-"):
            arguments += 1
            continue
        takes_value = usage.options.get(name)
        if takes_value and not equals and words:
            value = words.pop(0)
        if takes_value is None or bool(value) is not takes_value:
            return f"{name} is no option, lacks its value, or takes none"
        given.add(name)
    if missing := usage.required - given:
        return f"{', '.join(sorted(missing))} is missing"
    if arguments < usage.arguments or (arguments > usage.arguments and not usage.is_open):
        return f"{usage.arguments} arguments are expected, not {arguments}"
    return None


def parse(words: Sequence[str]) -> tuple[click.Command, click.Context]:
    """Parse the words of a dcm2bq line as dcm2bq does; raises `click.UsageError`."""
    context = click.Context(cli.commands, info_name="dcm2bq")
    command: click.Command = cli.commands
    rest = list(words[1:])
    while isinstance(command, click.Group):
        if not rest:
            raise click.UsageError("a command is missing")
        name, found, rest = command.resolve_command(context, rest)
        assert found is not None
        command = found
        if not isinstance(command, click.Group):
            context = command.make_context(name, rest, parent=context)
    return command, context


def is_mention(line: Line) -> bool:
    """Whether a sentence names a command, rather than how to call it."""
    command: click.Command | None = cli.commands
    for word in line.words[1:]:
        if not isinstance(command, click.Group):
            return False
        command = command.commands.get(word)
    return line.is_in_a_sentence and command is not None


def of(*tools: str) -> list[Line]:
    return [line for line in LINES if line.tool in tools]


def written_out(words: Sequence[str]) -> list[str]:
    """Return the words with possible names where the documents have capitals to fill in."""
    return [re.sub(r"^gs://[^/]+|^[A-Z]+$", lambda name: name[0].lower(), word) for word in words]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current directory, and a home, with the folders and the file that the documents name."""
    (tmp_path / "scans").mkdir()
    (tmp_path / "study").mkdir()
    (tmp_path / "study.zip").write_bytes(zip_of({}))
    (tmp_path / "ct.toml").write_text('view = "ct"\n[[columns]]\nattribute = "KVP"\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("line", of("dcm2bq"), ids=str)
def test_a_line_of_dcm2bq_is_parsed_by_dcm2bq(line: Line, folder: Path) -> None:
    words = [word.replace("~", str(folder)) for word in line.words]
    if not is_mention(line):
        with suppress(click.exceptions.Exit):  # --version and --help end the parsing
            parse(words)


@pytest.fixture(scope="module")
def refusing_url() -> Iterator[str]:
    """A server that refuses every request at once, for good."""
    refusal = google_error(403, "accessDenied")
    with serving(lambda exchange: exchange.answer(403, refusal)) as url:
        yield url


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    "text", sorted({line.text for line in of("dcm2bq") if not is_mention(line)})
)
def test_a_line_of_dcm2bq_is_no_wrong_usage_when_it_runs(
    text: str, refusing_url: str, storage_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some contradictions are found by the command itself: it runs until BigQuery is asked."""
    words = [os.path.expanduser(word) for word in shlex.split(text)]  # noqa: PTH111 - as a shell
    if words[1] == "local":
        pytest.skip("it starts servers; what it says of itself is in README's own tests")
    if "-o" in words:  # a file that is there is not replaced
        Path(words[words.index("-o") + 1]).unlink(missing_ok=True)
    monkeypatch.setenv("DCM2BQ_HASH_KEY", "a key that is long enough")
    monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", refusing_url)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", storage_url)
    result = CliRunner().invoke(cli.commands, written_out(words)[1:], standalone_mode=False)
    error = result.exception
    assert not isinstance(error, click.UsageError), error.format_message()
    if isinstance(error, ConfigError):
        assert re.search("backfill needs packages|there is no such (bucket|run)", str(error))


@pytest.mark.parametrize("line", of("gcloud", "bq", "terraform"), ids=str)
def test_a_line_of_another_tool_fits_its_usage(line: Line) -> None:
    assert complaint(line) is None


def test_each_usage_is_of_use() -> None:
    used = {line.words for line in LINES}
    unused = [
        " ".join(command)
        for command in usages()
        if not any(_begins(words, command) for words in used)
    ]
    assert unused == []


def _begins(words: tuple[str, ...], command: tuple[str, ...]) -> bool:
    plain = tuple(word for word in words if word.partition("=")[0] not in GLOBAL)
    return plain[: len(command)] == command


def test_terraform_lines_name_what_tf_declares() -> None:
    declared = _declared()
    for line in of("terraform"):
        words = [word for word in line.words[1:] if word.partition("=")[0] not in GLOBAL]
        names: list[tuple[str, str]] = []
        if words[0] == "output":
            names = [("output", word) for word in words[1:] if not word.startswith("-")]
        elif words[:2] == ["state", "rm"]:
            names = [("resource", word.partition("[")[0]) for word in words[2:]]
        elif words[0] == "import":
            names = [("resource", words[1].partition("[")[0])] if words[1:] else []
        names += [
            ("resource", word.partition("=")[2].partition("[")[0])
            for word in words
            if word.startswith(("-target=", "-replace=")) and "ADDRESS" not in word
        ]
        names += [
            ("variable", value.partition("=")[0])
            for flag, value in pairwise(words)
            if flag == "-var"
        ]
        for kind, name in names:
            assert name in declared[kind], f"{line}: tf/ has no {kind} {name}"


def test_the_table_of_roles_has_every_command() -> None:
    page = (ROOT / "docs" / "OPERATIONS.md").read_text()
    table = page.partition("### Who needs which role\n")[2].partition("\n## ")[0]
    commands = {" ".join(line.words) for line in pages.in_markdown("", table)}
    assert commands - {"terraform apply"} == set(_leaves("dcm2bq", cli.commands))
    grants = (ROOT / "tf" / "grants.tf").read_text()
    assert '"${local.snake_name}_inserter"' in grants
    assert "`dcm2bq_inserter`" in table


def _leaves(name: str, command: click.Command) -> Iterator[str]:
    if not isinstance(command, click.Group):
        yield name
        return
    for each in command.commands.values():
        yield from _leaves(f"{name} {each.name}", each)


def _declared() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {"variable": set(), "output": set(), "resource": set()}
    for content in parsed():
        for kind in ("variable", "output"):
            found[kind] |= {name.strip('"') for each in content.get(kind, []) for name in each}
        for each in content.get("resource", []):
            for type_, named in each.items():
                found["resource"] |= {f"{type_}.{name}".replace('"', "") for name in named}
    return found


def test_lines_of_gcloud_are_parsed_by_gcloud(tmp_path: Path) -> None:
    gcloud = shutil.which("gcloud")
    if gcloud is None:
        pytest.skip("gcloud is not installed: its lines were held to the usages above alone")
    texts = sorted({line.text for line in of("gcloud")})
    file = tmp_path / "commands.json"
    file.write_text(json.dumps([{"command_string": text} for text in texts]))
    done = subprocess.run(
        [gcloud, "meta", "lint-gcloud-commands", "--commands-file", str(file)],
        env={**os.environ, "CLOUDSDK_CONFIG": str(tmp_path / "gcloud")},
        capture_output=True,
        text=True,
        check=True,
    )
    verdicts = json.loads(done.stdout)
    assert len(verdicts) == len(texts)
    refused = {each["command_string"]: each["error_message"] for each in verdicts}
    assert {text: message for text, message in refused.items() if message} == {}


@pytest.mark.parametrize(
    "text",
    [
        "terraform aply",
        "terraform apply -vars a=b",
        "terraform state rm",
        "bq query --use_legacy_sql=false",
        "bq query --uselegacy_sql=false 'SELECT 1'",
        "gcloud storage object update gs://b/n",
        "gcloud storage objects update --clear-encryption-key",
        "gcloud storage objects update gs://b/n --clear-encryption-keys",
        "gcloud secrets create s --data-file",
        "gcloud eventarc triggers describe t",
    ],
)
def test_a_line_that_is_wrong_is_found(text: str) -> None:
    (line,) = pages.in_shell("here", text)
    assert complaint(line)


@pytest.mark.parametrize(
    "text",
    [
        "dcm2bq verfy gs://bucket",
        "dcm2bq verify --repair",
        "dcm2bq verify gs://bucket --repare",
        "dcm2bq dead-letters dismiss --all",
        "dcm2bq dead-letters retri --all",
        "dcm2bq dump --envelope",
        "dcm2bq init --location",
        "dcm2bq backfill gs://bucket --processes none",
        "dcm2bq",
    ],
)
def test_a_line_of_dcm2bq_that_is_wrong_is_found(text: str) -> None:
    (line,) = pages.in_shell("here", text)
    with pytest.raises(click.UsageError):
        parse(line.words)


def test_lines_are_found_wherever_a_page_shows_one() -> None:
    page = (
        "Text `dcm2bq verify` and `a \\| dcm2bq\ndump -`.\n\n"
        "    dcm2bq config   # don't\n"
        "    X=1 curl -s u | dcm2bq dump - > f && bq query 'SELECT\n    1'\n\n"
        "```sh\nfor a in b; do\n  gcloud auth \\\n    login\ndone\n```\n\n"
        '1. Item\n\n   ```sh\n   export A="$(terraform output a)"\n   ```\n'
        "```sql\nSELECT 1\n```\n"
    )
    found = [line.text for line in pages.in_markdown("page", page)]
    assert found == [
        "gcloud auth login",
        "terraform output a",
        "dcm2bq config",
        "dcm2bq dump -",
        "bq query 'SELECT\n    1'",
        "dcm2bq verify",
        "dcm2bq dump -",
    ]


def test_the_commands_in_terraforms_outputs_are_among_them() -> None:
    assert {line.place for line in LINES} >= OUTPUTS_WITH_COMMANDS
