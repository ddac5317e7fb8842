"""What the making of every store has in common: who may write where, and what stays behind when it fails."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from openilias.core.errors import OpenIliasError
from openilias.core.files import owned, remove_leftovers_of, remove_temporaries
from openilias.core.manifests import State, claim, replacing, write_manifest
from openilias.core.shards import Share
from openilias.descriptors.store import FILES, KIND, MANIFEST, read_marker, told_if_full

_MARKERS = "[0-9]*.json"


@contextmanager
def making(
    out: Path,
    *,
    made_from: dict[str, Any],
    sources: Sequence[str],
    share: Share,
    overwrite: bool,
    kind: str = KIND,
    ours: str = FILES,
    **information: Any,
) -> Iterator[None]:
    """Make shards of a store in the block; those that are finished are kept, whatever happens.

    Args:
        out: folder of the store.
        made_from: everything its descriptors depend on.
        sources: names of all its shards.
        share: which of them are made; another process may make others in the same folder at the same time.
        overwrite: replace what was made from something else, or is damaged.
        kind: of the store.
        ours: regular expression of the names of its files.
        **information: more entries of the manifest.

    Raises:
        OpenIliasError: the output is in the way, or the disk is full.
    """
    state = claim(out, MANIFEST, kind=kind, made_from=made_from, overwrite=overwrite, ours=ours)
    alone = share.everything
    if not alone:
        _check_place(out, state)

    def begun() -> bool:
        return not alone or any((out / f"{number:05d}.json").exists() for number in range(len(sources)))

    with replacing(out, state, begun=begun), owned(out, shared=not alone):
        if alone:
            remove_temporaries(out)
        if state != "same":
            if alone:  # of a store whose manifest is lost
                for path in out.glob(_MARKERS):
                    path.unlink()
            with told_if_full(out / MANIFEST):
                write_manifest(out / MANIFEST, kind=kind, made_from=made_from, **information, sources=list(sources))
        try:
            yield
        except BaseException:
            if not begun():
                for path in (*out.glob("00000.*"), out / MANIFEST):
                    path.unlink(missing_ok=True)  # nothing is finished yet, so nothing is worth keeping
            raise
    if alone:
        remove_leftovers_of(out)


def unfinished(out: Path, sources: Sequence[str]) -> list[str]:
    """Return the shards of a store that are not finished."""
    return [source for number, source in enumerate(sources) if read_marker(out, number) is None]


def _check_place(out: Path, state: State) -> None:
    if state == "other":
        raise OpenIliasError(
            "One share of the work cannot replace the whole store.", where=out, fix="Remove the old store first."
        )
    if state == "new" and any(out.glob(_MARKERS)) and not (out / MANIFEST).exists():
        raise OpenIliasError("This store has lost its manifest.", where=out, fix="Remove it first.")
