"""What codes mean by the standard, whatever an object says (PS3.16)."""

from functools import cache
from importlib import import_module

_UNITS = "UCUM"
_OLD_SNOMED = frozenset({"SRT", "SNM3", "99SDM"})
"""Designators of SNOMED RT codes, which SNOMED CT has replaced (PS3.16 8.1)."""
SCHEMES = _OLD_SNOMED | {
    *("BARI", "BI", "C4", "CPT4", "DCM", "FMA", "HCPCS", "IBSI", "ITIS_TSN", "LN", "LOINC"),
    *("MA", "MDC", "MSH", "NCIt", "NDC", "NEU", "PATHLEX", "PUBCHEM_CID", "RADLEX", "RXNORM"),
    *("SCT", "UBERON", "UCUM", "UMLS", "UNS"),
}
"""Designators without a digit that PS3.16 8 lists for codes of patients, devices and units."""
_ZERO_WIDTH_SPACE = "\u200b"


def standard_meaning(scheme: str, code: str) -> str | None:
    """Return the meaning of a code in ASCII; None if PS3.16 does not have the code.

    That of a SNOMED code is its fully specified name, that of a UCUM unit the code itself.

    >>> standard_meaning("DCM", "113820"), standard_meaning("UCUM", "mGy.cm")
    ('CT Acquisition Type', 'mGy.cm')
    >>> standard_meaning("99LOCAL", "113820")
    """
    scheme, code = current_code(scheme, code)
    return code if scheme == _UNITS else _meanings().get((scheme, code))


def current_code(scheme: str, code: str) -> tuple[str, str]:
    """Return a designator and a code as PS3.16 has them now: SNOMED CT for RT, LN for LOINC.

    >>> current_code("SRT", "F-01860"), current_code("LOINC", "8302-2")
    (('SCT', '60621009'), ('LN', '8302-2'))
    """
    if scheme in _OLD_SNOMED:
        return "SCT", _snomed_ct().get(code, code)
    return ("LN" if scheme == "LOINC" else scheme), code


def is_common_unit(code: str) -> bool:
    """Return whether PS3.16 uses a unit of measurement: schemes of others use the same ones."""
    return (_UNITS, code) in _meanings()


@cache
def _meanings() -> dict[tuple[str, str], str]:
    """Return the meaning of each code of a context group in ASCII, by scheme and code.

    The tables take 0.1 s and 15 MB, so they are only loaded when they are needed.
    """
    tables = import_module("pydicom.sr._concepts_dict")
    entries = (
        (scheme, code, meaning.replace(_ZERO_WIDTH_SPACE, ""))
        for scheme, keywords in tables.concepts.items()
        for codes in keywords.values()
        for code, (meaning, _) in codes.items()
    )
    return {(scheme, code): meaning for scheme, code, meaning in entries if meaning.isascii()}


@cache
def _snomed_ct() -> dict[str, str]:
    """Return the SNOMED CT code of each SNOMED RT code."""
    table: dict[str, str] = import_module("pydicom.sr._snomed_dict").mapping["SRT"]
    return table
