"""What lies beside the ranking of a run: its stores, and the layer that it was adapted with."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from openilias.adapt.files import read_linear_map
from openilias.adapt.learned import LAYER
from openilias.adapt.linear import LinearMap
from openilias.core.files import read_json
from openilias.descriptors.store import MANIFEST, DescriptorStore, open_store

_RUN = "run.json"


def stores_beside(rankings: Iterable[Path], given: Iterable[Path] = ()) -> list[DescriptorStore]:
    """Open stores that are given, and those in the folders of runs, or where the runs say that they share them.

    Args:
        rankings: each in the folder of its run.
        given: stores, or official files.

    Raises:
        OpenIliasError: one of them cannot be opened.
    """
    paths = dict.fromkeys(path.resolve() for path in given)
    for ranking in rankings:
        run = ranking.resolve().parent
        about = read_json(run / _RUN) if (run / _RUN).is_file() else {}
        for folder in (run, *(Path(about["stores"]) for key in ("stores",) if key in about)):
            if folder.is_dir():
                paths |= dict.fromkeys(one for one in sorted(folder.iterdir()) if (one / MANIFEST).is_file())
    return [open_store(path) for path in paths]


def layers_beside(rankings: Iterable[Path], given: Iterable[Path] = ()) -> list[LinearMap]:
    """Read layers that are given, and those that the runs of rankings have learned.

    Raises:
        OpenIliasError: one of them cannot be read.
    """
    learned = (ranking.resolve().parent / "adaptation" / LAYER for ranking in rankings)
    files = (path / LAYER if path.is_dir() else path for path in given)
    return [read_linear_map(path) for path in (*files, *(path for path in learned if path.is_file()))]
