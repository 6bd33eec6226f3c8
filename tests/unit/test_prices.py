"""The packaged prices are the published ones, and a file in their place must be complete."""

from pathlib import Path

import pytest

from dcm2bq.errors import ConfigError
from dcm2bq.tools.prices import PACKAGED, read_prices

TEXT = PACKAGED.read_text()


@pytest.mark.parametrize(
    ("key", "dollars"),
    [
        # cloud.google.com/storage/pricing, September 2026
        (("class_a", "region", "STANDARD"), 0.005 / 1000),
        (("class_a", "region", "ARCHIVE"), 0.05 / 1000),
        (("class_a", "multi-region", "STANDARD"), 0.01 / 1000),
        (("class_a", "multi-region", "COLDLINE"), 0.04 / 1000),
        (("class_b", "region", "STANDARD"), 0.0004 / 1000),
        (("class_b", "region", "NEARLINE"), 0.001 / 1000),
        (("class_b", "multi-region", "COLDLINE"), 0.01 / 1000),
        (("class_b", "region", "ARCHIVE"), 0.05 / 1000),
        (("class_a_hierarchical", "multi-region", "ARCHIVE"), 0.13 / 1000),
        (("class_b_hierarchical", "region", "STANDARD"), 0.0005 / 1000),
        (("retrieval", "", "NEARLINE"), 0.01),
        (("retrieval", "", "COLDLINE"), 0.02),
        (("retrieval", "", "ARCHIVE"), 0.05),
        (("storage", "dual-region", "STANDARD"), 0.022),
        (("replication", "Asia", ""), 0.08),
        (("network", "Europe to Northern America", ""), 0.05),
        (("bigquery_query", "", ""), 6.25),
    ],
    ids=lambda value: " ".join(filter(None, value)) if isinstance(value, tuple) else "",
)
def test_a_packaged_price_is_the_published_one(key: tuple[str, str, str], dollars: float) -> None:
    assert read_prices().of(*key).each == pytest.approx(dollars)


def test_every_packaged_price_names_its_source_and_the_place_that_it_holds_for() -> None:
    for price in read_prices().by_key.values():
        assert price.source.startswith("https://cloud.google.com/")
        assert price.published_for


def test_a_file_replaces_the_packaged_prices(tmp_path: Path) -> None:
    file = tmp_path / "prices.tsv"
    file.write_text(
        "\ufeff" + TEXT.replace("retrieval\t\tARCHIVE\t0.05", "retrieval\t\tARCHIVE\t0.04")
    )
    assert read_prices(file).of("retrieval", "", "ARCHIVE").dollars == 0.04
    assert read_prices().of("retrieval", "", "ARCHIVE").dollars == 0.05


RETRIEVAL = next(line for line in TEXT.splitlines() if line.startswith("retrieval\t\tARCHIVE"))
NUMBER = TEXT.splitlines().index(RETRIEVAL) + 1


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (TEXT, "", ": is empty"),
        (TEXT, "\n# nothing\n", ": is empty"),
        ("storage_class\tprice", "class\tprice", ":4: the columns are not item, place, "),
        (RETRIEVAL, "", ": retrieval, ARCHIVE: the line is missing"),
        (RETRIEVAL, f"{RETRIEVAL}\n{RETRIEVAL}", f":{NUMBER + 1}: retrieval, ARCHIVE: the line is"),
        (RETRIEVAL, RETRIEVAL + "\tx", f":{NUMBER}: has 10 cells instead of 9"),
        ("ARCHIVE\t0.05\tUSD\tGiB\t", "GLACIER\t0.05\tUSD\tGiB\t", ": retrieval, GLACIER: the pa"),
        ("ARCHIVE\t0.05\tUSD\tGiB\t", "ARCHIVE\t-1\tUSD\tGiB\t", f":{NUMBER}: price: '-1' is not"),
        ("ARCHIVE\t0.05\tUSD\tGiB\t", "ARCHIVE\tnan\tUSD\tGiB\t", f":{NUMBER}: price: 'nan' is"),
        ("ARCHIVE\t0.05\tUSD\tGiB\t", "ARCHIVE\t0,05\tUSD\tGiB\t", f":{NUMBER}: price: '0,05'"),
        ("ARCHIVE\t0.05\tUSD\tGiB\t", "ARCHIVE\t0.05\tEUR\tGiB\t", f":{NUMBER}: currency: only U"),
        ("ARCHIVE\t0.05\tUSD\tGiB\t", "ARCHIVE\t0.05\tUSD\tGB\t", f":{NUMBER}: unit: is not one "),
        ("ARCHIVE\t0.05\tUSD\tGiB\t", "ARCHIVE\t0.05\tUSD\tTiB\t", ": retrieval, ARCHIVE: the uni"),
        (RETRIEVAL, RETRIEVAL.replace("2026-09-20", "2026"), f":{NUMBER}: date: is not a day"),
        (RETRIEVAL, RETRIEVAL.replace("https", "http"), f":{NUMBER}: source: is not an https://"),
    ],
)
def test_a_wrong_file_is_refused_with_the_line(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    file = tmp_path / "prices.tsv"
    file.write_text(TEXT.replace(old, new, 1))
    with pytest.raises(ConfigError) as caught:
        read_prices(file)
    assert str(caught.value).startswith(f"{file}{message}")


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "prices.xls"
    file.write_bytes(b"\xd0\xcf\x11\xe0")
    with pytest.raises(ConfigError, match=r": is not UTF-8$"):
        read_prices(file)
