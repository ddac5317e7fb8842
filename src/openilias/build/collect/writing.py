"""Making the folders of objects: what is there already stays, and what another step changed is never lost silently."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from openilias.build.collect.making import Made, MakeJob
from openilias.build.collect.plan import ImagePlan, ObjectPlan
from openilias.build.collect.state import STORED, ImageState, ObjectState, States, digests_of
from openilias.build.normalise import NormaliseSettings
from openilias.core.errors import OpenIliasError
from openilias.core.files import read_bytes, sync_folder
from openilias.core.findings import Finding

Change = Literal["new", "changed", "same", "removed"]
_MOST_TEXT = 2**20
_FACTS = (
    "camera", "taken", "width", "height", "original_width", "original_height", "format", "bytes", "sha256", "hash",
    "reencoded", "notes",
)  # fmt: skip


@dataclass(frozen=True)
class Decision:
    """What is done with one object.

    Attributes:
        plan: of it.
        old: what was made of it before.
        make: images to make; the others stay as they are.
        side: its other files, ``query/Q000_00_bbox.txt`` -> content.
        keep: files that stay as they are because another step changed them, or that are not ours.
        change: in a word.
    """

    plan: ObjectPlan
    old: ObjectState | None
    make: tuple[ImagePlan, ...]
    side: Mapping[str, bytes]
    keep: frozenset[str]
    change: Change


def short(item: str) -> str:
    """Return an id without its object: the place in the object's folder."""
    return item.partition("/")[2]


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def side_files(plan: ObjectPlan) -> dict[str, bytes]:
    """Return the files of an object that are no images: boxes, addresses, its text.

    Raises:
        OpenIliasError: its text cannot be read, is not UTF-8, or is empty.
    """
    found: dict[str, bytes] = {}
    for image in plan.images:
        stem = short(image.item).removesuffix(".jpg")
        if image.boxes:
            found[f"{stem}_bbox.txt"] = "".join(f"{b.x} {b.y} {b.width} {b.height}\n" for b in image.boxes).encode()
        if image.details.url is not None:
            found[f"{stem}_url.txt"] = f"{image.details.url}\n".encode()
    if plan.text is not None:
        try:
            text = read_bytes(plan.text, most=_MOST_TEXT).decode("utf-8-sig").strip()
        except (OSError, ValueError) as error:
            raise OpenIliasError(f"This text cannot be read: {error}.", where=plan.text, fix="Give UTF-8.") from None
        if not text:
            raise OpenIliasError("This text is empty.", where=plan.text, fix="Write it, or remove the file.")
        found[f"query/T{plan.item.rpartition('_')[2]}.txt"] = f"{text}\n".encode()
    return found


def decide(
    plan: ObjectPlan, states: States, rows: Mapping[str, str | None], *, overwrite: bool
) -> tuple[Decision, list[Finding]]:
    """Decide what is done with an object.

    Args:
        plan: of it.
        states: what was made before.
        rows: id -> SHA-256 of the stored file as the table of the set has it.
        overwrite: what another step changed may be replaced.

    Returns:
        the decision, and an error for each file that another step changed and that would have to be replaced.
    """
    old = states.read(plan.item)
    here = digests_of(states.core / plan.item)
    side = side_files(plan)
    written = {} if old is None else old.written
    findings: list[Finding] = []

    def foreign(path: str) -> bool:
        return path in here and here[path] != written.get(path)

    def conflict(path: str) -> bool:
        """Tell whether a file that another step changed must be kept; otherwise it is replaced, if that is allowed."""
        if not overwrite:
            what = "Another step or a person changed this file, and its source has changed too."
            fix = "Undo one of the changes, or replace the file with --overwrite."
            findings.append(Finding("error", "file-changed", f"{plan.item}/{path}", what, fix))
        return not overwrite

    planned = {short(image.item) for image in plan.images}
    keep = {path for path in here if path not in written and path not in side and path not in planned}
    make = []
    for image in plan.images:
        path = short(image.item)
        before = None if old is None else old.images.get(image.item)
        same = before is not None and before.made_from == image.made_from
        if same and before is not None and not before.stored:
            continue
        if same and path in here and (not foreign(path) or rows.get(image.item) == here[path]):
            if foreign(path):
                keep.add(path)
            continue
        if same and foreign(path) and not overwrite:
            what = "This image is not what was collected, and the table of the set does not know it either."
            fix = "Finish the step that changes it, or make it again with --overwrite."
            findings.append(Finding("error", "image-unknown", image.item, what, fix))
            continue
        if foreign(path) and conflict(path):
            continue
        make.append(image)
    for path, content in side.items():
        if foreign(path) and (_sha(content) == written.get(path) or conflict(path)):
            keep.add(path)
    stored = {short(image.item) for image in plan.images if image not in make and short(image.item) in here}
    wanted = {path: _sha(content) for path, content in side.items() if path not in keep and _has_image(path, plan, old)}
    present = {path: digest for path, digest in here.items() if path not in keep and path not in stored}
    as_it_is = old is not None and not make and wanted == present and _same_images(plan, old)
    change: Change = "new" if old is None else "same" if as_it_is else "changed"
    return Decision(plan, old, tuple(make), side, frozenset(keep), change), findings


def _has_image(path: str, plan: ObjectPlan, old: ObjectState | None) -> bool:
    """Tell whether a side file belongs to an image that is stored; the text always does."""
    if not path.endswith(("_bbox.txt", "_url.txt")):
        return True
    item = f"{plan.item}/{path.rsplit('_', 1)[0]}.jpg"
    before = None if old is None else old.images.get(item)
    return before is None or before.stored


def _same_images(plan: ObjectPlan, old: ObjectState) -> bool:
    said = {image.item: (image.made_from, image.boxes, image.source.source) for image in plan.images}
    return said == {item: (one.made_from, one.boxes, one.source) for item, one in old.images.items()}


def jobs_of(decision: Decision, settings: NormaliseSettings) -> Iterator[MakeJob]:
    """Yield the images of an object to make."""
    for image in decision.make:
        yield MakeJob(image.item, image.source.path, image.sha256, settings, image.boxes, query=image.role == "query")


def write_object(decision: Decision, states: States, made: Callable[[], Made]) -> list[Made]:
    """Write the folder of an object and put it into its place.

    Args:
        decision: what is done.
        states: of the set.
        made: gives the images that were to be made, one at a time in their order.

    Returns:
        the images that are refused. If the object has no query or no positive left, it is in the set no more.
    """
    plan, old = decision.plan, decision.old
    folder = states.begin(plan.item)
    target = states.core / plan.item
    images: dict[str, ImageState] = {}
    written: dict[str, str] = {}
    refused = []
    for inner in ("query", "pos"):
        (folder / inner).mkdir()
    for image in plan.images:
        path = short(image.item)
        if image in decision.make:
            one = made()
            if one.item != image.item:
                raise AssertionError(f"{one.item} came instead of {image.item}")
            images[image.item] = _state(image, one)
            if one.normalised is None:
                refused.append(one)
            else:
                _write(folder / path, one.normalised.jpeg)
                written[path] = one.normalised.sha256
        elif old is not None:
            images[image.item] = old.images[image.item].model_copy(
                update={"boxes": image.boxes, "source": image.source.source}
            )
            if images[image.item].stored:
                shutil.copy2(target / path, folder / path)
                written[path] = old.written[path]
    for path, content in decision.side.items():
        item = f"{plan.item}/{path.rsplit('_', 1)[0]}.jpg"
        if item in images and not images[item].stored and path.endswith(("_bbox.txt", "_url.txt")):
            continue
        if path in decision.keep:
            shutil.copy2(target / path, folder / path)
            if old is not None and path in old.written:
                written[path] = old.written[path]
        else:
            _write(folder / path, content)
            written[path] = _sha(content)
    for path in sorted(decision.keep - written.keys() - decision.side.keys()):
        shutil.copy2(target / path, folder / path)
    for inner in ("query", "pos"):
        sync_folder(folder / inner)
    state = ObjectState(images=dict(sorted(images.items())), written=dict(sorted(written.items())))
    states.finish(plan.item, folder, state)
    return refused


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _state(image: ImagePlan, one: Made) -> ImageState:
    base = {"source": image.source.source, "made_from": image.made_from, "boxes": image.boxes}
    if one.normalised is None:
        return ImageState(**base, status=one.status, why=one.why)
    made = one.normalised
    known: dict[str, Any] = {field.name: getattr(made, field.name) for field in fields(made) if field.name in _FACTS}
    known |= {
        "original_width": made.original_size[0],
        "original_height": made.original_size[1],
        "bytes": len(made.jpeg),
        "notes": "; ".join(made.notes) or None,
    }
    return ImageState(**base, status=STORED, background=one.clutter, facts=known)
