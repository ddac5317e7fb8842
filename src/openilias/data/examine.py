"""Looking at every image of a piece of a shard: does it decode, how large is it, what are its digests."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from openilias.core.errors import OpenIliasError
from openilias.core.executors import Loss
from openilias.core.files import open_regular
from openilias.core.findings import Finding
from openilias.data.benchmark import Item
from openilias.images.decode import UnreadableImageError, decode, examine

DIGEST = np.dtype(
    [("bytes", np.uint64, 2), ("pixels", np.uint64, 2), ("row", np.uint32)],
)
"""128 bits of the file, 128 bits of the upright RGB pixels (zero if they were not read), the row in the shard."""

Depth = Literal["headers", "bytes", "pixels"]


@dataclass(frozen=True)
class Job:
    """A piece of work for one process.

    Attributes:
        shard: which shard it belongs to.
        start: row of the first item in the shard.
        items: the images to look at.
        depth: ``headers`` reads no image, ``bytes`` digests the files, ``pixels`` decodes them too.
        whole: a file to digest as a whole, instead of looking at images.
    """

    shard: str
    start: int = 0
    items: Sequence[Item] = ()
    depth: Depth = "pixels"
    whole: Path | None = None


@dataclass(frozen=True)
class Examined:
    """What a job found.

    Attributes:
        shard: as in the job.
        digests: (N,) of :data:`DIGEST`; images that cannot be read at all are left out.
        sizes: (N, 2) int32, width and height of each upright image in order; -1 where it has none.
        unreadable: how many images cannot be decoded.
        findings: what is wrong.
        sha256: of ``whole``.
        died: the process that did it died.
    """

    shard: str
    digests: npt.NDArray[np.void] = field(default_factory=lambda: np.zeros(0, DIGEST))
    sizes: npt.NDArray[np.int32] = field(default_factory=lambda: np.zeros((0, 2), np.int32))
    unreadable: int = 0
    findings: tuple[Finding, ...] = ()
    sha256: str | None = None
    died: bool = False


def examine_items(job: Job) -> Examined:
    """Do one job. Whatever is wrong with an image becomes a finding."""
    if job.whole is not None:
        return _whole(job.shard, job.whole)
    digests = np.zeros(len(job.items), DIGEST)
    sizes = np.full((len(job.items), 2), -1, np.int32)
    findings: list[Finding] = []
    read, unreadable = [], 0
    for place, item in enumerate(job.items):
        try:
            data = item.read()
        except OpenIliasError as error:
            kind = "image-missing" if not item.path.exists() else "image-unreadable"
            findings.append(Finding("error", kind, item.id, error.what))
            unreadable += 1
            continue
        if data:  # all empty files are alike
            read.append(place)
        digests[place]["bytes"] = _digest(data)
        digests[place]["row"] = job.start + place
        try:
            findings += _look(item.id, data, digests[place : place + 1], sizes[place], job.depth)
        except UnreadableImageError as error:
            findings.append(Finding("error", "image-unreadable", item.id, error.what))
            unreadable += 1
        except MemoryError:
            findings.append(Finding("error", "image-unreadable", item.id, "There is not enough memory to decode it."))
            unreadable += 1
    return Examined(job.shard, digests[read], sizes, unreadable, tuple(findings))


def _whole(shard: str, path: Path) -> Examined:
    try:
        with open_regular(path) as file:
            return Examined(shard, sha256=hashlib.file_digest(file, "sha256").hexdigest())
    except OSError as error:
        finding = Finding("error", "shard-unreadable", str(path), f"This shard cannot be read: {error.strerror}.")
        return Examined(shard, findings=(finding,), sha256="")


def _look(
    item: str, data: bytes, digest: npt.NDArray[np.void], size: npt.NDArray[np.int32], depth: Depth
) -> list[Finding]:
    facts = examine(data, where=item)
    size[:] = facts.upright_size
    findings = []
    if facts.format not in ("JPEG", "MPO"):
        what = f"This is a {facts.format} image under the name of a JPEG."
        findings.append(Finding("note", "image-other-format", item, what))
    if facts.damage is not None:
        what = f"The data of this image are damaged: {facts.damage}."
        findings.append(Finding("warning", "image-damaged", item, what))
    if depth == "pixels":
        picture = decode(data, where=item)
        header = f"{picture.width} {picture.height} ".encode()
        digest["pixels"] = _digest(header + picture.tobytes())
    return findings


def _digest(data: bytes) -> npt.NDArray[np.uint64]:
    return np.frombuffer(hashlib.blake2b(data, digest_size=16).digest(), ">u8").astype(np.uint64)


def died(job: Job, loss: Loss) -> Examined:
    """Make the result of a job whose process died while it was at work."""
    items = job.items
    of = f"{len(items)} images from {items[0].id} on" if len(items) > 1 else "this image"
    finding = Finding("error", "image-crash", items[0].id if items else job.shard, f"The process that read {of} died.")
    sizes = np.full((len(items), 2), -1, np.int32)
    return Examined(job.shard, sizes=sizes, unreadable=len(items), findings=(finding,), died=True)
