"""The manifest of an output: who made it, from what; and what to do when it is already there."""

from __future__ import annotations

import platform
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from openilias.core.errors import OpenIliasError
from openilias.core.files import is_temporary, read_json, temporary_beside, write_json
from openilias.core.fingerprints import differences, fingerprint

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
        raise OpenIliasError(
            f"This is not a {kind}: it has no {path.name}.",
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


def claim(
    folder: Path, name: str, *, kind: str, made_from: dict[str, Any], overwrite: bool, payload: tuple[str, ...] = ()
) -> State:
    """Decide whether an output has to be made; changes nothing.

    Args:
        folder: the output folder.
        name: its manifest file.
        kind: what the manifest must say it is.
        made_from: what the output would be made from now.
        overwrite: an output made from something else may be replaced.
        payload: files that are written before the manifest: a folder with nothing else was cut off, and is free.

    Returns:
        ``same`` if the folder holds an output (whole or begun) made from the same, ``new`` if it is free, ``other``
        if it holds an output that may be replaced: :func:`discard` it when the new one is ready or certain.

    Raises:
        OpenIliasError: the folder holds something else and ``overwrite`` is False, or files that are not ours.
    """
    manifest_path = folder / name
    if folder.exists() and not folder.is_dir():
        raise OpenIliasError("The output path is a file.", where=folder, fix="Give another --out.")
    if not manifest_path.exists():
        if folder.exists() and any(not is_temporary(e.name) and e.name not in payload for e in folder.iterdir()):
            raise OpenIliasError(
                f"The output folder exists and holds no {kind}.", where=folder, fix="Give another --out."
            )
        return "new"
    manifest = read_manifest(manifest_path, kind=kind)
    if manifest.get("fingerprint") == fingerprint(made_from):
        return "same"
    if not overwrite:
        changed = differences(manifest["made_from"], made_from)
        raise OpenIliasError(
            f"This {kind} was made from something else:\n    " + "\n    ".join(changed[:12]),
            where=folder,
            fix="Give another --out, or --overwrite to replace it.",
        )
    return "other"


def discard(folder: Path) -> None:
    """Remove an output that is to be replaced."""
    # Renamed first: killed in between, no half of the old output is left under its name.
    old = temporary_beside(folder)
    folder.replace(old)
    shutil.rmtree(old)
