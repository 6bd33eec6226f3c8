"""The attributes that have columns in `instances`: the only list of them.

The conversion and the row type follow this list directly; `scripts/lifted_columns.py` writes it
into the files of `schema/`.
"""

from typing import NamedTuple


class Lifted(NamedTuple):
    """An attribute with a column, which has its keyword as name.

    `type` is BigQuery's: STRING, DATE, TIME or INTEGER. `remark` is appended to the description.
    """

    keyword: str
    tag: int
    type: str = "STRING"
    remark: str = ""

    @property
    def description(self) -> str:
        """The description of the column in the schema."""
        return f"({self.tag >> 16:04X},{self.tag & 0xFFFF:04X}) from the header{self.remark}"


_NO_DATE = "; null if it is not a date"
_NO_INTEGER = "; null if it is not an integer"

ORIGINAL = (
    Lifted("StudyInstanceUID", 0x0020000D),
    Lifted("SeriesInstanceUID", 0x0020000E),
    Lifted("SOPInstanceUID", 0x00080018),
    Lifted("SOPClassUID", 0x00080016, remark=": the kind of object"),
    Lifted("Modality", 0x00080060),
    Lifted("PatientID", 0x00100020),
    Lifted("StudyDate", 0x00080020, "DATE", _NO_DATE),
)
"""The columns that have existed since the first release: every row has them."""

ADDED = (
    Lifted("PatientName", 0x00100010, remark=", with all component groups"),
    Lifted("PatientBirthDate", 0x00100030, "DATE", _NO_DATE),
    Lifted("PatientSex", 0x00100040),
    Lifted(
        "StudyTime",
        0x00080030,
        "TIME",
        "; missing minutes and seconds are zero; null if it is not a time",
    ),
    Lifted("AccessionNumber", 0x00080050),
    Lifted("StudyDescription", 0x00081030),
    Lifted("SeriesDescription", 0x0008103E),
    Lifted("SeriesNumber", 0x00200011, "INTEGER", _NO_INTEGER),
    Lifted("InstanceNumber", 0x00200013, "INTEGER", _NO_INTEGER),
    Lifted("Manufacturer", 0x00080070),
    Lifted("ManufacturerModelName", 0x00081090),
    Lifted("StationName", 0x00081010),
    Lifted("BodyPartExamined", 0x00180015),
)
"""The columns of later releases, in the order of the table. They are NULL in older rows, where the
views read them from the header. Append only: BigQuery cannot move a column."""

LIFTED = (*ORIGINAL, *ADDED)
