"""What a backfill costs is what its estimate says, and a budget is kept."""

import json
import re
from collections.abc import Iterator

import pytest

from dcm2bq.bigquery.dataset import Dataset
from tests.support.backfill_site import MR_SMALL, Site
from tests.support.billed_storage import CLASSES, BilledStorage
from tests.support.forks import Forks
from tests.support.proxy import LoadingBigQuery

CLASS_A = {"STANDARD": 0.000005, "NEARLINE": 0.00001, "COLDLINE": 0.00002, "ARCHIVE": 0.00005}
CLASS_B = {"STANDARD": 0.0000004, "NEARLINE": 0.000001, "COLDLINE": 0.00001, "ARCHIVE": 0.00005}
RETRIEVAL = {"STANDARD": 0.0, "NEARLINE": 0.01, "COLDLINE": 0.02, "ARCHIVE": 0.05}
"""Dollars for an operation and for a GiB, written down apart from the product's file."""


@pytest.fixture
def billed(storage_url: str, bigquery_url: str, dataset: Dataset, forks: Forks) -> Iterator[Site]:
    """Fresh buckets in a Cloud Storage that counts by storage class."""
    with (
        BilledStorage(storage_url).running() as storage,
        LoadingBigQuery(bigquery_url).running() as bigquery,
    ):
        yield Site(storage, storage_url, bigquery.url, dataset, forks)


def storage_of(site: Site) -> BilledStorage:
    assert isinstance(site.storage, BilledStorage)
    return site.storage


def fill(site: Site, each: int) -> None:
    """Upload objects of every storage class."""
    for name in CLASSES:
        for number in range(each):
            site.upload(f"{name}/{number:03}.dcm", MR_SMALL)


def charged(site: Site) -> float:
    """Return what the requests so far cost, in dollars."""
    storage = storage_of(site)
    prices = {"A": CLASS_A, "B": CLASS_B}
    operations = sum(n * prices[kind][of] for (_, kind, of), n in storage.operations.items())
    retrieval = sum(n / 2**30 * RETRIEVAL[of] for (_, of), n in storage.fetched.items())
    return operations + retrieval


def test_a_run_costs_what_its_estimate_says(billed: Site) -> None:
    fill(billed, 30)
    billed.upload("notes/STANDARD/readme.txt", b"text")
    done = billed.backfill("--dry-run", "--no-sample", "--json")
    assert done.status == 0, done.err
    estimate = json.loads(done.out)
    storage = storage_of(billed)
    storage.operations.clear()
    storage.fetched.clear()
    run = billed.backfill()
    assert run.status == 0, run.err
    items = {item["name"]: item for item in estimate["items"]}
    for name in CLASSES[1:]:
        assert items[f"read {name}"]["amount"] == storage.operations[billed.source.name, "B", name]
        fetched = storage.fetched[billed.source.name, name] / 2**30
        assert items[f"retrieve {name}"]["amount"] == pytest.approx(fetched, rel=0.1)
    hot = {name: n for name, n in storage.reads.items() if name.startswith("STANDARD/")}
    assert set(hot.values()) == {2}, "each is in the sample, too"
    assert estimate["usd"] == pytest.approx(charged(billed), rel=0.1)
    assert estimate["objects"] == {
        "listed": 121,
        "ignored": 1,
        "sniffed": 0,
        "archives": 0,
        "known": 0,
        "toRead": 120,
    }
    assert "reads:           1.00 per object, and 100% of the first 64 KiB" in run.err
    again = billed.backfill("--dry-run", "--json")
    assert json.loads(again.out)["objects"]["toRead"] == 0


def test_a_budget_is_kept_by_runs_that_are_killed_and_resumed(billed: Site) -> None:
    """Cold objects are left out, then loaded; nothing twice, and nothing lost."""
    fill(billed, 24)
    for number in range(24, 48):
        billed.upload(f"ARCHIVE/{number:03}.dcm", MR_SMALL)
    hot = billed.backfill("--classes", "nearline,STANDARD", "--shard-objects", "2")
    assert hot.status == 0, hot.err
    assert "72 objects left out by --classes" in hot.out
    assert not {"ARCHIVE", "COLDLINE"} & {of for _, of in storage_of(billed).fetched}
    assert len(billed.live()) == 48
    storage = storage_of(billed)
    storage.operations.clear()
    storage.fetched.clear()
    storage.reads.clear()
    # The count has an attempt of its own: its cost depends on how threads share the bucket.
    nothing = billed.backfill("--shard-objects", "2", "--budget-usd", "0.0001")
    assert nothing.status == 1
    assert "budget of $0.00: covers 0 of " in nothing.err
    again = ("--resume", nothing.run, "--budget-usd", "0.0012")
    spent = charged(billed)
    ended = billed.backfill(*again)
    assert ended.status == 1, "the budget covers everything"
    assert charged(billed) - spent < 0.0012
    covered = re.search(r"budget of \$0.00: covers (\d+) of (\d+) remaining shards", ended.err)
    assert covered, ended.err
    assert 1 < int(covered[1]) < int(covered[2])
    killed = billed.killed(*again)
    assert killed.status == -9
    attempts = [nothing, ended, killed]
    while attempts[-1].status != 0:
        spent = charged(billed)
        attempts.append(billed.backfill(*again))
        assert attempts[-1].status in {0, 1}, attempts[-1].err
        assert charged(billed) - spent < 0.0012
        assert len(attempts) < 12
    for attempt in attempts:
        counts = re.search(
            r", (\d+) to convert .*\nBigQuery already has (\d+) of them", attempt.err
        )
        assert not counts or int(counts[2]) <= int(counts[1])
    complete = billed.backfill(*again)
    assert (complete.status, complete.out) == (0, attempts[-1].out), complete.err
    assert billed.live() == sorted(billed.objects.items())
    assert len(billed.rows()) == 120
    assert billed.dead_letters() == []


def test_the_count_is_part_of_the_budget(billed: Site) -> None:
    """A page lists at most two objects, so counting 40 objects spends a budget for 20 pages."""
    for number in range(40):
        billed.upload(f"STANDARD/{number:03}.dcm", MR_SMALL)
    budget = ("--budget-usd", f"{20 * CLASS_A['STANDARD']:.4f}")
    counted = billed.backfill("--shard-objects", "2", *budget)
    assert counted.status == 1
    assert "budget of $0.00: covers 0 of " in counted.err
    resumed = billed.backfill("--resume", counted.run, *budget)
    assert re.search(r"budget of \$0.00: covers [1-9]", resumed.err), resumed.err


def test_a_bucket_with_autoclass_is_read_only_with_consent(billed: Site) -> None:
    fill(billed, 2)
    storage, source = storage_of(billed), billed.source.name
    storage.settings[source] = {"autoclass": {"enabled": True}, "locationType": "multi-region"}
    refused = billed.backfill()
    assert refused.status == 2
    assert refused.err == (
        f"dcm2bq: gs://{source}: Autoclass is on, and reading an object moves it to Standard "
        "storage, where it stays for a month or longer. See with --dry-run what that costs, and "
        "accept it with --yes-autoclass\n"
    )
    dry = billed.backfill("--dry-run")
    assert dry.status == 0
    assert not storage.fetched
    assert "move ARCHIVE to Standard" in dry.out
    assert "retrieve ARCHIVE" not in dry.out
    storage.settings[source] = {}
    storage.may_read_settings = False
    unknown = billed.backfill()
    assert unknown.status == 2
    assert "its settings cannot be read, and it has objects in ARCHIVE, COLDLINE, NEARLINE" in (
        unknown.err
    )
    assert billed.names("b/") == []
    assert billed.backfill("--all", "--classes", "STANDARD").status == 0
    whole = billed.backfill("--yes-autoclass")
    assert whole.status == 0
    for folder in ("shards/", "batches/", "loaded/"):
        for name in billed.staged(whole.run, folder):
            billed.staging.delete(f"b/{whole.run}/{name}")
    resumed = billed.backfill("--resume", whole.run)
    assert (resumed.status, resumed.err) == (2, unknown.err)
    assert len(billed.staged(whole.run, "attempts/")) == 1, "a refused attempt is not recorded"
    assert len(billed.live()) == 8
