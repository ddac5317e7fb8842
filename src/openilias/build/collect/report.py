"""``report.json`` and ``report.md``: what the collected part of a set is, and everything that deserves a look."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from openilias.build.collect.background import STEP, THRESHOLD
from openilias.build.collect.cameras import CameraLine
from openilias.build.collect.evidence import ObjectRecord
from openilias.build.collect.pairs import Pair
from openilias.build.collect.state import ImageState
from openilias.core.findings import SEVERITIES, Finding

REPORT, PAGE = "report.json", "report.md"
_SHOWN = 200  # findings of a kind on the page


@dataclass(frozen=True)
class Report:
    """What is told of a set.

    Attributes:
        counts: objects, image_queries, text_queries, positives, boxes, rejected, refused.
        findings: errors first.
        cameras: Table A.
        without_camera: images whose camera is not known.
        background: id of a query -> clutter of its background, if it was measured.
        rejected: objects that are left out.
        pairs: pictures that may be the same.
        settings: what was done to the images.
    """

    counts: Mapping[str, int]
    findings: tuple[Finding, ...]
    cameras: tuple[CameraLine, ...]
    without_camera: int
    background: Mapping[str, float | None]
    rejected: tuple[ObjectRecord, ...]
    pairs: tuple[Pair, ...]
    settings: Mapping[str, Any]

    @property
    def kinds(self) -> dict[tuple[str, str], int]:
        """(severity, kind) -> how many findings, errors first."""
        found: dict[tuple[str, str], int] = {}
        for one in self.findings:
            found[one.severity, one.kind] = found.get((one.severity, one.kind), 0) + 1
        return found


def ordered(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return findings once each, errors first."""
    return tuple(sorted(set(findings), key=lambda one: (SEVERITIES.index(one.severity), one.kind, one.where, one.what)))


def check_backgrounds(images: Mapping[str, ImageState]) -> Iterable[Finding]:
    """Yield the queries whose background is not clean."""
    for item, one in images.items():
        if one.background is not None and one.background > THRESHOLD:
            what = (
                f"Its background is not clean: {one.background:.1%} of it are edges of things, above {THRESHOLD:.1%}."
            )
            fix = "Blur or crop it, draw the box wider, or take another picture."
            yield Finding("warning", "background", item, what, fix)


def as_json(report: Report) -> dict[str, Any]:
    """Return a report as JSON values."""
    return {
        "counts": dict(report.counts),
        "kinds": [{"severity": s, "kind": kind, "count": count} for (s, kind), count in report.kinds.items()],
        "findings": [asdict(one) for one in report.findings],
        "cameras": [asdict(line) | {"images": line.images} for line in report.cameras],
        "images_of_unknown_camera": report.without_camera,
        "background": {"step": STEP, "threshold": THRESHOLD, "queries": dict(report.background)},
        "rejected": [asdict(one) for one in report.rejected],
        "pairs": [asdict(one) for one in report.pairs],
        "settings": dict(report.settings),
    }


def page(report: Report) -> str:
    """Return a report as Markdown."""
    parts = ["# Collected images", "", *_table(["", ""], [[_words(k), f"{v:,}"] for k, v in report.counts.items()])]
    parts += ["", "## Cameras (Table A)", ""]
    cameras = [[c.model, c.year, c.type, f"{c.images:,}", f"{c.queries:,}", f"{c.positives:,}"] for c in report.cameras]
    cameras += [["not known", "", "", f"{report.without_camera:,}", "", ""]] if report.without_camera else []
    parts += _table(["camera", "year", "type", "images", "queries", "positives"], cameras) if cameras else ["None."]
    parts += ["", "## Rejected objects (Fig. A)", ""]
    rejected = [[one.object, one.reason, one.first_public, one.evidence] for one in report.rejected]
    parts += _table(["object", "reason", "first public", "evidence"], rejected) if rejected else ["None."]
    parts += ["", "## Findings", ""]
    parts += [] if report.findings else ["None."]
    for (severity, kind), count in report.kinds.items():
        some = [one for one in report.findings if (one.severity, one.kind) == (severity, kind)]
        parts += [f"### {severity} {kind}: {count:,}", ""]
        parts += [f"- {_cell(one.where)}: {_cell(one.what)}" for one in some[:_SHOWN]]
        parts += [f"- ... {count - _SHOWN:,} more in {REPORT}"] if count > _SHOWN else []
        parts += ["", *([_cell(some[0].fix)] if some[0].fix else []), ""]
    return "\n".join(parts).rstrip() + "\n"


def _words(name: str) -> str:
    return name.replace("_", " ")


def _cell(text: str) -> str:
    """Write a text so that it is a text in Markdown, in a table and elsewhere."""
    flat = " ".join(text.split())
    for char in "\\`*_[]<>|#":
        flat = flat.replace(char, f"\\{char}")
    return flat


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    return lines + [f"| {' | '.join(map(_cell, row))} |" for row in rows]
