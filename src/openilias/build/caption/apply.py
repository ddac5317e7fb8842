"""Accepted texts become text queries of the set; rejected ones are taken out; what a person wrote there stays."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from openilias.build.caption.answers import working_on
from openilias.build.caption.captions import Caption, read_captions
from openilias.build.caption.place import Place, place_of
from openilias.build.caption.questions import first_images
from openilias.core.errors import OpenIliasError, first_few
from openilias.core.files import is_there, read_bytes, read_json, sha256_of, write_bytes, write_json
from openilias.core.ids import SHAPES, object_of
from openilias.data.ilias import Role, walk_objects

_NUMBER = re.compile(r"[^/]+/query/Q([^_/]+)(?:_[^/]*)?\.jpg")
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Applied:
    """What became of the texts.

    Attributes:
        written: ids of text queries that were written or changed now.
        same: those that were as accepted already.
        removed: those that were taken out, as their texts are rejected.
        by_hand: those that a person wrote or changed in the core, and that stay as they are.
        drafts: objects about whose text nobody has decided.
        twice: objects with the same text as another one.
    """

    written: tuple[str, ...]
    same: tuple[str, ...]
    removed: tuple[str, ...]
    by_hand: tuple[str, ...]
    drafts: tuple[str, ...]
    twice: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {name: list(items) for name, items in asdict(self).items()}


def text_id(image: str) -> str:
    """Return the id of the text query of an object by a query image: ``cup/query/Q007_00.jpg``: ``cup/query/T007.txt``.

    Raises:
        OpenIliasError: there is no number in the name.
    """
    found = _NUMBER.fullmatch(image)
    if found is None:
        raise OpenIliasError(
            "The name of this query image gives no number to its object.", where=image, fix="Call it Q<number>_<n>.jpg."
        )
    return f"{object_of(image)}/query/T{found[1]}.txt"


def apply_captions(root: Path, *, overwrite: bool = False) -> Applied:
    """Write the accepted texts into the set, remove the rejected ones, and complete the list of text queries.

    A text that was not written by this function, or was changed since, is a person's: it stays. Cut off anywhere, the
    next call completes it.

    Args:
        root: the set.
        overwrite: texts of a person are replaced or removed too.

    Raises:
        OpenIliasError: the table is malformed, or is of objects that are not in the set.
    """
    place = place_of(root)
    with working_on(place.folder):
        captions = read_captions(place.captions)
        check_objects(place, captions)
        ids = {name: text_id(image) for name, image in first_images(place).items() if name in captions}
        ours = read_applied(place.applied)
        plan, listed = _plan(place, captions, ids, ours, overwrite), _listed(place)
        # Before the texts are: what a cut-off call has written is known to be ours, and so is what it had not.
        write_json(place.applied, _with(ours, plan.digests()))
        for item, data in plan.write.items():
            write_bytes(place.core / item, data)
        for item in plan.remove:
            (place.core / item).unlink(missing_ok=True)
        _write_list(place.text_list, listed, plan)
        write_json(place.applied, _without(ours, plan))
    return Applied(
        written=tuple(plan.write),
        same=tuple(plan.same),
        removed=plan.remove,
        by_hand=plan.by_hand,
        drafts=tuple(sorted(name for name, caption in captions.items() if caption.status == "draft")),
        twice=same_texts(captions),
    )


@dataclass(frozen=True)
class _Plan:
    write: dict[str, bytes]
    same: dict[str, str]
    remove: tuple[str, ...]
    by_hand: tuple[str, ...]

    def digests(self) -> dict[str, str]:
        return {item: hashlib.sha256(data).hexdigest() for item, data in self.write.items()}


def _plan(
    place: Place, captions: Mapping[str, Caption], ids: Mapping[str, str], ours: dict[str, list[str]], overwrite: bool
) -> _Plan:
    write, same, remove, by_hand = {}, {}, [], []
    for name, item in sorted(ids.items()):
        caption, path = captions[name], place.core / item
        if caption.status == "draft":
            continue
        there = is_there(path)
        is_ours = not there or (path.is_file() and sha256_of(path) in ours.get(item, ()))
        data = f"{caption.text}\n".encode()
        if caption.status == "accepted" and path.is_file() and read_bytes(path) == data:
            same[item] = hashlib.sha256(data).hexdigest()
        elif there and not is_ours and not overwrite:
            by_hand.append(item)
        elif caption.status == "accepted":
            write[item] = data
        elif there:
            remove.append(item)
    return _Plan(write, same, tuple(remove), tuple(by_hand))


def read_applied(path: Path) -> dict[str, list[str]]:
    """Return the digests of the texts that were written to the core, by id; several where a call was cut off.

    Raises:
        OpenIliasError: the file is damaged.
    """
    if not path.is_file():
        return {}
    found = read_json(path)
    if not isinstance(found, dict) or not all(
        re.fullmatch(SHAPES["text_queries"], item)
        and isinstance(digests, list)
        and all(isinstance(digest, str) and _DIGEST.fullmatch(digest) for digest in digests)
        for item, digests in found.items()
    ):
        raise OpenIliasError(
            "This record of written texts is damaged.", where=path, fix="Remove it; all texts then count as a person's."
        )
    return found


def _with(ours: dict[str, list[str]], digests: dict[str, str]) -> dict[str, list[str]]:
    added = {item: sorted({*ours.get(item, ()), digest}) for item, digest in digests.items()}
    return dict(sorted((ours | added).items()))


def _without(ours: dict[str, list[str]], plan: _Plan) -> dict[str, list[str]]:
    """Return the record when all is done: one digest of each text."""
    left = {item: digests for item, digests in ours.items() if item not in plan.remove}
    now = plan.digests() | {item: digest for item, digest in plan.same.items() if item in left}
    return dict(sorted((left | {item: [digest] for item, digest in now.items()}).items()))


def check_objects(place: Place, captions: Mapping[str, Caption], *, table: Path | None = None) -> None:
    """Refuse captions of objects that are not there.

    Raises:
        OpenIliasError: there are some.
    """
    lost = sorted(captions.keys() - first_images(place).keys())
    if lost:
        raise OpenIliasError(
            f"Captions are of {len(lost)} objects without a query image in this set: {first_few(lost)}.",
            where=table or place.captions,
            fix="Correct or remove their lines.",
        )


def same_texts(captions: Mapping[str, Caption]) -> tuple[str, ...]:
    """Return the objects whose accepted text is that of another one too: it describes neither unambiguously."""
    by_text: dict[str, list[str]] = {}
    for name, caption in sorted(captions.items()):
        if caption.status == "accepted":
            by_text.setdefault(caption.text.casefold(), []).append(name)
    return tuple(sorted(name for names in by_text.values() if len(names) > 1 for name in names))


def _listed(place: Place) -> dict[str, str]:
    """Return the lines of the list of text queries by id; without one those that a reader would find.

    Raises:
        OpenIliasError: the list cannot be read.
    """
    path = place.text_list
    if not is_there(path):
        found: dict[Role, list[str]] = {}
        walk_objects(place.core, found)
        return {item: item for item in found.get("text_query", ())}
    try:
        text = read_bytes(path).decode("utf-8-sig")
    except (OSError, ValueError) as error:
        raise OpenIliasError(f"This id file cannot be read: {error}.", where=path, fix="Correct it.") from None
    return {line.split(",", 1)[0].strip(): line.strip() for line in text.split("\n") if line.strip()}


def _write_list(path: Path, listed: dict[str, str], plan: _Plan) -> None:
    left = {item: line for item, line in listed.items() if item not in plan.remove}
    left |= {item: listed.get(item, item) for item in (*plan.write, *plan.same)}
    data = "".join(f"{left[item]}\n" for item in sorted(left)).encode()
    if not is_there(path) or read_bytes(path) != data:
        write_bytes(path, data)
