"""Where work that makes one output keeps its state, so that a killed one goes on."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from openilias.core.files import owned, remove_leftovers_of, remove_temporaries, temporary_of

_KEY = "5ea7c4"  # of the folder: one for all that make one output, so that they meet


@contextmanager
def kept_state(out: Path, name: str) -> Iterator[Path]:
    """Give the path of a state file beside an output; its folder is removed when the block succeeds.

    Args:
        out: the output.
        name: of the file; with a fingerprint in it work does not go on with the state of another.

    Raises:
        OpenIliasError: another process is making this output.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = temporary_of(out, _KEY)
    folder.mkdir(exist_ok=True)
    try:
        with owned(folder, output=out):
            remove_temporaries(folder)
            yield folder / name
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
    remove_leftovers_of(out)
