"""Where the private state of this step lies in a set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from openilias.core.errors import OpenIliasError
from openilias.data.benchmark import Benchmark
from openilias.data.ilias import LISTS, TEXT_QUERIES, find_ilias, taxonomy_file
from openilias.data.taxonomy import read_taxonomy


@dataclass(frozen=True)
class Place:
    """A set, and the files of this step."""

    root: Path
    benchmark: Benchmark

    @property
    def core(self) -> Path:
        """The folder of the objects."""
        return self.benchmark.core

    @property
    def folder(self) -> Path:
        """Of the private state; never published."""
        return self.root / "build" / "caption"

    @property
    def answers(self) -> Path:
        """Every answer as it came, a line each; only ever added to."""
        return self.folder / "answers.jsonl"

    @property
    def captions(self) -> Path:
        """The table on which a person decides."""
        return self.folder / "captions.csv"

    @property
    def review(self) -> Path:
        """The page on which a person decides."""
        return self.folder / "review.html"

    @property
    def manifest(self) -> Path:
        """What was asked last: prompt, model, settings."""
        return self.folder / "manifest.json"

    @property
    def applied(self) -> Path:
        """The digests of the texts that were written to the core."""
        return self.folder / "applied.json"

    @property
    def text_list(self) -> Path:
        """The ids of the text queries."""
        return self.root / LISTS / TEXT_QUERIES


def place_of(root: Path) -> Place:
    """Return the place of a set.

    Raises:
        OpenIliasError: it is no set with images of objects, or its taxonomy is malformed.
    """
    root = Path(root)
    benchmark = find_ilias(root).benchmark
    if not benchmark.core.is_dir():
        raise OpenIliasError("This set has no images of objects.", where=benchmark.core, fix="Collect them first.")
    path = taxonomy_file(root, benchmark.core)
    if path is not None:
        read_taxonomy(path)  # the wrong category in a question would be worse than none
    return Place(root, benchmark)
