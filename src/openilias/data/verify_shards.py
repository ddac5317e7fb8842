"""One shard at a time: what its tar, images, id list and checksum say, kept so that nothing is done twice."""

from __future__ import annotations

import contextlib
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from openilias.core.errors import OpenIliasError, first_few
from openilias.core.files import atomic_path, read_json, state_of_file, temporary_beside, write_json
from openilias.core.findings import Finding
from openilias.core.fingerprints import fingerprint
from openilias.core.ids import FOLDER_PREFIX
from openilias.data.benchmark import Benchmark, Item, SourceShard, TarItems
from openilias.data.duplicates import sorted_digests
from openilias.data.examine import Depth, Examined, Job
from openilias.data.lists import listed_distractors
from openilias.images.tar_index import scan_once
from openilias.images.tars import TarScan

ALGORITHM_VERSION = 1
_ARRAYS = (".bytes.npy", ".pixels.npy", ".sizes.npy")
_PER_JOB = 100
_LISTED_AT_ONCE = 500_000
_LIST_STATE = "state.json"
_LONGEST_SHARD = 240  # bytes of its name
_MOST_MALFORMED = 1000  # malformed ids of the list named one by one


@dataclass(frozen=True)
class Part:
    """What is known of one shard.

    Attributes:
        state: what it was found from; another state means that it must be looked at again.
        images: how many there are.
        unreadable: how many of them cannot be decoded.
        others: side files of a tar by their ending.
        findings: what is wrong.
    """

    state: str
    images: int
    unreadable: int
    others: dict[str, int] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()


class Parts:
    """The folder in which the parts are kept: a marker a shard, written last, its digests and sizes beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.index = folder / "tar_index"
        self.lists = folder / "listed"

    def _path(self, shard: SourceShard, ending: str) -> Path:
        return self.folder / "parts" / f"{shard.name.replace('/', '-')}{ending}"

    def read(self, shard: SourceShard, state: str) -> Part | None:
        """Return the part of a shard if it was found from this state."""
        path = self._path(shard, ".json")
        if not all(self._path(shard, ending).exists() for ending in (".json", *_ARRAYS)):
            return None
        try:
            value = read_json(path)
            part = Part(**{**value, "findings": tuple(Finding(**one) for one in value["findings"])})
        except (OpenIliasError, TypeError, KeyError):
            return None  # a marker of another version, or damaged: the shard is looked at again
        return part if part.state == state else None

    def write(self, shard: SourceShard, part: Part, seen: Sequence[Examined]) -> None:
        """Keep a part and what its images gave, unless another process has done so."""
        if self.read(shard, part.state) is not None:
            return
        digests = np.concatenate([one.digests for one in seen]) if seen else Examined("").digests
        sizes = np.concatenate([one.sizes for one in seen]) if seen else Examined("").sizes
        # A marker of another state must not vouch for these.
        self._path(shard, ".json").unlink(missing_ok=True)
        arrays = (sorted_digests(digests, "bytes"), sorted_digests(digests, "pixels"), sizes)
        for ending, array in zip(_ARRAYS, arrays, strict=True):
            with atomic_path(self._path(shard, ending)) as temporary, temporary.open("wb") as handle:
                np.save(handle, array, allow_pickle=False)
        write_json(self._path(shard, ".json"), asdict(part))

    def digests(self, shard: SourceShard, by: str) -> Path:
        """Return the file of the sorted digests of a shard."""
        return self._path(shard, f".{by}.npy")

    def sizes(self, shard: SourceShard) -> npt.NDArray[np.int32]:
        """Return (N, 2): width and height of the upright images of a shard, -1 where there is none."""
        sizes: npt.NDArray[np.int32] = np.load(self._path(shard, ".sizes.npy"), allow_pickle=False)
        return sizes

    def keys_listed(self, shard: str) -> list[str]:
        """Return the keys that the id list names of a shard."""
        path = self.lists / f"{shard}.txt"
        return path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []


def state_of(shard: SourceShard, benchmark: Benchmark, depth: Depth, listed: str) -> str:
    """Return the fingerprint of all that a part depends on: files by size and time, settings, the stated digest."""
    files = [item.path for item in shard.files] if shard.tar is None else [shard.tar]
    stats = []
    for path in files:
        try:
            stats.append([str(path), *state_of_file(path)])
        except OSError:
            stats.append([str(path), -1])
    stated = benchmark.checksums.get(shard.name, "")
    return fingerprint([ALGORITHM_VERSION, depth, stats, stated, listed if shard.tar is not None else ""])


def split_list(path: Path, parts: Parts) -> tuple[str, tuple[Finding, ...]]:
    """Cut ``distractor_ids.txt.gz`` into one file a shard, in one pass that holds few ids; done once.

    Returns:
        the state of the list, and what is wrong with it.
    """
    try:
        state = fingerprint([str(path), *state_of_file(path)])
    except OSError as error:
        what = f"This id list cannot be read: {error.strerror}."
        return "", (Finding("error", "list-unreadable", str(path), what),)
    marker = parts.lists / _LIST_STATE
    if marker.exists():
        kept = read_json(marker)
        if kept.get("state") == state:
            return state, tuple(Finding(**one) for one in kept["findings"])
    # Several machines may do this at once: each in a folder of its own, and the first one's stays.
    temporary = temporary_beside(parts.lists)
    temporary.mkdir(parents=True)
    try:
        findings = _split(path, temporary)
        if any(finding.kind == "list-unreadable" for finding in findings):
            return state, tuple(findings)  # it is read again next time
        write_json(temporary / _LIST_STATE, {"state": state, "findings": [asdict(one) for one in findings]})
        if parts.lists.exists() and not (marker.exists() and read_json(marker).get("state") == state):
            parts.lists.replace(old := temporary_beside(parts.lists))
            shutil.rmtree(old)
        if not parts.lists.exists():
            with contextlib.suppress(OSError):  # another machine's was quicker
                temporary.replace(parts.lists)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return state, tuple(findings)


def _split(path: Path, folder: Path) -> list[Finding]:
    findings: list[Finding] = []
    waiting: dict[str, list[str]] = {}
    held = malformed = 0

    def flush() -> None:
        for name, keys in waiting.items():
            with (folder / f"{name}.txt").open("a", encoding="utf-8") as out:
                out.write("".join(f"{key}\n" for key in keys))
        waiting.clear()

    try:
        for item in listed_distractors(path):
            shard, _, key = item.partition("/")
            known = shard.endswith(".tar") or f"{shard}/" == FOLDER_PREFIX
            if not known or not key or not item.isprintable() or len(shard.encode()) > _LONGEST_SHARD:
                malformed += 1
                if malformed <= _MOST_MALFORMED:
                    what = f"Expected an id '<shard>.tar/<key>', found {item[:120]!r}."
                    findings.append(Finding("error", "id-malformed", str(path), what))
                continue
            waiting.setdefault(shard, []).append(key)
            held += 1
            if held >= _LISTED_AT_ONCE:
                flush()
                held = 0
        flush()
    except OpenIliasError as error:
        findings.append(Finding("error", "list-unreadable", str(path), error.what, error.fix))
    if malformed > _MOST_MALFORMED:
        what = f"{malformed - _MOST_MALFORMED} more ids of this list are malformed."
        findings.append(Finding("error", "id-malformed", str(path), what))
    return findings


def scan_of(shard: SourceShard, parts: Parts) -> TarScan | None:
    """Return the scan of a shard that is a tar.

    Raises:
        OpenIliasError: it cannot be read.
    """
    return None if shard.tar is None else scan_once(shard.tar, parts.index)


def jobs_of(shard: SourceShard, scan: TarScan | None, benchmark: Benchmark, depth: Depth) -> Iterator[Job]:
    """Yield the jobs that look at the images and the checksum of a shard."""
    items: Sequence[Item] = shard.files
    if shard.tar is not None and scan is not None:
        items = TarItems(shard.name, shard.tar, scan.index)
        if shard.name in benchmark.checksums and depth != "headers":
            yield Job(shard.name, whole=shard.tar)
    if shard.partition != "distractors":
        depth = "pixels"  # those of the objects are few, and most depends on them
    count = 0 if depth == "headers" else len(items)
    for start in range(0, count, _PER_JOB):
        yield Job(shard.name, start, items[start : start + _PER_JOB], depth)


def judge(
    shard: SourceShard, scan: TarScan | None, seen: Sequence[Examined], benchmark: Benchmark, parts: Parts, state: str
) -> Part:
    """Put together what is known of a shard."""
    findings = [finding for one in seen for finding in one.findings]
    images = len(shard.files)
    if scan is not None:
        images = len(scan.index)
        findings = [*_of_tar(shard, scan), *_against_list(shard, scan, benchmark, parts), *findings]
        for one in seen:
            stated = benchmark.checksums.get(shard.name)
            if one.sha256 and stated is not None and one.sha256 != stated:
                what = f"The SHA-256 of this shard is {one.sha256}, {stated} is stated."
                findings.insert(0, Finding("error", "checksum-differs", str(shard.tar), what, "Download it again."))
    return Part(
        state,
        images,
        sum(one.unreadable for one in seen),
        dict(scan.others) if scan is not None else {},
        tuple(findings),
    )


def _of_tar(shard: SourceShard, scan: TarScan) -> Iterator[Finding]:
    where = str(shard.tar)
    for what in scan.broken:
        kind = "key-duplicate" if what.startswith("the key ") else "shard-broken"
        yield Finding("error", kind, where, f"{what[0].upper()}{what[1:]}.", "Download or rebuild the shard.")
    for member in scan.unusable:
        what = f"This member looks like an image and is not used: {member.reason}."
        yield Finding("error", "member-unusable", f"{shard.name}/{member.name}", what)
    for member in scan.strange:
        what = f"This member has no place in a shard: {member.reason}."
        yield Finding("warning", "member-strange", f"{shard.name}/{member.name}", what)
    if not len(scan.index) and not scan.broken:
        yield Finding("warning", "shard-empty", where, "This shard has no images.")
    others = {ending: count for ending, count in scan.others.items() if ending != "/"}
    if others:
        listed = ", ".join(f"{count} {ending}" for ending, count in others.items())
        yield Finding("note", "side-files", where, f"Beside its images this shard has other files: {listed}.")


def _against_list(shard: SourceShard, scan: TarScan, benchmark: Benchmark, parts: Parts) -> Iterator[Finding]:
    if benchmark.id_list is not None:
        yield from _compare(parts.keys_listed(shard.name), set(scan.index.keys.to_pylist()), str(shard.tar))


def against_list_loose(benchmark: Benchmark, parts: Parts) -> Iterator[Finding]:
    """Compare the distractors that are files of a folder with those that the list names."""
    here = {item.path.name for shard in benchmark.distractor_shards for item in shard.files}
    if benchmark.id_list is not None and here:
        yield from _compare(parts.keys_listed("distractors"), here, str(benchmark.root / FOLDER_PREFIX))


def _compare(listed: list[str], here: set[str], where: str) -> Iterator[Finding]:
    counts = Counter(listed)
    twice = sorted(key for key, count in counts.items() if count > 1)
    for what, kind, keys in (
        ("ids of this place are listed more than once", "id-duplicate", twice),
        ("listed images are not here", "listed-missing", sorted(counts.keys() - here)),
        ("images here are not listed", "listed-lacks", sorted(here - counts.keys())),
    ):
        if keys:
            yield Finding("error", kind, where, f"{len(keys)} {what}: {first_few(keys, most=10)}.")


def absent_shards(benchmark: Benchmark, parts: Parts, *, partial: bool) -> list[Finding]:
    """Name the shards that a list or the checksums name and that are not here."""
    here = {shard.name for shard in benchmark.distractor_shards}
    if any(shard.tar is None for shard in benchmark.distractor_shards):
        here.add("distractors")
    listed = {path.name.removesuffix(".txt"): path for path in parts.lists.glob("*.txt")} if benchmark.id_list else {}
    named = {name for name in benchmark.checksums if name.endswith(".tar") and name != "ilias_core.tar"}
    findings = []
    for name in sorted((listed.keys() | named) - here):
        count = ""
        if name in listed:
            with listed[name].open("rb") as lines:
                count = f" (with {sum(1 for _ in lines)} listed images)"
        finding = Finding("error", "shard-missing", name, f"This shard{count} is not here.", "Download it.")
        findings.append(replace(finding, severity="note") if partial else finding)
    if benchmark.checksums:
        findings += [
            Finding("warning", "checksum-missing", name, "No checksum is stated of this shard.")
            for name in sorted(here - named - {"distractors"})
            if name.endswith(".tar")
        ]
    return findings


def sizes_of(items: Sequence[Item], sizes: npt.NDArray[np.int32]) -> dict[str, tuple[int, int]]:
    """Return id -> (width, height) of those images that have a size."""
    return {
        item.id: (int(width), int(height))
        for item, (width, height) in zip(items, sizes, strict=True)
        if width > 0 and height > 0
    }
