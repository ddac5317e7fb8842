"""What figures know of a model that was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from openilias.evaluate.evaluation import Evaluation
from openilias.models.record import Record
from openilias.report.tables import cut_name

Queries = Literal["image", "text", "both"]
T = TypeVar("T")
MOST_DRAWN = 8
"""Models that a figure shows; its table has all."""
FULL = 99_000_000
"""A database from so many images on is that of ILIAS with all its distractors."""


@dataclass(frozen=True, eq=False)
class Measured:
    """One run.

    Attributes:
        name: as it is shown; all names of a report differ.
        benchmark: name of the benchmark.
        evaluation: what was found.
        record: of the model in the zoo; None if it has none.
        model: its name.
        dims: of its descriptors, if known.
        adapted: whether they are adapted.
        reranked: the method of re-ranking; None without.
        queries: of which kind.
        database_size: images that were searched, if known.
        resolution: of the images in pixels, if known.
        random_weights: whether its numbers say nothing about the model.
        descriptors: a digest of all that makes the descriptors: runs with the same differ in what is done with them.
        learned: a digest of what the adaptation was learned from and how, but for its dimensions.
    """

    name: str
    benchmark: str
    evaluation: Evaluation
    record: Record | None = None
    model: str = "unknown model"
    dims: int | None = None
    adapted: bool = False
    reranked: str | None = None
    queries: Queries = "image"
    database_size: int | None = None
    resolution: int | None = None
    random_weights: bool = False
    descriptors: str = ""
    learned: str = ""

    @property
    def full(self) -> bool:
        """Whether all of ILIAS was searched."""
        return self.database_size is not None and self.database_size >= FULL

    @property
    def but_resolution(self) -> str:
        """The protocol without the resolution, as text."""
        return self.evaluation.protocol.model_dump_json(exclude={"resolution"})

    @property
    def plain(self) -> bool:
        """Whether whole images are searched with whole images, in one view, and nothing is ranked again."""
        protocol = self.evaluation.protocol
        whole = protocol.query_boxes == protocol.positive_boxes == "none"
        one_view = protocol.scales == (1.0,) and protocol.rotations == (0,)
        return whole and one_view and protocol.expand is None and self.reranked is None and self.queries == "image"


def labels(measured: Sequence[Measured], names: Sequence[str]) -> list[str]:
    """Return these names, with that of the run where two are the same."""
    twice = {name for name in names if names.count(name) > 1}
    return [f"{name} ({one.name})" if name in twice else name for one, name in zip(measured, names, strict=True)]


def of_the_best(pairs: Sequence[tuple[Measured, T]]) -> list[tuple[Measured, T]]:
    """Return those of the best models, as many as a figure can show, in their order."""
    best = sorted(pairs, key=lambda pair: -pair[0].evaluation.map)[:MOST_DRAWN]
    names = {one.name for one, _ in best}
    return [pair for pair in pairs if pair[0].name in names]


def map_label(measured: Sequence[Measured]) -> str:
    """Return how mAP is written on an axis."""
    cuts = {cut_name(one.evaluation.protocol.k) for one in measured}
    return f"mAP@{cuts.pop()}, %" if len(cuts) == 1 else "mAP, %"


def peculiarities(one: Measured, usual: Evaluation) -> tuple[str, ...]:
    """Say why a run is not to be ranked with others.

    Args:
        one: the run.
        usual: how others were evaluated.
    """
    evaluation, found = one.evaluation, []
    if one.random_weights:
        found.append("random weights")
    if evaluation.unsearched:
        found.append("a part of the database")
    if evaluation.missing:
        found.append(f"{len(evaluation.missing)} queries not answered")
    if evaluation.protocol.k != usual.protocol.k:
        found.append(f"AP@{cut_name(evaluation.protocol.k)}")
    if evaluation.compat != usual.compat:
        found.append(f"compat {evaluation.compat}")
    return tuple(found)


def on_benchmarks(measured: Sequence[Measured]) -> str:
    """Return on what they were measured, in words."""
    return ", ".join(dict.fromkeys(one.benchmark for one in measured))
