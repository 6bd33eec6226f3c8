"""Select attributes by name: `privacy.remove` and `privacy.hash`."""

import re
from collections.abc import Iterable

from pydicom._dicom_dict import RepeatersDictionary
from pydicom.datadict import dictionary_VR, tag_for_keyword

from dcm2bq.config import Privacy
from dcm2bq.dicom.privacy.profile import Action
from dcm2bq.errors import ConfigError

_PRIVATE = "private"
_TAG = re.compile(r"[0-9A-Fa-f]{8}")
_MASK = re.compile(r"[0-9A-Fa-fx]{8}")
_ANY_PRIVATE = re.compile("[0-9A-F]{3}[13579BDF][0-9A-F]{4}")
_HASHABLE = frozenset({"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UI", "UR", "UT"})


class Selection:
    """The tags that one `option` names: exact tags, masks and `private`; and its action."""

    def __init__(self, option: str, selectors: Iterable[str], action: Action) -> None:
        self.option = option
        self.action = action
        self.selectors = tuple(selectors)
        self._tags: set[int] = set()
        self._masks: list[re.Pattern[str]] = []
        for selector in self.selectors:
            if _TAG.fullmatch(selector):
                self._tags.add(int(selector, 16))
            elif selector == _PRIVATE:
                self._masks.append(_ANY_PRIVATE)
            else:
                self._masks.append(re.compile(selector.upper().replace("X", "[0-9A-F]")))

    def __contains__(self, tag: int) -> bool:
        return tag in self._tags or any(mask.fullmatch(f"{tag:08X}") for mask in self._masks)


def selections(options: Privacy) -> tuple[Selection, Selection]:
    """Return what is removed and what is hashed.

    Raises `ConfigError`, which names the option, for a text that does not name an attribute and
    for one that cannot be hashed.
    """
    removed = [_selector(name, "privacy.remove") for name in options.remove]
    hashed = [_hashable(name) for name in options.hash]
    return (
        Selection("privacy.remove", removed, Action.REMOVE),
        Selection("privacy.hash", hashed, Action.HASH),
    )


def _selector(text: str, option: str) -> str:
    """Return `private`, or eight hex digits, of which `x` stands for any digit."""
    if text == _PRIVATE or _MASK.fullmatch(text):
        return text
    tag = tag_for_keyword(text)
    if tag is not None:
        return f"{tag:08X}"
    for mask, entry in RepeatersDictionary.items():
        if entry[4] == text:
            return mask
    raise ConfigError(f"{option}: {text} is not a keyword, eight hex digits or private")


def _hashable(text: str) -> str:
    selector = _selector(text, "privacy.hash")
    if not _TAG.fullmatch(selector):
        raise ConfigError(
            f"privacy.hash: {text} names several attributes: only single ones can be hashed"
        )
    try:
        vr = dictionary_VR(int(selector, 16))
    except KeyError:
        raise ConfigError(f"privacy.hash: {text} is not in the data dictionary") from None
    if vr not in _HASHABLE:
        raise ConfigError(
            f"privacy.hash: {text} has VR {vr}, which can only be removed, not hashed"
        )
    return selector
