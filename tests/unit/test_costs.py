"""What listing, reading and moving objects costs, by storage class and location."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcm2bq.gcs.bucket_settings import (
    DUAL_REGION,
    MULTI_REGION,
    BucketSettings,
    Placement,
    Switch,
)
from dcm2bq.stored_object import StoredObject
from dcm2bq.tools.backfill import costs
from dcm2bq.tools.backfill.costs import GIB, Terms, Work
from dcm2bq.tools.backfill.estimate import Estimate
from dcm2bq.tools.backfill.launch import BucketCount
from dcm2bq.tools.backfill.plan import Shard
from dcm2bq.tools.backfill.read_sample import ReadRate
from dcm2bq.tools.backfill.storage_classes import ClassCount, class_of, sum_of, tally, total
from dcm2bq.tools.prices import read_prices

PAGE = Path(__file__).parents[2] / "docs" / "BACKFILL.md"
PRICES = read_prices()
ARCHIVE = {"ARCHIVE": ClassCount(objects=1_000_000, bytes=500 * GIB, heads=61 * GIB)}


def terms(source: BucketSettings | None = None, **others: object) -> Terms:
    return Terms(prices=PRICES, source=source or BucketSettings(location="EUROPE-WEST1"), **others)  # type: ignore[arg-type]


def dollars(terms: Terms, reads: Mapping[str, ClassCount], listings: int = 0) -> dict[str, float]:
    """Return what is charged, by item, except for staging."""
    items = costs.cost_items(terms, Work(listings=listings, reads=reads))
    return {item.name: round(item.dollars, 4) for item in items if "staged" not in item.name}


def shard(number: int, **classes: int) -> Shard:
    counts = {
        name: ClassCount(objects=n, bytes=n * 100_000, heads=n * 65536)
        for name, n in classes.items()
    }
    objects = sum(classes.values())
    whole = objects * 100_000
    return Shard(
        number=number,
        start="",
        end="",
        listed=objects,
        objects=objects,
        bytes=whole,
        classes=counts,
    )


def test_objects_are_counted_by_storage_class() -> None:
    def stored(name: str, size: int | None, storage_class: str | None) -> StoredObject:
        return StoredObject(
            bucket="bucket", name=name, generation=1, size=size, storage_class=storage_class
        )

    counts = tally(
        [
            stored("a", 10, None),
            stored("b", 1_000_000, "REGIONAL"),
            stored("c", 70_000, "ARCHIVE"),
            stored("d", None, "MULTI_REGIONAL"),
        ]
    )
    assert counts == {
        "STANDARD": ClassCount(objects=3, bytes=1_000_010, heads=65_546),
        "ARCHIVE": ClassCount(objects=1, bytes=70_000, heads=65_536),
    }
    assert total([counts, counts])["ARCHIVE"].objects == 2
    assert class_of(stored("e", 1, "RAPID")) == "RAPID"


def test_an_archive_costs_a_hundred_times_what_standard_does() -> None:
    """The figures are those of docs/PERFORMANCE.md: a million objects, 61 GiB of first reads."""
    assert dollars(terms(), ARCHIVE) == {"read ARCHIVE": 50.0, "retrieve ARCHIVE": 3.05}
    hot = {"STANDARD": ARCHIVE["ARCHIVE"]}
    assert dollars(terms(), hot) == {"read STANDARD": 0.4}
    cold = dict.fromkeys(("NEARLINE", "COLDLINE"), ARCHIVE["ARCHIVE"])
    assert dollars(terms(), cold) == {
        "read NEARLINE": 1.0,
        "retrieve NEARLINE": 0.61,
        "read COLDLINE": 10.0,
        "retrieve COLDLINE": 1.22,
    }


def test_a_storage_class_without_a_price_costs_what_the_dearest_does() -> None:
    assert dollars(terms(), {"NEW": ARCHIVE["ARCHIVE"]}) == {
        "read NEW": 50.0,
        "retrieve NEW": 3.05,
    }


def test_a_listing_has_the_price_of_the_default_class_and_of_the_kind_of_location() -> None:
    """Reads have that of the object."""

    def listing(**settings: object) -> float:
        bucket = BucketSettings(**settings)  # type: ignore[arg-type]
        return dollars(terms(bucket), {}, listings=1_000_000)["list the bucket"]

    assert listing() == 5.0
    assert listing(location_type=MULTI_REGION) == 10.0
    assert listing(location_type=DUAL_REGION, storage_class="ARCHIVE") == 100.0
    assert listing(storage_class="ARCHIVE", autoclass=Switch(enabled=True)) == 5.0
    assert listing(hierarchical_namespace=Switch(enabled=True)) == 6.5
    assert listing(location_type="zone") == 5.0


def test_autoclass_charges_for_the_move_and_for_standard_storage_but_no_retrieval() -> None:
    source = BucketSettings(location="EUROPE-WEST1", autoclass=Switch(enabled=True))
    assert dollars(terms(source), ARCHIVE) == {
        "read ARCHIVE": 0.4,
        "move ARCHIVE to Standard": 5.0,
        "store ARCHIVE in Standard": 9.4,
    }
    near = {"NEARLINE": ARCHIVE["ARCHIVE"], "STANDARD": ARCHIVE["ARCHIVE"]}
    assert dollars(terms(source), near) == {
        "read STANDARD": 0.4,
        "read NEARLINE": 0.4,
        "store NEARLINE in Standard": 5.0,
    }


def test_the_measured_reads_count() -> None:
    compressed = terms(rate=ReadRate(sampled=50, reads=2.0, factor=4.0))
    assert dollars(compressed, ARCHIVE) == {"read ARCHIVE": 100.0, "retrieve ARCHIVE": 12.2}
    huge = terms(rate=ReadRate(sampled=50, reads=2.0, factor=400.0))
    assert dollars(huge, ARCHIVE)["retrieve ARCHIVE"] == 25.0, "no more than all bytes"


@pytest.mark.parametrize(
    ("source", "region", "price"),
    [
        (BucketSettings(location="EUROPE-WEST1"), None, None),
        (BucketSettings(location="EUROPE-WEST1"), "europe-west1", None),
        (BucketSettings(location="EUROPE-WEST1"), "europe-west4", 0.02),
        (BucketSettings(location="EU", location_type=MULTI_REGION), "europe-west1", 0.02),
        (BucketSettings(location="US-EAST1"), "asia-southeast2", 0.10),
        (BucketSettings(location="MARS-NORTH1"), "europe-west1", 0.14),
        (
            BucketSettings(
                location="EU",
                location_type=DUAL_REGION,
                custom_placement_config=Placement(("EUROPE-WEST1", "EUROPE-NORTH1")),
            ),
            "europe-north1",
            None,
        ),
    ],
)
def test_workers_in_another_location_pay_for_the_network(
    source: BucketSettings, region: str | None, price: float | None
) -> None:
    found = costs.network_price(terms(source, region=region))
    assert (found and found.dollars) == price


def test_staging_in_a_cold_or_replicated_bucket_costs_more() -> None:
    def staging(bucket: BucketSettings) -> dict[str, float]:
        work = Work(reads=ARCHIVE, shards=100)
        items = costs.cost_items(terms(staging=bucket), work)
        return {item.name: round(item.dollars, 4) for item in items if "staged" in item.name}

    assert staging(BucketSettings(location="EUROPE-WEST1")) == {
        "write and list staged rows": 0.0023
    }
    assert staging(BucketSettings(location="EU", location_type=MULTI_REGION)) == {
        "write and list staged rows": 0.0045,
        "replicate staged rows": 0.0149,
    }
    assert "delete staged rows early" in staging(BucketSettings(storage_class="COLDLINE"))


def test_known_objects_of_a_shard_count_as_its_cheapest() -> None:
    work = costs.shard_work(shard(0, STANDARD=60, ARCHIVE=40), (), 70)
    assert {name: group.objects for name, group in work.reads.items()} == {
        "ARCHIVE": 30,
        "STANDARD": 0,
    }
    chosen = costs.shard_work(shard(0, STANDARD=60, ARCHIVE=40), ("STANDARD",), 70)
    assert {name: group.objects for name, group in chosen.reads.items()} == {"STANDARD": 30}


@given(
    st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99)), min_size=1, max_size=9),
    st.floats(0, 0.1),
    st.integers(0, 150),
)
def test_a_budget_is_never_exceeded_and_goes_as_far_as_it_can(
    sizes: list[tuple[int, int]], budget: float, known: int
) -> None:
    shards = [shard(n, STANDARD=hot, ARCHIVE=cold) for n, (hot, cold) in enumerate(sizes)]
    works = {each.number: costs.shard_work(each, (), known) for each in shards}
    prices = [costs.cost_of(terms(), works[each.number]) for each in shards]
    chosen, cost = costs.within_budget(terms(), budget, shards, works)
    assert list(chosen) == shards[: len(chosen)]
    assert cost == pytest.approx(sum(prices[: len(chosen)]))
    assert cost <= budget
    assert len(chosen) == len(shards) or cost + prices[len(chosen)] > budget
    for each in shards:
        new = max(each.objects - known, 0)
        assert sum_of(works[each.number].reads).objects == new


def estimate(**others: object) -> Estimate:
    shards = [shard(0, STANDARD=500_000, ARCHIVE=500_000)]
    count = BucketCount(shards, requests=1001, seconds=11)
    return Estimate(count=count, terms=terms(), **others)  # type: ignore[arg-type]


def test_the_estimate_is_the_table_of_the_page_with_its_assumptions() -> None:
    lines = list(estimate(known=200_000).lines())
    shown = PAGE.read_text().partition("```\nstorage class  objects")[2].partition("```")[0]
    assert f"\nstorage class  objects{shown}" in "\n".join([*lines, ""])
    assumptions = dict(line.split(":", 1) for line in lines[len(lines) - lines[::-1].index("") :])
    assert list(assumptions) == [
        *("prices", "bucket", "staging", "reads", "known objects", "early deletion"),
        *("network", "load jobs", "rows", "logs"),
    ]
    assert assumptions["early deletion"].endswith("none for the objects: reading deletes nothing")
    assert "was not read" not in assumptions["bucket"]
    assert "its settings were not read, which takes storage.buckets.get" in assumptions["staging"]


def test_storage_classes_can_be_left_out_of_the_estimate() -> None:
    document = estimate(classes=("STANDARD",)).document()
    assert document["storageClasses"]["ARCHIVE"] == {
        "objects": 500_000,
        "bytes": 50_000_000_000,
        "toRead": 0,
        "isLeftOut": True,
    }
    assert document["objects"]["toRead"] == 500_000
    assert document["usd"] < 0.3
    assert any(
        "left out" in line and line.startswith("ARCHIVE")
        for line in estimate(classes=("STANDARD",)).lines()
    )
