"""Tables 4 and F of the paper: re-ranking by several methods, and on top of several global descriptors."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from openilias.published.adaptation import MODELS
from openilias.published.printed import read_table


@dataclass(frozen=True)
class Reranked:
    """One result.

    Attributes:
        method: ``global``, ``αQE1``, ``αQE2``, ``αQE5``, ``CS``, ``SP`` or ``AMES``.
        model: of the global descriptors, as the zoo names it.
        adapted: whether they are adapted.
        map: mAP@1k in percent, with 100M distractors.
        oracle: of the same.
        mini: mAP@1k in percent on mini-ILIAS, where it is published.
        mini_oracle: of the same.
    """

    method: str
    model: str
    adapted: bool
    map: float
    oracle: float
    mini: float | None = None
    mini_oracle: float | None = None


@cache
def reranked_by_method() -> tuple[Reranked, ...]:
    """Return Table 4: SigLIP, and SigLIP adapted."""
    return tuple(
        Reranked(
            row["reranking"],
            MODELS["SigLIP"],
            bool(mark),
            float(row[f"SigLIP{mark}"]),
            float(row[f"SigLIP{mark} oracle"]),
        )
        for row in read_table("table_4.csv")
        for mark in ("", " †")
    )


@cache
def reranked_by_model() -> tuple[Reranked, ...]:
    """Return Table F: three adapted models, with AMES and without."""
    return tuple(
        Reranked(
            row["reranking"],
            MODELS[row["model"]],
            True,
            *(float(row[name]) for name in ("ILIAS", "ILIAS oracle", "mini-ILIAS", "mini-ILIAS oracle")),
        )
        for row in read_table("table_f.csv")
    )
