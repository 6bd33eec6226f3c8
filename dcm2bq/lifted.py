"""The attributes that become columns of `instances`: the one list that all else follows.

The conversion lifts what stands here, the row type has a field for each, and `schema/` its
columns (`scripts/lifted_columns.py` writes them there).
"""

from typing import NamedTuple


class Lifted(NamedTuple):
    """An attribute with a column of its own, named by its keyword.

    `type` is BigQuery's: STRING, DATE, TIME or INTEGER. `remark` ends the column's description.
    """

    keyword: str
    tag: int
    type: str = "STRING"
    remark: str = ""

    @property
    def description(self) -> str:
        """What the schema says of the column."""
        return f"({self.tag >> 16:04X},{self.tag & 0xFFFF:04X}) from the header{self.remark}"


_NO_DATE = "; null when it is no date"

ORIGINAL = (
    Lifted("StudyInstanceUID", 0x0020000D),
    Lifted("SeriesInstanceUID", 0x0020000E),
    Lifted("SOPInstanceUID", 0x00080018),
    Lifted("SOPClassUID", 0x00080016, remark=": the kind of object"),
    Lifted("Modality", 0x00080060),
    Lifted("PatientID", 0x00100020),
    Lifted("StudyDate", 0x00080020, "DATE", _NO_DATE),
)
"""The columns that every row has, by whichever release it was written."""

ADDED = (
    Lifted("PatientName", 0x00100010, remark=", with all its component groups"),
    Lifted("PatientBirthDate", 0x00100030, "DATE", _NO_DATE),
    Lifted("PatientSex", 0x00100040),
    Lifted(
        "StudyTime",
        0x00080030,
        "TIME",
        "; minutes and seconds that it lacks are zero; null when it is no time",
    ),
    Lifted("AccessionNumber", 0x00080050),
    Lifted("StudyDescription", 0x00081030),
    Lifted("SeriesDescription", 0x0008103E),
    Lifted("SeriesNumber", 0x00200011, "INTEGER", "; null when it is no integer"),
    Lifted("InstanceNumber", 0x00200013, "INTEGER", "; null when it is no integer"),
    Lifted("Manufacturer", 0x00080070),
    Lifted("ManufacturerModelName", 0x00081090),
    Lifted("StationName", 0x00081010),
    Lifted("BodyPartExamined", 0x00180015),
)
"""The columns of later releases, at the end of the table and NULL in older rows: the views fill
them in from the header. Append to this tuple; BigQuery moves no column."""

LIFTED = (*ORIGINAL, *ADDED)
