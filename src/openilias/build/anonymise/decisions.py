"""What is left to do before a set may be published."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openilias.build.anonymise.changes import is_done, read_record
from openilias.build.anonymise.marks import read_marks
from openilias.build.anonymise.place import Place, images_of, place_of
from openilias.core.files import sha256_of
from openilias.core.manifests import read_manifest

FOUND = "anonymise boxes"
"""The kind of the manifest of what was looked for."""


def images_seen(place: Place) -> dict[str, str]:
    """Return the images that were looked at, and the SHA-256 of each as it was then.

    Raises:
        OpenIliasError: the manifest is damaged.
    """
    if not place.found.is_file():
        return {}
    manifest: dict[str, Any] = read_manifest(place.found, kind=FOUND)
    seen: dict[str, str] = manifest.get("seen", {})
    return seen


@dataclass(frozen=True)
class OpenDecisions:
    """What is left to do before a set may go out.

    Attributes:
        looked: boxes were looked for.
        proposed: boxes that nobody has decided about.
        confirmed: boxes that are confirmed and not applied.
        unfinished: a run that changes images was cut off.
        unseen: images that are here and were not looked at, or are others than those looked at.
        bare: images whose boxes are applied by the table, and that are not what was made then.
    """

    looked: bool
    proposed: int
    confirmed: int
    unfinished: bool
    unseen: tuple[str, ...]
    bare: tuple[str, ...]

    @property
    def any(self) -> bool:
        """Whether anything is left."""
        return not self.looked or bool(self.proposed or self.confirmed or self.unfinished or self.unseen or self.bare)


def open_decisions(root: Path) -> OpenDecisions:
    """Tell what is left to do before a set may be published.

    Raises:
        OpenIliasError: the table of boxes is malformed.
    """
    place = place_of(root)
    marks = read_marks(place.boxes) if place.boxes.is_file() else []
    seen = images_seen(place)
    counts = Counter(mark.status for mark in marks)
    applied = sorted({mark.image for mark in marks if mark.status == "applied"})
    return OpenDecisions(
        looked=place.found.is_file(),
        proposed=counts["proposed"],
        confirmed=counts["confirmed"],
        unfinished=place.unfinished.exists(),
        unseen=tuple(item for item in images_of(place) if seen.get(item) != sha256_of(place.source(item))),
        bare=tuple(item for item in applied if not _is_changed(place, item)),
    )


def _is_changed(place: Place, item: str) -> bool:
    record = read_record(place, item)
    return record is not None and place.image(item).is_file() and is_done(place, item, record)
