"""Structured reports: radiation dose (TID 10001, 10011) and measurements (TID 1500)."""

from collections.abc import Iterator, Sequence
from typing import Any

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence

from tests.support.dicom_made.part10 import content, header

DOSE_REPORT = "1.2.840.10008.5.1.4.1.1.88.67"
COMPREHENSIVE_3D = "1.2.840.10008.5.1.4.1.1.88.34"
SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
ROOT = "1.2.826.0.1.3680043.10.1."
"""Root of all UIDs here."""

type Items = Sequence[Dataset]


def code(value: str, scheme: str = "DCM", meaning: str = "any") -> Dataset:
    """Return an item of a code sequence; the meanings of concepts are not those of PS3.16."""
    return header(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)


def concept(text: str) -> Dataset:
    """Return a code written as `DCM:113819`, or `113819` for the scheme DCM."""
    scheme, _, value = text.rpartition(":")
    return code(value, scheme or "DCM", f"meaning of {value}")


def item(
    value_type: str,
    name: str | None,
    *children: Dataset,
    relationship: str = "CONTAINS",
    **values: Any,
) -> Dataset:
    """Return a content item (PS3.3 C.17.3); `name` is its concept."""
    made = header(RelationshipType=relationship, ValueType=value_type, **values)
    if name is not None:
        made.ConceptNameCodeSequence = [concept(name)]
    if children:
        made.ContentSequence = DicomSequence(children)
    return made


def container(name: str, *children: Dataset) -> Dataset:
    return item("CONTAINER", name, *children, ContinuityOfContent="SEPARATE")


def number(name: str, value: Any, unit: str, *children: Dataset) -> Dataset:
    """Return a NUM item; `value` is a number, or the decimal string to write for it."""
    measured = header(NumericValue=value, MeasurementUnitsCodeSequence=[code(unit, "UCUM")])
    return item("NUM", name, *children, MeasuredValueSequence=[measured])


def coded(name: str, value: Dataset, *children: Dataset, modifies: bool = False) -> Dataset:
    relationship = "HAS CONCEPT MOD" if modifies else "CONTAINS"
    return item("CODE", name, *children, relationship=relationship, ConceptCodeSequence=[value])


def text(name: str, value: str, *, observes: bool = False) -> Dataset:
    relationship = "HAS OBS CONTEXT" if observes else "CONTAINS"
    return item("TEXT", name, relationship=relationship, TextValue=value)


def uid(name: str, value: str, *, observes: bool = False) -> Dataset:
    relationship = "HAS OBS CONTEXT" if observes else "CONTAINS"
    return item("UIDREF", name, relationship=relationship, UID=value)


def moment(name: str, value: str) -> Dataset:
    return item("DATETIME", name, DateTime=value)


def report(number_: int, title: str, *children: Dataset, study: int = 1, **more: Any) -> bytes:
    """Return a document; `number_` makes its UID, `study` that of its study."""
    attributes = {
        "SOPClassUID": DOSE_REPORT,
        "SOPInstanceUID": f"{ROOT}3.{number_}",
        "StudyInstanceUID": f"{ROOT}1.{study}",
        "SeriesInstanceUID": f"{ROOT}2.{study}",
        "Modality": "SR",
        "StudyDate": "20240305",
        "PatientID": f"P{study}",
        "Manufacturer": "Workstation Makers",
        "ManufacturerModelName": "Collector",
        "DeviceSerialNumber": "W-1",
        "ValueType": "CONTAINER",
        "ContinuityOfContent": "SEPARATE",
        "ConceptNameCodeSequence": [concept(title)],
        "ContentSequence": DicomSequence(children),
        **more,
    }
    return content(header(**attributes))


OBSERVER = (
    text("121014", "Scanner Makers", observes=True),
    text("121015", "Model 7", observes=True),
    text("121016", "S-7", observes=True),
)


def ct_event(
    name: str | None,
    *,
    protocol: str | None = "Thorax",
    kind: str = "SCT:116152004",
    ctdi: Any = None,
    dlp: Any = None,
    dlp_unit: str = "mGy.cm",
    started: str = "20240305101500.25+0100",
) -> Dataset:
    """Return an irradiation event of TID 10013; `name` ends its UID."""
    children = [moment("111526", started), coded("113820", concept(kind))]
    if protocol is not None:
        children.append(text("125203", protocol))
    if name is not None:
        children.append(uid("113769", f"{ROOT}9.{name}"))
    children.append(coded("123014", concept("SCT:51185008")))
    source = container(
        "113831", text("113832", "A"), number("113733", 120, "kV"), number("113734", 211.5, "mA")
    )
    children.append(
        container("113822", number("113824", 8.5, "s"), number("113825", 345, "mm"), source)
    )
    dose = []
    if ctdi is not None:
        dose.append(number("113830", ctdi, "mGy"))
        dose.append(coded("113835", concept("113691")))
    if dlp is not None:
        dose.append(number("113838", dlp, dlp_unit))
    if dose:
        children.append(container("113829", *dose))
    return container("113819", *children)


def ct_total(events: int, dlp: Any, unit: str = "mGy.cm") -> Dataset:
    """Return the accumulated dose of TID 10012."""
    return container("113811", number("113812", events, "{events}"), number("113813", dlp, unit))


def xray_event(
    name: str | None,
    *,
    plane: str = "113622",
    kind: str = "SCT:44491008",
    dap: tuple[Any, str] | None = None,
    dose: tuple[Any, str] | None = None,
    glandular: tuple[Any, str] | None = None,
    laterality: str | None = None,
    device: Items = (),
) -> Dataset:
    """Return an irradiation event of TID 10003."""
    children = [
        coded("113764", concept(plane)),
        coded("113721", concept(kind)),
        moment("111526", "20240305111500"),
        text("125203", "Coronary"),
        number("113733", 75, "kV"),
        *device,
    ]
    if name is not None:
        children.append(uid("113769", f"{ROOT}9.{name}"))
    if laterality:
        side = coded("SCT:272741003", concept(laterality), modifies=True)
        children.append(coded("123014", concept("SCT:76752008"), side))
    for concept_name, value in (("122130", dap), ("113738", dose), ("111631", glandular)):
        if value is not None:
            children.append(number(concept_name, *value))
    return container("113706", *children)


def xray_total(plane: str, *totals: Dataset) -> Dataset:
    """Return the accumulated dose of one plane, TID 10002."""
    return container("113702", coded("113764", concept(plane), modifies=True), *totals)


def dose_reports() -> Iterator[tuple[str, bytes]]:
    """Yield dose reports with the traps of real ones."""
    first = ct_event("1.1", ctdi=7.25, dlp=251.3)
    localizer = ct_event("1.2", kind="113805", dlp="3.5", dlp_unit="mGycm", protocol="Scout")
    without_protocol = ct_event("1.3", protocol=None, ctdi="12", dlp="0.9", dlp_unit="Gy.cm")
    ct = (*OBSERVER, ct_total(3, 344.8), first, localizer, without_protocol)
    yield "reports/dose/ct.dcm", report(1, "113701", *ct)
    for count in (1, 2, 3):
        events = [ct_event(f"2.{n}", ctdi=n, dlp=10 * n) for n in range(1, count + 1)]
        total = ct_total(count, sum(10 * n for n in range(1, count + 1)))
        cumulative = report(10 + count, "113701", *OBSERVER, total, *events, study=2)
        yield f"reports/dose/cumulative_{count}.dcm", cumulative
    yield "reports/dose/copy of cumulative_3.dcm", cumulative
    device = item(
        "CODE",
        "113876",
        text("113878", "Angio Makers"),
        text("113879", "Biplane 2"),
        text("113880", "B-2"),
        ConceptCodeSequence=[concept("113859")],
    )
    biplane = (
        xray_total(
            "113620",
            number("113722", "0.000123", "Gy.m2"),
            number("113725", "0.02", "Gy"),
            number("113730", 61, "s"),
        ),
        xray_total(
            "113621",
            number("113722", "0.5", "dGy.cm2"),
            number("113725", 4, "mGy"),
            number("113730", 0.5, "min"),
        ),
        xray_event(
            "3.1", plane="113620", dap=(0.0001, "Gym2"), dose=(0.015, "Gy"), device=(device,)
        ),
        xray_event("3.1", plane="113621", dap=(4, "uGy.m2"), dose=(4, "mGy"), device=(device,)),
        xray_event("3.2", plane="113620", kind="113611", dap=(23, "µGym2"), dose=(5, "mGy")),
        xray_event("3.3", plane="113620", kind="113611", dap=(0.01, "Gy.cm2")),
    )
    yield "reports/dose/biplane.dcm", report(20, "113701", *biplane, study=3)
    breasts = (
        xray_total("113622", number("111637", "0.021", "dGy")),
        xray_event("4.1", glandular=(1.25, "mGy"), laterality="SCT:7771000"),
        xray_event("4.2", glandular=("0.0175", "dGy"), laterality="SCT:24028007"),
    )
    yield "reports/dose/mammography.dcm", report(21, "113701", *breasts, study=4)
    knees = [
        ct_event(
            f"6.{number_}", protocol="Knee", ctdi=dlp / 10, dlp=dlp, started=f"2024030{number_}"
        )
        for number_, dlp in enumerate((100, 95, 105, 110, 320), start=1)
    ]
    yield (
        "reports/dose/knees.dcm",
        report(23, "113701", *OBSERVER, ct_total(5, 730), *knees, study=8),
    )
    yield "reports/dose/broken.dcm", broken_dose_report()
    yield "reports/dose/enormous.dcm", enormous_dose_report()


def broken_dose_report() -> bytes:
    """Return a report whose values break their VRs, are lists, are empty or are absent."""
    listed = number("113830", [3.5, 4.5], "mGy")
    no_value = item("NUM", "113838", MeasuredValueSequence=[])
    no_unit = item("NUM", "113830", MeasuredValueSequence=[header(NumericValue="9")])
    empty_name = item("TEXT", None, TextValue="x", ConceptNameCodeSequence=[])
    events = (
        container("113819", uid("113769", f"{ROOT}9.5.1"), container("113829", listed, no_value)),
        container("113819", container("113829", no_unit, number("113838", 2, "furlong"))),
        ct_event(None, ctdi="", dlp=7),
        container("113819"),
        empty_name,
        item("CONTAINER", "113819", ContentSequence=[]),
    )
    made = report(22, "113701", *events, study=5, PatientID=["a", "b"])
    return made.replace(b"20240305", b"2024 5 3")


def enormous_dose_report() -> bytes:
    """Return a report with finite numbers, of which the products, sums and counts overflow."""
    ct = [
        ct_event(f"10.{n}", protocol="Enormous", ctdi="1.7e308", dlp="-1.7e308", dlp_unit="Gy.m")
        for n in (1, 2)
    ]
    dap, dose = ("1.7e308", "Gy.m2"), ("1.7e308", "mGy")
    xray = [xray_event(f"10.{n}", dap=dap, dose=dose, glandular=dose) for n in (3, 4)]
    totals = [
        xray_total("113622", number("113722", *dap), number("113725", *dose)) for _ in range(2)
    ]
    many = container("113811", number("113812", "1e300", "{events}"), number("113813", *dap))
    return report(24, "113701", *OBSERVER, many, *totals, *ct, *xray, study=10)


NO_NUMBER, TOO_LARGE = "987", "98765"
"""Replaced in the file by what is not a number, and by one that is infinite as a FLOAT64."""
SITE, OLD_SITE = "SCT:363698007", "SRT:G-C0E3"
SIDE, OLD_SIDE = "SCT:272741003", "SRT:G-C171"


def group(name: str | None, *children: Dataset) -> Dataset:
    """Return a measurement group (TID 1411, 1501)."""
    tracking = []
    if name is not None:
        tracking = [
            text("112039", f"Lesion {name}", observes=True),
            uid("112040", f"{ROOT}8.{name}", observes=True),
        ]
    return container("125007", *tracking, *children)


def site(concept_name: str, value: str, *children: Dataset) -> Dataset:
    return coded(concept_name, concept(value), *children, modifies=True)


def measurement_reports() -> Iterator[tuple[str, bytes]]:
    """Yield documents of TID 1500, with and without sites, coded and numeric."""
    segment = header(
        ReferencedSOPClassUID=SEGMENTATION,
        ReferencedSOPInstanceUID=f"{ROOT}3.900",
        ReferencedSegmentNumber=2,
    )
    derived = number(
        "SCT:410668003",
        "12.5",
        "mm",
        coded("121401", concept("SCT:56851009"), modifies=True),
        coded("SCT:370129005", concept("112050"), modifies=True),
    )
    other_site = number("SCT:118565006", 1.5, "cm3", site(SITE, "SCT:23451007"))
    groups = (
        group(
            "1",
            coded("121071", concept("SCT:4147007")),
            coded("SCT:276214006", concept("SCT:49755003")),
            site(SITE, "SCT:10200004", coded(SIDE, concept("SCT:24028007"), modifies=True)),
            item("IMAGE", "121191", ReferencedSOPSequence=[segment]),
            derived,
            other_site,
            coded("RADLEX:RID5707", concept("RADLEX:RID5741")),
            text("NCIt:C67447", "a session", observes=True),
        ),
        group(
            "2",
            site(OLD_SITE, "SRT:T-28000"),
            coded(OLD_SIDE, concept("SRT:G-A100"), modifies=True),
            number("SRT:G-D7FE", "-3.25", "[hnsf'U]"),
        ),
        group("3", number("SCT:118565006", 4, "mm3"), text("112222", "spiculated")),
        group(
            None,
            number("SCT:118565006", NO_NUMBER, "mm3"),
            number("SCT:118565006", TOO_LARGE, "mm3"),
            coded("112223", concept("1")),
        ),
        container("125007"),
    )
    measurements = container("126010", *groups)
    outside = number("SCT:118565006", 99, "mm3")
    made = report(
        30,
        "126000",
        measurements,
        outside,
        study=6,
        SOPClassUID=COMPREHENSIVE_3D,
        StudyDate="20240401",
    )
    made = made.replace(TOO_LARGE.encode(), b"1e999").replace(NO_NUMBER.encode(), b"abc")
    yield "reports/measurements/lesions.dcm", made
    yield "reports/measurements/copy of lesions.dcm", made
    smaller = group(
        "1",
        coded("121071", concept("SCT:4147007")),
        site(SITE, "SCT:10200004", coded(SIDE, concept("SCT:24028007"), modifies=True)),
        item("IMAGE", "121191", ReferencedSOPSequence=[segment]),
        number("SCT:410668003", 9, "mm", coded("121401", concept("SCT:56851009"), modifies=True)),
        number("SCT:118565006", 1.25, "cm3"),
    )
    later = report(
        *(31, "126000", container("126010", smaller)),
        study=9,
        SOPClassUID=COMPREHENSIVE_3D,
        PatientID="P6",
        StudyDate="20240701",
        AccessionNumber="A-2024-9",
    )
    yield "reports/measurements/three months later.dcm", later


def deep_report() -> bytes:
    """Return a document of 40 levels, whose deepest item refers to another by its position."""
    deepest = header(RelationshipType="SELECTED FROM", ReferencedContentItemIdentifier=[1, 1])
    nested = item("TEXT", "121106", deepest, TextValue="the deepest")
    for _ in range(38):
        nested = container("121070", nested)
    others = [text("121106", f"number {n}") for n in range(11)]
    return report(40, "121070", nested, *others, study=7)


def files() -> Iterator[tuple[str, bytes]]:
    """Yield every made report."""
    yield from dose_reports()
    yield from measurement_reports()
    yield "reports/deep.dcm", deep_report()
