"""What is left to do before a set may be published."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from openilias.build.caption.apply import read_applied, text_id
from openilias.build.caption.captions import read_captions
from openilias.build.caption.place import place_of
from openilias.build.caption.questions import first_images
from openilias.core.files import is_there, read_bytes, sha256_of


@dataclass(frozen=True)
class OpenDecisions:
    """What is left to do before a set may go out.

    Attributes:
        drafts: objects about whose text nobody has decided.
        unapplied: objects whose text in the set is not what was decided, unless a person changed it there.
    """

    drafts: tuple[str, ...]
    unapplied: tuple[str, ...]

    @property
    def any(self) -> bool:
        """Whether anything is left."""
        return bool(self.drafts or self.unapplied)


def open_decisions(root: Path) -> OpenDecisions:
    """Tell what is left to do before a set may be published; nothing if no captions were asked for.

    Raises:
        OpenIliasError: the table of captions is malformed.
    """
    place = place_of(root)
    if not place.captions.is_file():
        return OpenDecisions((), ())
    captions, ours, first = read_captions(place.captions), read_applied(place.applied), first_images(place)
    drafts = tuple(sorted(name for name, caption in captions.items() if caption.status == "draft"))
    unapplied = []
    for name, caption in sorted(captions.items()):
        if caption.status == "draft":
            continue
        if name not in first:
            unapplied.append(name)
            continue
        item = text_id(first[name])
        path = place.core / item
        if is_there(path) and not path.is_file():
            continue  # nothing that was written here
        there = path.is_file()
        if there and sha256_of(path) not in ours.get(item, ()):
            continue  # a person's
        wanted = f"{caption.text}\n".encode() if caption.status == "accepted" else None
        if (read_bytes(path) if there else None) != wanted:
            unapplied.append(name)
    return OpenDecisions(drafts, tuple(unapplied))
