"""Text of foreign origin, such as the name that a reader or a certificate gives itself, fit to be shown."""

__all__ = ["printable"]


def printable(text: str) -> str:
    """One line for a terminal, a log or a file: what is not to be printed (``str.isprintable``) stands there as its
    escape, such as ``\\x1b``."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
