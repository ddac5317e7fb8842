"""Tables G and H of the paper: every global model, image-to-image and text-to-image."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from openilias.published.printed import read_table


@dataclass(frozen=True)
class ImageRow:
    """A row of Table G. Numbers are those that are printed: see :func:`~openilias.published.printed.errata`.

    Attributes:
        checkpoint: the paper's name of the model.
        year: of publication.
        repository: where the authors took it from; ``github*`` was not public.
        kind: of network.
        training: ``sup``, ``ssl``, ``vla``, ``dist``, ``sup+dist``.
        dims: of the descriptor.
        dataset: of the training.
        data_size: in words.
        train_resolution: in pixels.
        test_resolution: in pixels.
        map_100m: mAP@1k in percent with 100M distractors, without adaptation.
        map_5m_adapted: with linear adaptation, on mini-ILIAS. Its column without adaptation is an erratum.
        map_100m_adapted: with linear adaptation and 100M distractors.
    """

    checkpoint: str
    year: int
    repository: str
    kind: str
    training: str
    dims: int
    dataset: str
    data_size: str
    train_resolution: int
    test_resolution: int
    map_100m: float
    map_5m_adapted: float
    map_100m_adapted: float


@dataclass(frozen=True)
class TextRow:
    """A row of Table H, text-to-image, without adaptation; fields as those of :class:`ImageRow`.

    Attributes:
        map_5m: mAP@1k in percent on mini-ILIAS.
        map_100m: mAP@1k in percent with 100M distractors.
    """

    checkpoint: str
    year: int
    repository: str
    kind: str
    dims: int
    dataset: str
    data_size: str
    train_resolution: int
    test_resolution: int
    map_5m: float
    map_100m: float


@cache
def image_rows() -> tuple[ImageRow, ...]:
    """Return Table G, in its order."""
    return tuple(
        ImageRow(
            **_common(row),
            training=row["train"],
            map_100m=float(row["map1k_100m"]),
            map_5m_adapted=float(row["map1k_5m_adapted"]),
            map_100m_adapted=float(row["map1k_100m_adapted"]),
        )
        for row in read_table("table_g.csv")
    )


@cache
def text_rows() -> tuple[TextRow, ...]:
    """Return Table H, in its order."""
    return tuple(
        TextRow(**_common(row), map_5m=float(row["map1k_5m"]), map_100m=float(row["map1k_100m"]))
        for row in read_table("table_h.csv")
    )


def _common(row: dict[str, str]) -> dict[str, Any]:
    return {
        "checkpoint": row["checkpoint"],
        "year": int(row["year"]),
        "repository": row["repo"],
        "kind": row["arch"],
        "dims": int(row["dims"]),
        "dataset": row["dataset"],
        "data_size": row["data_size"],
        "train_resolution": int(row["train_res"]),
        "test_resolution": int(row["test_res"]),
    }
