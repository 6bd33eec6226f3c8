"""DICOM objects made by pydicom for the tests of the analysis views, by subject.

Each module has a function `files` that yields the name and the content of each object. The first
folder of a name is the subject, so that a test can choose: `reports/dose/ct.dcm`.
"""

from collections.abc import Iterator

from tests.support.dicom_made import fleet, mistakes, regions, reports, scanners, series

SUBJECTS = (reports, series, scanners, mistakes, fleet, regions)


def files() -> Iterator[tuple[str, bytes]]:
    """Yield the name and the content of every made object."""
    for subject in SUBJECTS:
        yield from subject.files()
