"""The manifest of an output: who made it, from what; and what to do when it is already there."""

from __future__ import annotations

import platform
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from openilias.core.errors import OpenIliasError, first_few
from openilias.core.files import is_temporary, made_folder, read_json, temporary_beside, write_json
from openilias.core.fingerprints import differences, fingerprint, fingerprint_lines

State = Literal["new", "same", "other"]


def software() -> dict[str, str]:
    """Return the versions of what computes, for information; never part of a fingerprint."""
    versions = {"python": platform.python_version()}
    for package in ("openilias", "torch", "torchvision", "timm", "numpy", "opencv-python-headless", "pillow"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def read_manifest(path: Path, *, kind: str) -> dict[str, Any]:
    """Read a manifest and check that it is of the ``kind`` expected.

    Raises:
        OpenIliasError: no manifest, an unreadable one, or one of another kind.
    """
    if not path.exists():
        there = path.parent.exists()
        raise OpenIliasError(
            f"This is not a {kind}: it has no {path.name}." if there else f"There is no {kind} here.",
            where=path.parent,
            fix=f"Give the folder of a {kind} made by ilias.",
        )
    manifest = read_json(path)
    if not isinstance(manifest, dict) or manifest.get("kind") != kind:
        found = manifest.get("kind") if isinstance(manifest, dict) else None
        raise OpenIliasError(
            f"Expected a {kind}, found {found or 'something else'}.", where=path, fix=f"Give a {kind}."
        )
    if not isinstance(manifest.get("made_from"), dict):
        raise OpenIliasError(
            "This manifest does not say what it was made from.",
            where=path,
            fix="Make it again with --overwrite.",
        )
    return manifest


def write_manifest(path: Path, *, kind: str, made_from: dict[str, Any], **information: Any) -> None:
    """Write a manifest: ``made_from`` is fingerprinted, ``information`` is not."""
    write_json(
        path,
        {
            "kind": kind,
            "fingerprint": fingerprint(made_from),
            "made_from": made_from,
            "software": software(),
            **information,
        },
    )


def contents_of_folder(folder: Path, *, ours: str) -> str:
    """Return the fingerprint of names and sizes of the files of an output.

    Args:
        folder: the output.
        ours: regular expression of the names at the top of the folder that belong to it.
    """
    tops = [path for path in folder.iterdir() if re.fullmatch(ours, path.name)]
    files = sorted(path for top in tops for path in (top, *top.rglob("*")) if path.is_file())
    return fingerprint_lines(f"{path.relative_to(folder).as_posix()} {path.stat().st_size}" for path in files)


def claim(folder: Path, name: str, *, kind: str, made_from: dict[str, Any], overwrite: bool, ours: str = "") -> State:
    """Decide whether an output has to be made; changes nothing.

    Args:
        folder: the output folder.
        name: its manifest file.
        kind: what the manifest must say it is.
        made_from: what the output would be made from now.
        overwrite: an output made from something else, or a damaged one, may be replaced.
        ours: regular expression of the other file names of such an output. A folder that holds only these was cut
            off before its manifest, and is free; one that holds anything else is never replaced.

    Returns:
        ``same`` if the folder holds an output (whole or begun) made from the same, ``new`` if it is free, ``other``
        if it holds an output that may be replaced.

    Raises:
        OpenIliasError: the folder holds something else and ``overwrite`` is False, or files that are not ours.
    """
    manifest_path = folder / name
    if folder.exists() and not folder.is_dir():
        raise OpenIliasError("The output path is a file.", where=folder, fix="Give another --out.")
    if not folder.exists():
        return "new"
    foreign = sorted(
        entry.name
        for entry in folder.iterdir()
        if entry.name != name and not is_temporary(entry.name) and not re.fullmatch(ours, entry.name)
    )
    if not manifest_path.exists():
        if foreign:
            raise OpenIliasError(
                f"The output folder exists and holds no {kind}.", where=folder, fix="Give another --out."
            )
        return "new"
    try:
        manifest = read_manifest(manifest_path, kind=kind)
    except OpenIliasError:
        if not overwrite or foreign:
            raise
        return "other"
    if manifest.get("fingerprint") == fingerprint(made_from):
        return "same"
    if not overwrite:
        changed = differences(manifest["made_from"], made_from)
        raise OpenIliasError(
            f"This {kind} was made from something else:\n    " + "\n    ".join(changed[:12]),
            where=folder,
            fix="Give another --out, or --overwrite to replace it.",
        )
    if foreign:
        raise OpenIliasError(
            f"This {kind} cannot be replaced, its folder holds other files too: {first_few(foreign)}.",
            where=folder,
            fix="Move them away, or give another --out.",
        )
    return "other"


@contextmanager
def replacing(folder: Path, state: State, *, begun: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Make an output in the block; if that fails, what was there before is there again.

    Args:
        folder: the output folder.
        state: as :func:`claim` found it.
        begun: asked after a failure: whether the new output is worth keeping although it is not whole.
    """
    folder = folder.resolve()
    old = None
    if state == "other":
        old = temporary_beside(folder)
        folder.replace(old)
    try:
        with made_folder(folder):
            yield
    except BaseException:
        if old is not None and not begun():
            shutil.rmtree(folder, ignore_errors=True)
            old.replace(folder)
            old = None
        raise
    finally:
        if old is not None:
            shutil.rmtree(old)
