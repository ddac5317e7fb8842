"""Looking at the files of a collector; what was looked at before and did not change is not read again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from openilias.build.collect.annotations.marks import Size
from openilias.build.collect.making import Look, look
from openilias.build.collect.values import SourceImage
from openilias.core.errors import OpenIliasError
from openilias.core.executors import ordered_map
from openilias.core.files import read_json, state_of_file, write_json
from openilias.core.progress import progress


def look_at(images: Sequence[SourceImage], cache: Path, *, workers: int, keep: bool) -> dict[str, Look]:
    """Tell what each image file is, by its source.

    Args:
        images: which.
        cache: file that holds what was looked at, with size and times of each file.
        workers: processes.
        keep: write the cache.

    Raises:
        OpenIliasError: a file cannot be read.
    """
    known = _read(cache)
    found: dict[str, Look] = {}
    states: dict[str, list[int]] = {}
    for image in images:
        try:
            states[image.source] = state_of_file(image.path)
        except OSError as error:
            raise OpenIliasError(f"This file cannot be read: {error.strerror}.", where=image.path) from None
        entry = known.get(image.source)
        if entry is not None and entry["file"] == states[image.source]:
            found[image.source] = Look(entry["sha256"], None if entry["size"] is None else Size(*entry["size"]))
    left = [image for image in images if image.source not in found]
    if left:
        with ordered_map(workers) as run, progress("look", total=len(left), unit="images") as step:
            for image, one in zip(left, run(look, [image.path for image in left]), strict=True):
                found[image.source] = one
                step()
    if keep:
        write_json(
            cache,
            {
                source: {"file": states[source], "sha256": one.sha256, "size": one.size and list(one.size)}
                for source, one in sorted(found.items())
            },
        )
    return found


def _read(cache: Path) -> dict[str, Any]:
    if not cache.exists():
        return {}
    try:
        value = read_json(cache)
    except OpenIliasError:
        return {}  # it saves time, and nothing else
    return value if isinstance(value, dict) else {}
