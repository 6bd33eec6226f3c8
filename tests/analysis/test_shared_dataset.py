"""The dataset that the tests of the views share."""

from dcm2bq.bigquery.dataset import Dataset
from tests.analysis.conftest import engine_dataset
from tests.support.analysis_objects import all_objects, made_objects


def test_every_object_is_in_the_shared_dataset(analysis_dataset: Dataset) -> None:
    rows = analysis_dataset.query("SELECT path FROM instances_live")
    assert sorted(row["path"] for row in rows) == sorted(each.path for each in all_objects())


def test_made_objects_can_be_evaluated_by_googles_engine() -> None:
    rows = engine_dataset("reports/dose/c").query("SELECT path FROM instances_live")
    assert {row["path"] for row in rows} == {each.path for each in made_objects("reports/dose/c")}
    assert len(rows) == 5
