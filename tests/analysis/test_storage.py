"""`storage` and the sizes of the files."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import pytest

from dcm2bq.bigquery.dataset import Dataset
from tests.analysis import test_quality_findings as findings
from tests.support import googlesql
from tests.support.analysis_objects import all_objects
from tests.support.googlesql_views import EngineDataset

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's, of odd files

COLUMNS = "Modality, storage_class, transfer_syntax_uid, study_year, objects, members, bytes"


def test_the_view_agrees_with_the_files(analysis_dataset: Dataset) -> None:
    sizes: Mapping[tuple[Any, ...], list[int]] = defaultdict(list)
    for each in all_objects():
        day = findings.day(findings.text(each.header, "StudyDate"))
        syntax = each.conversion.transfer_syntax_uid
        year = day.year if day else None
        sizes[findings.text(each.header, "Modality"), "STANDARD", syntax, year].append(
            len(each.content)
        )
    rows = analysis_dataset.query(f"SELECT {COLUMNS} FROM storage")
    assert len(rows) == len(sizes)
    assert {tuple(row.values()) for row in rows} == {
        (*key, len(several), 0, sum(several)) for key, several in sizes.items()
    }


@pytest.mark.timeout(googlesql.TIMEOUT)
def test_members_of_archives_count_with_their_own_sizes() -> None:
    dataset = EngineDataset()
    for number, member in enumerate(("a.dcm", "b.dcm", None)):
        dataset.insert(
            "instances",
            {
                "timestamp": "2024-01-01T00:00:00Z",
                "ingested_at": "2024-01-01T00:00:00Z",
                "event": "finalized",
                "path": "gs://bucket/single.dcm" if member is None else "gs://bucket/study.zip",
                "version": "1",
                "Modality": "CT",
                "SOPInstanceUID": f"1.{number}",
                "member": member,
                "info": {"input": {"size": 10 ** (number + 1), "storage_class": "NEARLINE"}},
                "metadata": {},
            },
        )
    (row,) = dataset.query(f"SELECT {COLUMNS} FROM storage")
    assert (row["objects"], row["members"], int(row["bytes"])) == (3, 2, 1110)
