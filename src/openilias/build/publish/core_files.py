"""The files of the objects: which of them are published, whether they may be, and the tar that holds them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from openilias.build.conformity import conforms
from openilias.build.publish.decisions import BUILD, Decisions
from openilias.build.publish.rows import UNKNOWN, RowFacts, facts_of_rows
from openilias.build.publish.shards import Named, compare
from openilias.build.stored import CORE_ROWS, ROWS
from openilias.core.errors import OpenIliasError, first_few
from openilias.core.executors import Loss
from openilias.core.files import read_bytes, sha256_of
from openilias.core.findings import Finding
from openilias.core.fingerprints import fingerprint_lines
from openilias.data.benchmark import Benchmark, box_file
from openilias.data.published_places import CORE
from openilias.data.unpack import ALIKE, alike
from openilias.images.decode import MOST_BYTES
from openilias.images.tars import write_tar

_PER_JOB = 100
_MOST_TEXT = 2**20
_ADDRESS = re.compile(r"https?://[^/?#@\s]+([/?#]\S*)?")
_ORIGINALS = "anonymise"  # the step that keeps the originals of images it changed


@dataclass(frozen=True)
class CoreFile:
    """A file that is published: its name in the tar, where it is, and the id of what it is or belongs to."""

    name: str
    path: Path
    item: str

    @property
    def is_image(self) -> bool:
        """Whether it is an image."""
        return self.name.endswith(".jpg")


@dataclass(frozen=True)
class CoreFacts:
    """What was found of the objects.

    Attributes:
        files: all that is published of them, by name.
        digests: SHA-256 of each.
        image_bytes: of all images.
        lacking: images without a row.
        rows: what the table says of the published images.
        rows_sha256: of the table, empty without one.
        left_out: files in the folder that are not published.
    """

    files: tuple[CoreFile, ...]
    digests: dict[str, str] = field(default_factory=dict)
    image_bytes: int = 0
    lacking: int = 0
    rows: RowFacts = field(default_factory=RowFacts)
    rows_sha256: str = ""
    left_out: int = 0

    @property
    def images(self) -> frozenset[str]:
        """The ids of the images."""
        return frozenset(file.item for file in self.files if file.is_image)

    @property
    def unknown_licences(self) -> int:
        """How many images have no known licence."""
        return self.lacking + sum(count for (name, _), count in self.rows.licences.items() if name == UNKNOWN)

    @property
    def fingerprint(self) -> str:
        """What identifies the bytes."""
        return fingerprint_lines(f"{name} {digest}" for name, digest in sorted(self.digests.items()))


@dataclass(frozen=True)
class _Job:
    """Files to read, with what their rows say of those that are images."""

    files: tuple[CoreFile, ...]
    stated: dict[str, tuple[str | None, int | None]]
    longest: int
    quality: int


@dataclass(frozen=True)
class _Seen:
    digests: dict[str, str]
    image_bytes: int = 0
    findings: tuple[Finding, ...] = ()


def files_of_core(benchmark: Benchmark) -> tuple[CoreFile, ...]:
    """Return what is published of the objects: images and texts of the lists, boxes and addresses; nothing else."""
    files = []
    for item in (*benchmark.image_queries, *benchmark.positives, *benchmark.text_queries):
        path = benchmark.path_of(item)
        beside = [] if item.endswith(".txt") else [box_file(path), path.with_name(f"{path.stem}_url.txt")]
        for one in (path, *(other for other in beside if other.exists())):
            name = f"{CORE}/{item.rpartition('/')[0]}/{one.name}"
            files.append(CoreFile(name, one, item))
    return tuple(sorted(files, key=lambda file: file.name))


def check_core_files(
    benchmark: Benchmark,
    decisions: Decisions,
    run: Callable[..., Iterator[Any]],
    *,
    licence: str | None,
    longest: int,
    quality: int,
) -> tuple[CoreFacts, tuple[Finding, ...]]:
    """Read all files of the objects and say what of them must not be published.

    Args:
        benchmark: the set.
        decisions: which images were anonymised.
        run: does jobs, as :func:`openilias.core.executors.ordered_map` gives it.
        licence: of images whose rows state none.
        longest, quality: what images must conform to.
    """
    root, wrong = benchmark.root, Named(str(benchmark.core))
    files = files_of_core(benchmark)
    images = frozenset(file.item for file in files if file.is_image)
    table = root / ROWS / CORE_ROWS
    rows = RowFacts()
    try:
        rows = facts_of_rows(table, licence, images)
    except OpenIliasError as error:
        wrong.error("rows-unreadable", error.where or str(table), error.what, error.fix)
    _check_names(files, wrong)
    _check_places(files, root, wrong)
    if rows.twice:
        wrong.error("row-twice", str(table), f"Rows stand twice: {first_few(list(rows.twice))}.")
    if rows.bad_urls:
        shown = first_few([repr(url[:80]) for url in rows.bad_urls])
        what = f"{rows.bad_url_count} addresses are no public web addresses: {shown}."
        wrong.error("row-address", str(table), what, "Correct them, or leave them empty.")
    jobs = [
        _Job(part, {file.item: rows.stored[file.item] for file in part if file.item in rows.stored}, longest, quality)
        for start in range(0, len(files), _PER_JOB)
        for part in [files[start : start + _PER_JOB]]
    ]
    seen: list[_Seen] = list(run(_look, jobs))
    digests = {name: digest for one in seen for name, digest in one.digests.items()}
    _check_undone(root, files, digests, decisions, wrong)
    left_out = _left_out(benchmark, files)
    findings = [*wrong.all(), *(finding for one in seen for finding in one.findings)]
    if left_out:
        what = f"{left_out} files of the objects are no part of the layout, and are left out."
        findings.append(Finding("warning", "files-left-out", str(benchmark.core), what))
    facts = CoreFacts(
        files=files,
        digests=digests,
        image_bytes=sum(one.image_bytes for one in seen),
        lacking=len(images - rows.stored.keys()),
        rows=rows,
        rows_sha256=sha256_of(table) if table.is_file() else "",
        left_out=left_out,
    )
    return facts, tuple(findings)


def core_lost(job: _Job, loss: Loss) -> _Seen:
    """Return what is known of files whose process died."""
    what = f"The process that looked at this file or one of the {len(job.files) - 1} behind it died ({loss})."
    return _Seen({}, findings=(Finding("error", "file-unreadable", job.files[0].name, what),))


def _look(job: _Job) -> _Seen:
    wrong = Named("more of these files")
    digests, image_bytes = {}, 0
    for file in job.files:
        try:
            data = read_bytes(file.path, most=MOST_BYTES if file.is_image else _MOST_TEXT)
        except OSError as error:
            wrong.error("file-unreadable", file.name, f"This file cannot be read: {error.strerror or error}.")
            continue
        digests[file.name] = hashlib.sha256(data).hexdigest()
        if file.is_image:
            image_bytes += len(data)
            if file.item in job.stated:
                compare(file.item, data, job.stated[file.item], wrong)
            problems = conforms(data, longest=job.longest, quality=job.quality)
            if problems:
                what = f"This image does not conform: {'; '.join(problems)}."
                wrong.error("image-nonconforming", file.item, what)
        elif file.name.endswith("_url.txt"):
            _check_address(file, data, wrong)
    return _Seen(digests, image_bytes, wrong.all())


def _check_address(file: CoreFile, data: bytes, wrong: Named) -> None:
    """Addresses are published as they are: a local path in one would be too."""
    lines = [line.strip() for line in data.decode("utf-8", "replace").splitlines() if line.strip()]
    bad = [line for line in lines if not _ADDRESS.fullmatch(line)]
    if bad:
        what = f"This is no public web address: {bad[0][:80]!r}."
        wrong.error("url-private", file.name, what, "Correct it, or remove the file.")


def _check_names(files: tuple[CoreFile, ...], wrong: Named) -> None:
    folders = {file.name.rpartition("/")[0] for file in files}
    objects = {name.rpartition("/")[0] for name in folders}
    for one, other in alike([*(file.name for file in files), *folders, *objects]):
        wrong.error("names-alike", one, f"This name and {other!r} {ALIKE}.", "Rename one of them.")


def _check_places(files: tuple[CoreFile, ...], root: Path, wrong: Named) -> None:
    private = (root / BUILD).resolve()
    for file in files:
        if private in file.path.resolve().parents:
            what = f"This file is a link into {BUILD}/, which stays private."
            wrong.error("file-private", file.name, what, "Put a copy in its place, if it may be published.")


def _check_undone(
    root: Path, files: tuple[CoreFile, ...], digests: dict[str, str], decisions: Decisions, wrong: Named
) -> None:
    """Find images that are said to be anonymised and are what they were before."""
    if not decisions.applied:
        return
    kept = root / BUILD / _ORIGINALS
    sizes = {file.path.stat().st_size for file in files if file.item in decisions.applied and file.path.exists()}
    originals = {
        sha256_of(path): path
        for path in sorted(kept.rglob("*"))
        if path.is_file() and path.stat().st_size in sizes and not path.name.endswith((".csv", ".json"))
    }
    for file in files:
        if file.is_image and file.item in decisions.applied and digests.get(file.name) in originals:
            what = "The boxes of this image are said to be applied, and it is its original."
            wrong.error("anonymisation-undone", file.item, what, "Run ilias build anonymise on it again.")


def _left_out(benchmark: Benchmark, files: tuple[CoreFile, ...]) -> int:
    if not benchmark.core.is_dir():
        return 0
    published = {file.path for file in files}
    return sum(path.is_file() and path not in published for path in benchmark.core.rglob("*"))


def write_core_tar(target: Path, facts: CoreFacts) -> None:
    """Write the tar of the objects: by name, without times and owners; each file must still be what was checked.

    Raises:
        OpenIliasError: a file changed, or its name does not fit.
    """
    write_tar(target, _members(facts.files, facts.digests))


def _members(files: Iterable[CoreFile], digests: dict[str, str]) -> Iterator[tuple[str, bytes]]:
    for file in files:
        try:
            data = read_bytes(file.path, most=MOST_BYTES)
        except OSError as error:
            raise OpenIliasError(f"This file cannot be read: {error.strerror}.", where=file.path) from None
        if hashlib.sha256(data).hexdigest() != digests[file.name]:
            what = "This file changed since it was checked."
            raise OpenIliasError(what, where=file.path, fix="Run the same command again.")
        yield file.name, data
