"""Ids as in the official files, and the partitions they belong to.

=====================  ===============================================
partition              ids
=====================  ===============================================
``image_queries``      ``<object>/query/Qxxx_yy.jpg``
``text_queries``       ``<object>/query/Txxx.txt``
``positives``          ``<object>/pos/Pxxx_zz.jpg``
``distractors``        ``<shard>.tar/<key>`` or ``distractors/<file name>``
=====================  ===============================================
"""

from __future__ import annotations

from typing import Literal, get_args

Partition = Literal["image_queries", "text_queries", "positives", "distractors", "train"]
PARTITIONS: tuple[Partition, ...] = get_args(Partition)
DATABASE_PARTITIONS: tuple[Partition, ...] = ("positives", "distractors")
SHAPES: dict[str, str] = {
    "image_queries": r"[^/]+/query/Q[^/]*\.jpg",
    "text_queries": r"[^/]+/query/T[^/]*\.txt",
    "positives": r"[^/]+/pos/P[^/]*\.jpg",
    "distractors": r"(?s:[^/]+\.tar/.+|distractors/.+)",
}
"""Regular expressions of whole ids; those of ``train`` are any paths."""

FOLDER_PREFIX = "distractors/"


def object_of(item: str) -> str:
    """Return the object of a query or positive id: the text before the first ``/``."""
    return item.split("/", 1)[0]


def distractor_shard(item: str) -> str | None:
    """Return the tar file name of a distractor id, or None when it is an image of a folder."""
    shard = item.split("/", 1)[0]
    return shard if shard.endswith(".tar") else None


def is_distractor(item: str) -> bool:
    """Tell whether an id has the shape of a distractor's."""
    shard, _, key = item.partition("/")
    return bool(key) and (shard.endswith(".tar") or item.startswith(FOLDER_PREFIX))
