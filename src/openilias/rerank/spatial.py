"""Spatial verification (Philbin et al., CVPR 2007), as in the paper's supplement A; or homographies by PoseLib.

Each query descriptor is matched with its nearest one in the image, if that is near enough. Each of these pairs
alone is a hypothesis: a translation, or with scales a translation with a scaling (a similarity without its rotation:
stores hold where a descriptor is and how large, not how it is turned). A hypothesis with more inliers than all before
is optimised locally (LO-RANSAC, Chum et al., 2003) to an affine map: fitted to what lies within a tolerance that
shrinks. All pairs are tried, so nothing is left to chance, unless there are more of them than ``hypotheses``: then so
many are drawn. The score is the number of inliers; fewer than five are none.

With the estimator ``homography`` the affine map is only the first hypothesis of PoseLib's RANSAC, which samples four
pairs at a time and refines the best homography; if that cannot be a view of the same thing, the affine map stands.
PoseLib has no estimator of affine maps: these are always ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from openilias.models.local_features import SCALE, LocalFeatures, X, Y
from openilias.rerank.hamming import FARTHEST, nearest, words_of
from openilias.rerank.homography import SAMPLE, homography
from openilias.rerank.spatial_kernels import verify_images, verify_pairs

_BLOCK = 64 << 20  # bytes of similarities at a time


class SpatialSettings(BaseModel):
    """What spatial verification depends on.

    Attributes:
        estimator: ``affine`` by our own LO-RANSAC, or ``homography`` by PoseLib, which begins with the affine map.
        hamming: packed descriptors match up to this distance, in bits of 128; of other lengths in proportion.
        cosine: descriptors of numbers match from this cosine on.
        tolerance: distance in pixels up to which a pair is an inlier.
        least: fewer inliers count as none.
        rounds: of local optimisation.
        stretch: maps that stretch a direction more, or less than 1 over this, or that mirror are not taken.
        scales: pairs have scales, and hypotheses too.
        hypotheses: at most so many are tried: pairs, and for homographies samples of four as well.
        seed: of their drawing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    estimator: Literal["affine", "homography"] = "affine"
    hamming: float = Field(default=32, ge=0, le=128)
    cosine: float = Field(default=0.8, ge=-1, le=1)
    tolerance: float = Field(default=24.0, gt=0, le=10_000)
    least: int = Field(default=5, ge=1)
    rounds: int = Field(default=4, ge=0, le=100)
    stretch: float = Field(default=4.0, ge=1, le=1000)
    scales: bool = False
    hypotheses: int = Field(default=1000, ge=1)
    seed: int = Field(default=0, ge=0, le=2**32 - 1)


@dataclass(frozen=True, eq=False)
class Verified:
    """What was found between a query and an image.

    Attributes:
        tentative: how many pairs were near enough to be tried.
        inliers: how many of them one map explains; 0 where they are fewer than ``settings.least``.
        matrix: (3, 3) float64 map of (x, y, 1), in pixels, from the query to the image, up to a factor; the last
            row of an affine one is (0, 0, 1). None where there are no inliers.
        pairs: (inliers, 2) descriptors of query and image, by falling weight in the query.
    """

    tentative: int
    inliers: int
    matrix: npt.NDArray[np.float64] | None
    pairs: npt.NDArray[np.int64]


def matches(
    query: npt.NDArray[Any], database: npt.NDArray[Any], offsets: npt.NDArray[np.int64], settings: SpatialSettings
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_]]:
    """Return the nearest descriptor (M, Q) of each image, and whether it is near enough (M, Q).

    Args:
        query: (Q, D) of unit length, or (Q, bits / 8) uint8.
        database: (N, D) of the same kind, of all images one after the other.
        offsets: (M + 1,) where those of each image begin.
        settings: the thresholds.
    """
    if query.dtype == np.uint8:
        distances, places = nearest(words_of(query), words_of(database), offsets)
        bits = 8 * query.shape[1]
        return places, (distances != FARTHEST) & (distances * 128 <= settings.hamming * bits)
    places = np.zeros((len(offsets) - 1, len(query)), np.int32)
    near = np.zeros(places.shape, np.bool_)
    asked = query.astype(np.float32).T
    for image in range(len(places)):
        rows = database[offsets[image] : offsets[image + 1]]
        if len(rows):
            similar = rows.astype(np.float32) @ asked
            places[image] = similar.argmax(0)
            near[image] = similar.max(0) >= settings.cosine
    return places, near


def spatial(
    query: LocalFeatures,
    database: npt.NDArray[Any],
    geometry: npt.NDArray[np.floating],
    sizes: npt.NDArray[np.integer],
    offsets: npt.NDArray[np.int64],
    settings: SpatialSettings,
) -> npt.NDArray[np.float32]:
    """Return the score of one query with each image of a shortlist.

    Args:
        query: its descriptors.
        database: (N, D) of the same kind, of all images one after the other.
        geometry: (N, 4) of them.
        sizes: (M, 2) height and width of the images, in pixels.
        offsets: (M + 1,) where the descriptors of each image begin.
        settings: how.

    Returns:
        (M,) float32 numbers of inliers, 0 where they are fewer than ``settings.least``.
    """
    places, near = matches(query.descriptors, database, offsets, settings)
    counts, maps = np.zeros(len(places), np.int32), np.zeros((len(places), 2, 3))
    points = _points(query)
    scales = query.geometry[:, SCALE].astype(np.float64) if settings.scales else np.zeros(len(query))
    known = np.ascontiguousarray(geometry[:, : SCALE + 1], np.float64)
    verify_images(
        points,
        scales,
        places,
        near,
        known,
        sizes.astype(np.float64),
        offsets,
        _limits(settings),
        _order(len(query), settings),
        counts,
        maps,
    )
    if settings.estimator == "homography":
        for image in range(len(places)):
            asked = np.flatnonzero(near[image])
            if len(asked) < SAMPLE:
                continue
            rows = offsets[image] + places[image, asked]
            found = known[rows][:, [X, Y]] * (float(sizes[image, 1]), float(sizes[image, 0]))
            counts[image] = _homography(points[asked], found, maps[image], settings)[1].sum()
    return np.where(counts >= settings.least, counts, 0).astype(np.float32)


def verify(query: LocalFeatures, image: LocalFeatures, settings: SpatialSettings) -> Verified:
    """Return how one image matches, with its pairs, as :func:`spatial` finds it."""
    offsets = np.array([0, len(image)], np.int64)
    places, near = matches(query.descriptors, image.descriptors, offsets, settings)
    asked = np.flatnonzero(near[0])
    found = places[0][asked].astype(np.int64)
    affine, kept = np.zeros((2, 3)), np.zeros(len(asked), np.bool_)
    ratios = np.ones(len(asked))
    if settings.scales:
        one, other = (side.astype(np.float64) for side in (query.geometry[asked, SCALE], image.geometry[found, SCALE]))
        ratios = np.where((one > 0) & (other > 0), other / np.where(one > 0, one, 1), 1.0)
    number = np.full(len(query), -1)
    number[asked] = np.arange(len(asked))
    order = number[_order(len(query), settings)]
    order = order[order >= 0][: settings.hypotheses]
    mine, others = _points(query)[asked], _points(image)[found]
    verify_pairs(
        mine,
        others,
        ratios,
        order,
        *(float(settings.tolerance), settings.rounds, float(settings.stretch)),
        affine,
        kept,
    )
    matrix: npt.NDArray[np.float64] | None = _square(affine)
    if settings.estimator == "homography":
        matrix, kept = _homography(mine, others, affine, settings)
    inliers = int(kept.sum())
    if inliers < settings.least:
        return Verified(len(asked), 0, None, np.zeros((0, 2), np.int64))
    return Verified(len(asked), inliers, matrix, np.stack([asked[kept], found[kept]], 1))


def _homography(
    points: npt.NDArray[np.float64],
    found: npt.NDArray[np.float64],
    affine: npt.NDArray[np.float64],
    settings: SpatialSettings,
) -> tuple[npt.NDArray[np.float64] | None, npt.NDArray[np.bool_]]:
    return homography(
        points,
        found,
        _square(affine) if affine.any() else None,  # zeros: no pair became a hypothesis
        tolerance=settings.tolerance,
        stretch=settings.stretch,
        samples=settings.hypotheses,
        seed=settings.seed,
    )


def _square(affine: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return (3, 3) of a (2, 3) map."""
    return np.concatenate([affine, [[0.0, 0.0, 1.0]]])


def _points(features: LocalFeatures) -> npt.NDArray[np.float64]:
    """Return (n, 2) x and y in pixels."""
    return features.geometry[:, [X, Y]].astype(np.float64) * (features.width, features.height)


def _limits(settings: SpatialSettings) -> npt.NDArray[np.float64]:
    return np.array([settings.tolerance, settings.rounds, settings.stretch, settings.hypotheses], np.float64)


def _order(count: int, settings: SpatialSettings) -> npt.NDArray[np.int64]:
    """Return in which order the matches of query descriptors become hypotheses, until there are enough."""
    if count <= settings.hypotheses:
        return np.arange(count)
    return np.random.default_rng(settings.seed).permutation(count)
