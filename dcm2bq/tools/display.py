"""Text for a terminal."""


def printable(text: str) -> str:
    """Return text without what would steer a terminal: names and headers come from anywhere."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
