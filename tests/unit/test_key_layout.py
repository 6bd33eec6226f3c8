"""The keys of rows and a listing are merged, whatever their paths."""

from itertools import groupby

from hypothesis import given
from hypothesis import strategies as st

from dcm2bq.stored_object import StoredObject
from dcm2bq.tools.key_layout import merge

NAMES = st.text("aZ/é\uffff\U00010000", min_size=1, max_size=3)


@given(names=st.sets(NAMES), rows=st.lists(NAMES))
def test_each_object_meets_the_rows_of_its_path_and_no_row_is_lost(
    names: set[str], rows: list[str]
) -> None:
    listed = [
        (name, StoredObject(bucket="scans", name=name, generation=1)) for name in sorted(names)
    ]
    ordered = sorted(rows)
    merged = list(merge([(name, name) for name in ordered], listed))
    assert [stored.name for stored, _ in merged if stored] == sorted(names)
    assert [name for _, group in merged for name in group] == ordered
    with_rows = {name: list(group) for name, group in groupby(ordered)}
    for stored, group in merged:
        if stored:
            assert group == with_rows.get(stored.name, [])
        else:
            assert group == with_rows[group[0]]
            assert group[0] not in names


def test_the_first_row_is_read_before_the_listing_begins() -> None:
    """An object that is created in between then only seems to lack its row."""
    read = []

    def rows() -> list[tuple[str, str]]:
        read.append("rows")
        return [("b", "b")]

    def objects() -> list[tuple[str, StoredObject]]:
        read.append("objects")
        return []

    merged = merge(
        (row for source in (rows,) for row in source()), (o for s in (objects,) for o in s())
    )
    assert [group for _, group in merged] == [["b"]]
    assert read == ["rows", "objects"]
