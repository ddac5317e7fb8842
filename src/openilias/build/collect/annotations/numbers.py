"""Numbers in files of annotations."""

from __future__ import annotations

from typing import Any

from openilias.core.errors import OpenIliasError


def malformed(what: str, where: str) -> OpenIliasError:
    """Return the error of a file that is not as its format says."""
    return OpenIliasError(what, where=where, fix="Export the boxes again.")


def number(value: Any, where: str) -> float:
    """Return a number of JSON or of text; whether it is finite is for others to say.

    Raises:
        OpenIliasError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise malformed(f"Expected a number, found {str(value)[:40]!r}.", where)
    try:
        return float(value)
    except (ValueError, OverflowError):
        raise malformed(f"Expected a number, found {str(value)[:40]!r}.", where) from None


def numbers(values: Any, where: str, *, count: int | None = None) -> list[float]:
    """Return a list of numbers.

    Raises:
        OpenIliasError: it is none, or of another length.
    """
    if not isinstance(values, list) or (count is not None and len(values) != count):
        expected = "numbers" if count is None else f"{count} numbers"
        raise malformed(f"Expected {expected}, found {str(values)[:60]!r}.", where)
    return [number(value, where) for value in values]
