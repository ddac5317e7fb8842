"""Folders that this room writes: replaced only by whole ones, and only if they are ours and hold nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from openilias.core.errors import OpenIliasError
from openilias.core.files import atomic_folder, owned, read_json, remove_leftovers_of, write_json


@contextmanager
def output_folder(out: Path, kind: str, about: Mapping[str, Any]) -> Iterator[Path]:
    """Give a folder that takes the place of ``out`` if the block succeeds, with ``<kind>.json`` that lists its files.

    Args:
        out: the folder; one of this kind that was there is replaced.
        kind: of folder.
        about: what else its list says; it may be filled within the block.

    Raises:
        OpenIliasError: ``out`` holds something else.
    """
    out = Path(out)
    check_output(out, kind)
    if out.resolve().parent.is_dir():
        remove_leftovers_of(out)
    with atomic_folder(out) as folder, owned(folder):
        yield folder
        names = sorted(path.name for path in folder.iterdir())
        write_json(folder / f"{kind}.json", {"kind": kind, "files": names, **about})


def check_output(out: Path, kind: str) -> None:
    """Refuse a path that holds something else than a folder of a kind.

    Raises:
        OpenIliasError: it does.
    """
    if out.exists() and not _replaceable(out, kind):
        raise OpenIliasError(f"The output path exists and holds no {kind}.", where=out, fix="Give another --out.")


def _replaceable(out: Path, kind: str) -> bool:
    if not out.is_dir():
        return False
    marker = f"{kind}.json"
    names = {path.name for path in out.iterdir()}
    if marker not in names:
        return not names
    about = read_json(out / marker)
    files = about.get("files") if isinstance(about, dict) and about.get("kind") == kind else None
    return isinstance(files, list) and names <= {marker, *map(str, files)}
