"""Binarisation, Hamming distances, Chamfer similarity and spatial verification: against plain twins."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openilias.core.errors import OpenIliasError
from openilias.models.local_features import LocalFeatures, ordered
from openilias.rerank.chamfer import chamfer
from openilias.rerank.hamming import FARTHEST, least, nearest, words_of
from openilias.rerank.homography import distances, homography, is_possible
from openilias.rerank.itq import Binarisation, learn_itq, read_binarisation, write_binarisation
from openilias.rerank.spatial import SpatialSettings, matches, spatial, verify

BITS = (64, 128, 192, 256, 512)


def packed(rng: np.random.Generator, count: int, bits: int) -> np.ndarray:
    return np.packbits(rng.random((count, bits)) < 0.5, axis=1)


def distances_of(query: np.ndarray, image: np.ndarray) -> list[list[int]]:
    """Bit by bit, in plain Python."""
    asked, known = (np.unpackbits(values, axis=1).tolist() for values in (query, image))
    return [[sum(a != b for a, b in zip(one, other, strict=True)) for other in known] for one in asked]


# --- Hamming and Chamfer ---


@given(st.integers(0, 2**32 - 1), st.sampled_from(BITS), st.integers(0, 7), st.lists(st.integers(0, 9), max_size=6))
@settings(max_examples=60, deadline=None)
def test_hamming_and_chamfer_equal_plain_python(seed: int, bits: int, asked: int, sizes: list[int]) -> None:
    rng = np.random.default_rng(seed)
    query, images = packed(rng, asked, bits), [packed(rng, size, bits) for size in sizes]
    for image in images:  # copies: distance 0, and ties
        image[: len(image) // 3] = query[: len(image) // 3] if len(query) >= len(image) // 3 else 0
    database = np.concatenate([*images, np.zeros((0, bits // 8), np.uint8)])
    offsets = np.cumsum([0, *sizes]).astype(np.int64)
    found, places = nearest(words_of(query), words_of(database), offsets)
    assert (least(words_of(query), words_of(database), offsets) == found).all()
    scores = chamfer(query, database, offsets)
    for number, image in enumerate(images):
        expected = distances_of(query, image)
        similar = 0.0
        for q, row in enumerate(expected):
            assert found[number, q] == (min(row) if row else FARTHEST)
            assert places[number, q] == (row.index(min(row)) if row else 0)
            similar += 1 - 2 * min(row) / bits if row else -1
        assert scores[number] == pytest.approx(similar, abs=1e-5)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_chamfer_of_numbers_equals_plain_python(dtype: type, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    sizes = [3, 0, 7, 1, 0, 40]
    query, database = rng.normal(size=(5, 12)), rng.normal(size=(sum(sizes), 12))
    query, database = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (query, database))
    query, database = query.astype(dtype), database.astype(dtype)
    offsets = np.cumsum([0, *sizes]).astype(np.int64)
    expected = []
    for start, end in itertools.pairwise(offsets):
        image = database[start:end].tolist()
        best = [
            max((sum(a * b for a, b in zip(q, x, strict=True)) for x in image), default=-1.0) for q in query.tolist()
        ]
        expected.append(sum(best))
    for block in (1, 1 << 20):
        monkeypatch.setattr("openilias.rerank.chamfer._BLOCK", block)
        assert np.abs(chamfer(query, database, offsets) - expected).max() < 1e-4


def test_bits_that_are_no_words_are_refused() -> None:
    for values in (np.zeros((3, 7), np.uint8), np.zeros((3, 8), np.int8), np.zeros((3, 0), np.uint8)):
        with pytest.raises(OpenIliasError, match="a multiple of 64 bits"):
            words_of(values)


# --- binarisation ---


def itq_twin(x: np.ndarray, bits: int, iterations: int, seed: int) -> np.ndarray:
    """Iterative quantisation as its paper writes it, by singular vectors of the data themselves."""
    rotation = np.linalg.qr(np.random.default_rng([seed, 0]).standard_normal((bits, bits)))[0]
    axes = np.linalg.svd(x, full_matrices=False)[2].T[:, :bits]
    v = x @ axes
    for _ in range(iterations):
        b = np.sign(v @ rotation)
        s, _, r = np.linalg.svd(b.T @ v)
        rotation = r.T @ s.T
    return axes @ rotation


def test_itq_equals_its_definition() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(3000, 80)) * np.linspace(3, 0.5, 80)
    made = learn_itq(x, 64, iterations=20, seed=5)
    twin = itq_twin(x, 64, 20, 5)
    # Axes have no sign: the beginnings differ, what is lost hardly does.
    lost = [np.abs(np.sign(x @ w) - x @ w / np.abs(x @ w).mean()).mean() for w in (made.weight, twin)]
    assert lost[0] == pytest.approx(lost[1], rel=0.02)
    start = learn_itq(x, 64, iterations=0, seed=5)
    assert lost[0] < np.abs(np.sign(x @ start.weight) - x @ start.weight / np.abs(x @ start.weight).mean()).mean()
    assert np.allclose(made.weight.T @ made.weight, np.eye(64), atol=1e-4)
    assert (made.pack(x[:9]) == np.packbits(x[:9].astype(np.float32) @ made.weight >= 0, axis=1)).all()


def test_neighbours_stay_neighbours_and_more_bits_keep_more() -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=(4000, 128))
    near = x[:300] + 0.6 * rng.normal(size=(300, 128))
    right = []
    for bits in BITS:  # 192 and more are several turns of 128 axes
        made = learn_itq(x, bits, iterations=15)
        _found, places = nearest(words_of(made.pack(near)), words_of(made.pack(x)), np.array([0, len(x)]))
        right.append((places[0] == np.arange(300)).mean())
        assert made.pack(near).shape == (300, bits // 8)
    assert right == sorted(right)
    assert right[0] > 0.5
    assert right[-1] > 0.99


def test_a_binarisation_is_kept_and_damage_is_noticed(tmp_path: Path) -> None:
    made = learn_itq(np.random.default_rng(0).normal(1, 1, (500, 70)), 64, centred=True)
    assert np.abs(made.mean - 1).max() < 0.3
    write_binarisation(made, tmp_path / "b.safetensors", made_from={"bits": 64})
    read, made_from = read_binarisation(tmp_path / "b.safetensors")
    assert read.digest == made.digest
    assert made_from == {"bits": 64}
    data = bytearray((tmp_path / "b.safetensors").read_bytes())
    data[-3] ^= 64
    (tmp_path / "b.safetensors").write_bytes(data)
    with pytest.raises(OpenIliasError, match="damaged: its digest differs"):
        read_binarisation(tmp_path / "b.safetensors")
    (tmp_path / "b.safetensors").write_bytes(b"nothing")
    with pytest.raises(OpenIliasError, match="cannot be read"):
        read_binarisation(tmp_path / "b.safetensors")
    with pytest.raises(OpenIliasError, match="no such binarisation"):
        read_binarisation(tmp_path / "c.safetensors")
    with pytest.raises(OpenIliasError, match="takes 70 dimensions"):
        made.pack(np.zeros((2, 69), np.float32))


def test_what_cannot_be_binarised_is_refused() -> None:
    x = np.random.default_rng(0).normal(size=(500, 70))
    for bits in (0, 63, 100):
        with pytest.raises(OpenIliasError, match="cannot be packed"):
            learn_itq(x, bits)
    with pytest.raises(OpenIliasError, match="100 descriptors that vary along 70 axes do not determine 64 bits"):
        learn_itq(x[:100], 64)
    with pytest.raises(OpenIliasError, match="vary along 40 axes"):
        learn_itq(np.concatenate([x[:, :40], np.zeros((500, 30))], 1), 64)
    with pytest.raises(OpenIliasError, match="not finite"):
        learn_itq(np.where(x > 3, np.nan, x), 64)
    with pytest.raises(OpenIliasError, match="bits a multiple of 64"):
        Binarisation(np.zeros((3, 60), np.float32), np.zeros(3, np.float32))


# --- spatial verification ---


def features(
    rng: np.random.Generator, count: int, *, bits: int = 128, size: tuple[int, int] = (400, 600)
) -> LocalFeatures:
    geometry = np.concatenate([rng.random((count, 2)), 0.5 + rng.random((count, 1)), rng.random((count, 1))], 1)
    return ordered(packed(rng, count, bits), geometry, height=size[0], width=size[1], most=count)


def moved(
    rng: np.random.Generator, query: LocalFeatures, affine: np.ndarray, share: float, noise: float
) -> LocalFeatures:
    """Another image with a share of the query's descriptors where an affine map puts them, the rest at random."""
    count = len(query)
    known = np.flatnonzero(rng.random(count) < share)
    points = query.geometry[:, [1, 0]].astype(float) * (query.width, query.height)
    target = points @ affine[:, :2].T + affine[:, 2] + noise * rng.normal(size=points.shape)
    height, width = 500, 800
    geometry = np.concatenate([rng.random((count, 2)), np.ones((count, 1)), rng.random((count, 1))], 1)
    geometry[known, 0], geometry[known, 1] = target[known, 1] / height, target[known, 0] / width
    descriptors = packed(rng, count, 8 * query.descriptors.shape[1])
    descriptors[known] = query.descriptors[known]
    return ordered(descriptors, geometry, height=height, width=width, most=count)


def spatial_twin(query: LocalFeatures, image: LocalFeatures, how: SpatialSettings) -> int:
    """The same in plain words: every pair a hypothesis, the best ones fitted to an affine map."""
    if not len(query) or not len(image):
        return 0
    bits = 8 * query.descriptors.shape[1]
    pairs = []
    for q, row in enumerate(distances_of(query.descriptors, image.descriptors)):
        if min(row) * 128 <= how.hamming * bits:
            pairs.append((q, row.index(min(row))))
    if not pairs:
        return 0
    here = np.array([query.geometry[q, [1, 0]].astype(float) * (query.width, query.height) for q, _ in pairs])
    there = np.array([image.geometry[x, [1, 0]].astype(float) * (image.width, image.height) for _, x in pairs])

    def inliers(linear: np.ndarray, shift: np.ndarray, tolerance: float) -> np.ndarray:
        return np.linalg.norm(here @ linear.T + shift - there, axis=1) <= tolerance

    best = sampled = 0
    for place, (q, x) in enumerate(pairs):
        scale = float(image.geometry[x, 2]) / float(query.geometry[q, 2]) if how.scales else 1.0
        if not 1 / how.stretch <= scale <= how.stretch:
            continue
        linear, shift = scale * np.eye(2), there[place] - scale * here[place]
        count = inliers(linear, shift, how.tolerance).sum()
        if count <= sampled:
            continue
        sampled, best = count, max(best, count)
        for step in range(how.rounds):
            wide = how.tolerance * (1 + (how.rounds - 1 - step) / how.rounds)
            inside = inliers(linear, shift, wide)
            rows = np.concatenate([here[inside], np.ones((inside.sum(), 1))], 1)
            if inside.sum() < 3 or np.linalg.matrix_rank(rows) < 3:
                break
            solved = np.linalg.lstsq(rows, there[inside], rcond=None)[0]
            linear, shift = solved[:2].T, solved[2]
            stretches = np.linalg.svd(linear)[1]
            if np.linalg.det(linear) <= 0 or stretches[0] > how.stretch or stretches[1] < 1 / how.stretch:
                break
            best = max(best, inliers(linear, shift, how.tolerance).sum())
    return int(best) if best >= how.least else 0


def projected(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    mapped = np.concatenate([points, np.ones((len(points), 1))], 1) @ matrix.T
    return mapped[:, :2] / mapped[:, 2:]


def together(images: list[LocalFeatures]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    return (
        np.concatenate([image.descriptors for image in images]),
        np.concatenate([image.geometry for image in images]),
        np.array([(image.height, image.width) for image in images]),
        np.cumsum([0, *map(len, images)]).astype(np.int64),
    )


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"scales": True},
        {"scales": True, "stretch": 1.3},
        {"tolerance": 6.0, "rounds": 1},
        {"rounds": 0},
        {"hamming": 50},
    ],
)
def test_spatial_verification_equals_the_plain_twin(how: dict[str, Any]) -> None:
    rng = np.random.default_rng(3)
    settings_ = SpatialSettings(**how)
    query = features(rng, 60)
    images = [features(rng, 40), features(rng, 0, size=(3, 3))]
    for _ in range(12):
        turn, stretch = rng.normal(0, 0.2), 1 + rng.normal(0, 0.15)
        linear = stretch * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        affine = np.concatenate([linear + 0.05 * rng.normal(size=(2, 2)), 60 * rng.normal(size=(2, 1))], 1)
        images.append(moved(rng, query, affine, rng.choice([0.1, 0.3, 0.8]), rng.choice([0.5, 5.0])))
    found = spatial(query, *together(images), settings_)
    expected = [spatial_twin(query, image, settings_) for image in images]
    assert found.tolist() == expected
    assert len(set(expected)) > 3
    for image, count in zip(images, expected, strict=True):
        one = verify(query, image, settings_)
        assert one.inliers == count
        assert len(one.pairs) == count
        if count:
            points, others = query.geometry[one.pairs[:, 0]], image.geometry[one.pairs[:, 1]]
            assert one.matrix is not None
            assert one.matrix[2].tolist() == [0, 0, 1]
            mapped = projected(one.matrix, points[:, [1, 0]] * (600, 400))
            assert np.linalg.norm(mapped - others[:, [1, 0]] * (800, 500), axis=1).max() <= settings_.tolerance + 1e-6
        else:
            assert one.matrix is None


def test_of_very_many_pairs_some_are_drawn() -> None:
    rng = np.random.default_rng(4)
    query = features(rng, 80)
    image = moved(rng, query, np.array([[1.0, 0, 30], [0, 1.0, -20]]), 0.9, 0.5)
    few = [SpatialSettings(hypotheses=2, seed=seed) for seed in range(20)]
    counts = [spatial(query, *together([image]), how)[0] for how in few]
    assert counts == [spatial(query, *together([image]), how)[0] for how in few]
    assert counts == [verify(query, image, how).inliers for how in few]
    assert max(counts) > 60
    # Matches are drawn, not descriptors: of few matches all are tried, however many descriptors there are.
    others = features(rng, 2000)
    alone = LocalFeatures(
        np.concatenate([query.descriptors[:30], others.descriptors]),
        np.concatenate([query.geometry[:30], others.geometry - [0, 0, 0, 2]]).astype(np.float32),
        query.height,
        query.width,
    )
    how = SpatialSettings(hypotheses=100, cosine=0.9)
    assert spatial(alone, *together([image]), how)[0] >= 25
    assert verify(alone, image, how).inliers == spatial(alone, *together([image]), how)[0]


def test_a_map_that_puts_everything_on_one_spot_is_none() -> None:
    """Many descriptors of the query near one of the image: a heap is no match."""
    rng = np.random.default_rng(5)
    query = features(rng, 50)
    geometry = np.array([[0.5, 0.5, 1, 1]], np.float32)
    heap = LocalFeatures(query.descriptors[:1], geometry, 400, 600)
    same = LocalFeatures(np.repeat(query.descriptors[:1], 50, 0), query.geometry, 400, 600)
    found = spatial(same, *together([heap]), SpatialSettings(tolerance=3.0))
    assert found[0] == spatial_twin(same, heap, SpatialSettings(tolerance=3.0))
    assert found[0] < 10


def test_with_scales_one_pair_gives_a_similarity_that_may_not_squeeze() -> None:
    """Every descriptor of the query would match one spot, were it small enough there."""
    rng = np.random.default_rng(7)
    query = features(rng, 60)
    turned = moved(rng, query, np.array([[0.5, 0, 100], [0, 0.5, 50]]), 1.0, 0.0)
    half = turned.geometry.copy()
    half[:, 2] = 0.5 * query.geometry[places_of(query, turned), 2]
    image = LocalFeatures(turned.descriptors, half, turned.height, turned.width)
    found = [verify(query, image, SpatialSettings(tolerance=2.0, rounds=0, scales=scales)) for scales in (False, True)]
    assert found[0].inliers < 10
    assert found[1].inliers == 60
    tiny = half.copy()
    tiny[:, 2] /= 100
    squeezed = LocalFeatures(turned.descriptors, tiny, turned.height, turned.width)
    assert verify(query, squeezed, SpatialSettings(tolerance=300.0, rounds=0, scales=True)).inliers == 0
    loose = SpatialSettings(tolerance=300.0, rounds=0, scales=True, stretch=1000)
    assert verify(query, squeezed, loose).inliers > 30


def places_of(query: LocalFeatures, image: LocalFeatures) -> np.ndarray:
    """Which descriptor of the query each of the image is."""
    return np.array([np.flatnonzero((query.descriptors == row).all(1))[0] for row in image.descriptors])


# --- homographies ---

PROJECTIVE = np.array([[1.1, 0.12, -30.0], [-0.05, 1.2, 20.0], [7e-4, -4e-4, 1.0]])
SHARP = {"estimator": "homography", "tolerance": 3.0}


def seen(rng: np.random.Generator, query: LocalFeatures, matrix: np.ndarray, share: float, noise: float) -> Any:
    """An image with a share of the query's descriptors where a map puts them, and which of the query these are."""
    known = np.flatnonzero(rng.random(len(query)) < share)
    target = projected(matrix, query.geometry[:, [1, 0]].astype(float) * (query.width, query.height))
    target += noise * rng.normal(size=target.shape)
    geometry = np.concatenate([rng.random((len(query), 2)), np.ones((len(query), 1)), rng.random((len(query), 1))], 1)
    geometry[known, 0], geometry[known, 1] = target[known, 1] / 700, target[known, 0] / 900
    return ordered(query.descriptors, geometry, height=700, width=900, most=len(query)), known


def direct_linear_transform(points: np.ndarray, found: np.ndarray) -> np.ndarray:
    """The homography of pairs that are all right (Hartley and Zisserman, algorithm 4.2)."""
    moves = []
    for values in (points, found):
        middle, size = values.mean(0), np.sqrt(2) / np.linalg.norm(values - values.mean(0), axis=1).mean()
        moves.append(np.array([[size, 0, -size * middle[0]], [0, size, -size * middle[1]], [0, 0, 1]]))
    rows = []
    for (x, y), (u, v) in zip(projected(moves[0], points), projected(moves[1], found), strict=True):
        rows += [[0, 0, 0, -x, -y, -1, v * x, v * y, v], [x, y, 1, 0, 0, 0, -u * x, -u * y, -u]]
    solved = np.linalg.svd(np.array(rows))[2][-1].reshape(3, 3)
    return np.linalg.inv(moves[1]) @ solved @ moves[0]


@pytest.mark.parametrize("share", [0.25, 0.5, 0.9])
def test_a_homography_is_found_among_outliers(share: float) -> None:
    rng = np.random.default_rng(8)
    query = features(rng, 120)
    image, known = seen(rng, query, PROJECTIVE, share, 0.3)
    how = SpatialSettings(hypotheses=10_000, **SHARP)
    one = verify(query, image, how)
    assert one.tentative == 120
    assert set(known) <= set(one.pairs[:, 0])
    assert len(one.pairs) <= len(known) + 4  # of those at random one or another lies right
    assert (places_of(query, image)[one.pairs[:, 1]] == one.pairs[:, 0]).all()
    points = query.geometry[known][:, [1, 0]] * (600, 400)
    there = np.argsort(places_of(query, image))[known]
    twin = direct_linear_transform(points, image.geometry[there][:, [1, 0]] * (900, 700))
    assert np.abs(projected(one.matrix, points) - projected(twin, points)).max() < 1.5
    # On what is projective, no affine map explains as much.
    affine = verify(query, image, SpatialSettings(tolerance=3.0))
    assert affine.inliers < 0.7 * one.inliers
    assert spatial(query, *together([image]), how).tolist() == [one.inliers]


def test_homographies_of_a_shortlist_are_those_of_its_images() -> None:
    rng = np.random.default_rng(9)
    query = features(rng, 60)
    images = [features(rng, 40), features(rng, 0, size=(3, 3)), features(rng, 2)]
    for _ in range(10):
        matrix = PROJECTIVE + np.array([[0.1, 0.1, 30], [0.1, 0.1, 30], [2e-4, 2e-4, 0]]) * rng.normal(size=(3, 3))
        images.append(seen(rng, query, matrix, rng.choice([0.05, 0.3, 0.8]), rng.choice([0.5, 5.0]))[0])
    for how in (SpatialSettings(**SHARP), SpatialSettings(estimator="homography", scales=True, hamming=50)):
        found = spatial(query, *together(images), how)
        assert found.tolist() == [verify(query, image, how).inliers for image in images]
        assert found.tolist() == spatial(query, *together(images), how).tolist()
        assert len(set(found.tolist())) > 4
        affine = spatial(query, *together(images), how.model_copy(update={"estimator": "affine"}))
        assert (found >= affine - 2).all()  # it begins with the affine map; squares decide, not numbers
        assert (found > affine).any()


def test_what_is_drawn_is_drawn_by_the_seed() -> None:
    rng = np.random.default_rng(10)
    query = features(rng, 120)
    image, _known = seen(rng, query, PROJECTIVE, 0.5, 2.0)
    few = [SpatialSettings(hypotheses=10, seed=seed, **SHARP) for seed in (*range(12), 2**32 - 1)]
    found = [verify(query, image, how) for how in few]
    again = [verify(query, image, how) for how in few]
    for one, other in zip(found, again, strict=True):
        assert (one.matrix is None and other.matrix is None) or (one.matrix == other.matrix).all()
        assert (one.pairs == other.pairs).all()
    assert len({one.inliers for one in found}) > 3
    assert max(one.inliers for one in found) <= verify(query, image, SpatialSettings(**SHARP)).inliers
    points = query.geometry[:, [1, 0]].astype(float) * (600, 400)
    others = image.geometry[np.argsort(places_of(query, image))][:, [1, 0]].astype(float) * (900, 700)
    counts = [
        [
            homography(points, others, None, tolerance=3.0, stretch=4.0, samples=samples, seed=seed)[1].sum()
            for seed in range(10)
        ]
        for samples in (3, 30, 300)
    ]
    assert len(set(counts[1])) > 2  # the seed is PoseLib's too, and so is how many are drawn
    assert np.mean(counts[0]) < np.mean(counts[1]) < np.mean(counts[2])


def test_options_reach_poselib() -> None:
    """It passes over names that it does not know."""
    import poselib

    assert {"max_reproj_error", "max_iterations", "min_iterations", "seed"} <= poselib.RansacOptions().keys()


@pytest.mark.parametrize("least", [1, 4, 5, 9])
def test_fewer_than_the_least_are_none(least: int) -> None:
    rng = np.random.default_rng(11)
    query = features(rng, 8)
    for count in range(9):
        image = seen(rng, query.first(count), PROJECTIVE, 1.0, 0.0)[0]
        how = SpatialSettings(least=least, **SHARP)
        one = verify(query, image, how)
        assert one.tentative == count
        assert one.inliers in ((0,) if count < least else range(least, count + 1))
        assert one.inliers == count or count < max(4, least)  # of fewer than four, what the affine map has
        assert len(one.pairs) == one.inliers
        assert (one.matrix is None) == (one.inliers == 0)
        assert spatial(query, *together([image]), how).tolist() == [one.inliers]


def pairs_at(points: np.ndarray, found: np.ndarray) -> tuple[LocalFeatures, LocalFeatures]:
    """A query and an image whose descriptors match in their order, where they are told to be in 400 x 600 pixels."""
    rng = np.random.default_rng(12)
    descriptors = packed(rng, len(points), 128)
    weights = np.linspace(1, 0, len(points))[:, None]
    return tuple(  # type: ignore[return-value]  # of two
        LocalFeatures(
            descriptors,
            np.concatenate([where[:, 1:] / 400, where[:, :1] / 600, weights + 1, weights], 1).astype(np.float32),
            400,
            600,
        )
        for where in (points, found)
    )


def test_degenerate_pairs_do_no_harm() -> None:
    rng = np.random.default_rng(13)
    points = rng.random((40, 2)) * (600, 400)
    line = np.linspace(0, 300, 40)[:, None] * (1, 0.7)
    spot = np.full((40, 2), 100.0)
    how = SpatialSettings(**SHARP)
    nothing = LocalFeatures(np.zeros((0, 16), np.uint8), np.zeros((0, 4), np.float32), 400, 600)
    for one, other in (
        (nothing, nothing),
        (nothing, pairs_at(points, points)[0]),
        (pairs_at(points, points)[0], nothing),
    ):
        assert verify(one, other, how).inliers == 0
    for name, (one, other), expected in (
        ("the same", pairs_at(points, points), range(40, 41)),
        ("all on one spot", pairs_at(spot, spot), range(40, 41)),
        ("a line", pairs_at(line, line + 30), range(40, 41)),
        ("nearly a line", pairs_at(line, line + 30 + rng.normal(0, 0.5, line.shape)), range(35, 41)),
        ("a heap", pairs_at(points, spot), range(10)),
        ("from a heap", pairs_at(spot, points), range(10)),
        ("mirrored", pairs_at(points, (600, 0) - points * (1, -1)), range(16)),
        ("five times as large", pairs_at(points / 5, points), range(10)),
        ("half a turn", pairs_at(points, (600, 400) - points), range(40, 41)),
    ):
        found = verify(one, other, how)
        assert found.inliers in expected, name
        assert found.matrix is None or np.isfinite(found.matrix).all()
    wide = SpatialSettings(stretch=6, **SHARP)
    assert verify(*pairs_at(points / 5, points), wide).inliers == 40


def test_maps_that_no_view_has_are_told() -> None:
    points = np.array([[0.0, 0], [100, 0], [0, 100], [100, 100]])
    eye = np.eye(3)
    for matrix, possible in (
        (eye, True),
        (-2 * eye, True),  # up to a factor
        (np.diag([-1.0, 1, 1]), False),
        (np.diag([4.0, 0.25, 1]), True),
        (np.diag([4.1, 1, 1]), False),
        (np.diag([1, 0.24, 1]), False),
        (np.diag([1.0, 0, 1]), False),
        (eye + np.array([[0, 0, 0], [0, 0, 0], [-0.009, 0, 0]]), True),
        (eye + np.array([[0, 0, 0], [0, 0, 0], [-0.011, 0, 0]]), False),  # two points are beyond the horizon
        (np.full((3, 3), np.nan), False),
    ):
        assert is_possible(matrix, points, 4.0) is possible
    horizon = eye + np.array([[0, 0, 0], [0, 0, 0], [-0.01, 0, 0]])
    assert distances(points, points, horizon).tolist() == [0, np.inf, 0, np.inf]
    # The derivative, by differences.
    turned, middle, small = PROJECTIVE, points.mean(0), 1e-4
    apart = [
        (projected(turned, middle[None] + small * step) - projected(turned, middle[None]))[0] for step in np.eye(2)
    ]
    stretches = np.linalg.svd(np.array(apart) / small)[1]
    assert is_possible(turned, points, float(stretches[0]) * 1.001)
    assert not is_possible(turned, points, float(max(stretches[0], 1 / stretches[1])) * 0.999)


def test_descriptors_of_numbers_match_by_their_cosine() -> None:
    rng = np.random.default_rng(6)
    query = rng.normal(size=(20, 16)).astype(np.float32)
    query /= np.linalg.norm(query, axis=1, keepdims=True)
    database = np.concatenate([query[::-1], np.zeros((0, 16), np.float32), query[:3]])
    places, near = matches(query, database, np.array([0, 20, 20, 23]), SpatialSettings(cosine=0.95))
    assert places[0].tolist() == list(range(20))[::-1]
    assert near[0].all()
    assert not near[1].any()
    assert near[2].sum() == 3


# --- the values ---


def test_features_that_do_not_fit_are_refused() -> None:
    good = np.zeros((2, 8), np.uint8), np.zeros((2, 4), np.float32)
    for descriptors, geometry, message in (
        (good[0][0], good[1], "do not fit"),
        (good[0], good[1][:1], "do not fit"),
        (good[0], np.array([[0, 0, 1, np.nan]] * 2, np.float32), "not finite"),
        (np.full((2, 8), np.inf, np.float32), good[1], "not finite"),
        (good[0], np.array([[0, 0, 1, 1], [0, 0, 1, 2]], np.float32), "order of their weight"),
    ):
        with pytest.raises(OpenIliasError, match=message):
            LocalFeatures(descriptors, geometry, 5, 5)
    with pytest.raises(OpenIliasError, match="no local descriptors"):
        LocalFeatures(*good, 0, 5)
    kept = ordered(
        np.arange(6).reshape(3, 2), np.array([[0, 0, 1, 5], [0, 0, 1, 7], [0, 0, 1, 5]]), height=1, width=1, most=2
    )
    assert kept.descriptors.tolist() == [[2, 3], [0, 1]]
    assert kept.first(1).geometry.tolist() == [[0, 0, 1, 7]]
