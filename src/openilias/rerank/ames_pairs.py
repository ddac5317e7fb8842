"""Pairs that AMES learns from: an image with another of its class, and with what the global ranking confuses it with.

The ranking is one of the training images among themselves. What stands high in the list of an image and is of another
class is a hard negative: the network will be asked about such images later.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from openilias.core.errors import OpenIliasError, first_few
from openilias.core.progress import tell
from openilias.data.training import TrainingSet
from openilias.search.ranking import ABSENT, Ranking

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Mined:
    """Images, and which of them make pairs.

    Attributes:
        ids: (N,) of all images.
        classes: (N,) the class of each.
        anchors: (A,) images that pairs are made of.
        negatives: of each anchor, images of other classes, the hardest first; never empty.
        members: of each class, its images.
    """

    ids: tuple[str, ...]
    classes: Numbers
    anchors: Numbers
    negatives: tuple[Numbers, ...]
    members: tuple[Numbers, ...]

    def drawn(self, places: Numbers, rng: np.random.Generator) -> tuple[Numbers, Numbers, Numbers]:
        """Draw a positive and a negative for some anchors.

        Args:
            places: (B,) of :attr:`anchors`.
            rng: draws.

        Returns:
            (B,) images: anchors, positives, negatives.
        """
        anchors = self.anchors[places]
        shares = rng.random((len(places), 2))
        positives = np.empty(len(places), np.int64)
        negatives = np.empty(len(places), np.int64)
        for row, (place, anchor) in enumerate(zip(places.tolist(), anchors.tolist(), strict=True)):
            same = self.members[self.classes[anchor]]
            # The anchor itself is passed over: its place is taken by the last one.
            chosen = int(shares[row, 0] * (len(same) - 1))
            positives[row] = same[-1] if same[chosen] == anchor else same[chosen]
            others = self.negatives[place]
            negatives[row] = others[int(shares[row, 1] * len(others))]
        return anchors, positives, negatives


def mine(ranking: Ranking, training: TrainingSet, *, hard: int) -> Mined:
    """Find the pairs of a ranking.

    Args:
        ranking: of training images, among training images.
        training: their labels.
        hard: the first so many images of other classes in each list are its negatives.

    Raises:
        OpenIliasError: images without a label, or no image with both a positive and a negative.
    """
    # Numbered by their names: the order of the list says nothing.
    pairs = list(zip(training.labels, training.domains, strict=True))
    names = {pair: place for place, pair in enumerate(sorted(set(pairs)))}
    number = {item: names[pair] for item, pair in zip(training.ids, pairs, strict=True)}
    rows = np.unique(ranking.rows[ranking.rows != ABSENT])
    listed = [ranking.db_ids[row] for row in rows.tolist()]
    ids = list(dict.fromkeys([*ranking.query_ids, *listed]))
    unlabelled = [item for item in ids if item not in number]
    if unlabelled:
        raise OpenIliasError(
            f"{len(unlabelled)} of {len(ids)} images of the ranking have no label: {first_few(unlabelled)}.",
            fix="Search the training images among themselves, and give their labels.",
        )
    place = {item: row for row, item in enumerate(ids)}
    classes = np.array([number[item] for item in ids], np.int64)
    of_row = np.full(int(rows.max(initial=-1)) + 1, -1, np.int64)
    of_row[rows] = [place[item] for item in listed]
    members = _members(classes)
    anchors, negatives, lonely = [], [], 0
    for query, item in enumerate(ranking.query_ids):
        found = ranking.rows[query]
        found = of_row[found[found != ABSENT]]
        others = found[classes[found] != classes[place[item]]][:hard]
        if len(others) and len(members[classes[place[item]]]) > 1:
            anchors.append(place[item])
            negatives.append(others)
        else:
            lonely += 1
    if lonely:
        tell(f"pairs: {lonely:,} of {lonely + len(anchors):,} images have no other of their class, or no negative")
    if not anchors:
        raise OpenIliasError(
            "No image has both another of its class and one of another class in its list.",
            fix="Search deeper (-k), or give other labels.",
        )
    return Mined(tuple(ids), classes, np.array(anchors, np.int64), tuple(negatives), members)


def kept_back(mined: Mined, count: int, *, seed: int) -> tuple[Mined, Mined | None]:
    """Keep whole classes back, to measure on: about ``count`` anchors, at most a tenth.

    Returns:
        What is learned from, which holds no image of those classes, and what was kept back; None if there is nothing.
    """
    count = min(count, len(mined.anchors) // 10)
    of_anchor = mined.classes[mined.anchors]
    order = np.random.default_rng([seed, 10**6]).permutation(np.unique(of_anchor))
    sizes = np.bincount(of_anchor, minlength=len(mined.members))[order]
    chosen = order[: int(np.searchsorted(np.cumsum(sizes), count, side="right"))]
    if not len(chosen):
        return mined, None
    gone = np.isin(mined.classes, chosen)
    kept = [row for row, anchor in enumerate(mined.anchors.tolist()) if gone[anchor]]
    others = [one[~gone[one]] for one in mined.negatives]
    left = [row for row, anchor in enumerate(mined.anchors.tolist()) if not gone[anchor] and len(others[row])]
    return _only(mined, left, others), _only(mined, kept, mined.negatives)


def _only(mined: Mined, rows: Sequence[int], negatives: Sequence[Numbers]) -> Mined:
    return Mined(
        mined.ids, mined.classes, mined.anchors[list(rows)], tuple(negatives[row] for row in rows), mined.members
    )


def _members(classes: Numbers) -> tuple[Numbers, ...]:
    order = np.argsort(classes, kind="stable")
    ends = np.cumsum(np.bincount(classes))
    return tuple(np.split(order, ends[:-1]))
