"""Whether a published folder is what was published: every file has its checksum, and no other file is there."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from openilias.build.publish.publishing import KIND, MANIFEST
from openilias.core.errors import OpenIliasError
from openilias.core.executors import usable_cores
from openilias.core.files import read_bytes, sha256_of
from openilias.core.findings import Finding
from openilias.core.manifests import read_manifest
from openilias.core.progress import progress
from openilias.data.ilias import CHECKSUMS
from openilias.data.published_places import SHARDS, parse_checksums

_NOT_LISTED = frozenset((CHECKSUMS, MANIFEST))


@dataclass(frozen=True)
class PublishedCheck:
    """The outcome: how many files are sound, how many lie elsewhere, and what is wrong."""

    sound: int
    elsewhere: int
    findings: tuple[Finding, ...]


def verify_published(folder: Path, *, workers: int | None = None) -> PublishedCheck:
    """Digest every file of a published folder, here or where it was copied to.

    Raises:
        OpenIliasError: it is no published folder.
    """
    manifest = read_manifest(folder / MANIFEST, kind=KIND)
    findings = []
    if not manifest.get("complete"):
        what, fix = "The publishing of this set was cut off.", "Run the same ilias build publish again."
        raise OpenIliasError(what, where=folder, fix=fix)
    base = manifest["made_from"].get("url_base") or "."
    path = folder / CHECKSUMS
    try:
        listed = parse_checksums(read_bytes(path).decode("utf-8"), base, where=str(path))
        if sha256_of(path) != manifest.get("checksums"):
            what = "This list is not the one that was published."
            findings.append(Finding("error", "checksums-differ", str(path), what))
    except (OSError, ValueError) as error:
        raise OpenIliasError(f"The list of checksums cannot be read: {error}.", where=path) from None
    here = {one.relative_to(folder).as_posix() for one in folder.rglob("*") if one.is_file() or one.is_symlink()}
    apart = manifest["made_from"].get("shards") == "leave"
    missing = sorted(listed.keys() - here)
    elsewhere = [name for name in missing if apart and name.startswith(f"{SHARDS}/")]
    for name in sorted(set(missing) - set(elsewhere)):
        findings.append(Finding("error", "file-missing", name, "This file is listed and not here."))
    for name in sorted(here - listed.keys() - _NOT_LISTED):
        what = "This file is here and not listed: it was not published."
        findings.append(Finding("error", "file-unlisted", name, what, "Move it away before the folder is copied."))
    there = sorted(listed.keys() & here)
    with (
        ThreadPoolExecutor(workers or usable_cores()) as threads,
        progress("verify", total=len(there), unit="files") as step,
    ):
        sound = 0
        for name, digest in zip(there, threads.map(lambda name: _digest(folder / name), there), strict=True):
            step()
            sound += digest == listed[name]
            if digest != listed[name]:
                what = "it cannot be read" if digest is None else f"its SHA-256 is {digest}, {listed[name]} is listed"
                findings.append(Finding("error", "file-differs", name, f"This file is not sound: {what}."))
    return PublishedCheck(sound, len(elsewhere), tuple(findings))


def _digest(path: Path) -> str | None:
    try:
        return sha256_of(path)
    except OSError:
        return None
