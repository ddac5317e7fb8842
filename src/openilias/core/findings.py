"""Findings: everything that is wrong with some data, gathered instead of raised one at a time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from openilias.core.errors import OpenIliasError

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = get_args(Severity)


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong or strange.

    Attributes:
        severity: ``error`` makes numbers wrong or stops a command; ``warning`` deserves a look; ``note`` is for
            information.
        kind: a short name of what is wrong, the same for all findings of a kind, e.g. ``box-outside``.
        where: the file, line or id.
        what: one sentence.
        fix: what to do, if that is not plain.
    """

    severity: Severity
    kind: str
    where: str
    what: str
    fix: str | None = None

    def __post_init__(self) -> None:
        """Write names that are no text with escapes: a finding can be printed and stored."""
        for name in ("where", "what"):
            text = getattr(self, name).encode("utf-8", "backslashreplace").decode()
            object.__setattr__(self, name, text)


def refuse(findings: Iterable[Finding], *, hint: str | None = None) -> None:
    """Raise the first error of some findings, saying how many more there are.

    Raises:
        OpenIliasError: there is an error among them.
    """
    errors = [finding for finding in findings if finding.severity == "error"]
    if not errors:
        return
    first, fix = errors[0], errors[0].fix
    if len(errors) > 1:
        more = f"{len(errors) - 1} more {'error follows' if len(errors) == 2 else 'errors follow'}"
        fix = ". ".join(part.rstrip(".") for part in (fix, f"{more}{'; ' + hint if hint else ''}") if part) + "."
    raise OpenIliasError(first.what, where=first.where, fix=fix)
