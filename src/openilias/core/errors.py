"""The one exception a user may meet."""

from __future__ import annotations

from pathlib import Path


class OpenIliasError(Exception):
    """Bad input: what is wrong, where, and what to do about it.

    The command line prints it without a traceback and exits with code 2.

    Args:
        what: one sentence saying what is wrong.
        where: the file, row or id concerned.
        fix: what the user can do.
    """

    def __init__(self, what: str, *, where: str | Path | None = None, fix: str | None = None) -> None:
        self.what = what
        self.where = None if where is None else str(where)
        self.fix = fix
        super().__init__(what)

    def __str__(self) -> str:
        lines = [self.what]
        if self.where is not None:
            lines.append(f"  where: {self.where}")
        if self.fix is not None:
            lines.append(f"  to do: {self.fix}")
        return "\n".join(lines)


def first_few(items: list[str], *, most: int = 3) -> str:
    """Name the first few of a list and say how many more there are, for error messages."""
    shown = ", ".join(items[:most])
    return shown if len(items) <= most else f"{shown} and {len(items) - most} more"
