"""Official result files, hostile ones included."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from openilias.core.errors import OpenIliasError
from openilias.evaluate.official import read_official, write_official_json, write_official_pickle
from openilias.search.ranking import ABSENT, Ranking

QUERIES = ("a/query/Q0.jpg", "b/query/Q0.jpg")
IMAGES = ("a/pos/P0.jpg", "b/pos/P0.jpg", "s.tar/x", "s.tar/y")
RANKING = Ranking(
    QUERIES, IMAGES, np.array([[2, 0, 3], [1, 3, 0]]), np.array([[0.9, 0.5, 0.5], [0.8, 0.1, -0.2]], np.float32)
)


def lists(ranking: Ranking) -> dict[str, list[tuple[str, float]]]:
    return {
        query: list(zip(ranking.ids_of(line), ranking.scores[line].tolist(), strict=False))
        for line, query in enumerate(ranking.query_ids)
    }


def test_json_and_pickle_round_trip(tmp_path: Path) -> None:
    write_official_json(RANKING, tmp_path / "s.json")
    write_official_pickle(RANKING, tmp_path / "s.pkl")
    assert lists(read_official(tmp_path / "s.json")) == lists(RANKING)
    assert lists(read_official(tmp_path / "s.pkl")) == lists(RANKING)
    value = pickle.loads((tmp_path / "s.pkl").read_bytes())
    assert (value["sims"].dtype, value["ranks"].dtype) == (np.float32, np.int64)
    assert value["db_ids"][value["ranks"][0, 0]] == "s.tar/x"


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("kind", ["U", "O"])
def test_pickles_of_any_protocol(tmp_path: Path, protocol: int, kind: str) -> None:
    value = {
        "query_ids": np.array(QUERIES, kind),
        "db_ids": np.array(IMAGES, kind),
        "sims": np.asfortranarray(RANKING.scores),
        "ranks": np.array(RANKING.rows),
    }
    (tmp_path / "s.pkl").write_bytes(pickle.dumps(value, protocol=protocol))
    assert lists(read_official(tmp_path / "s.pkl")) == lists(RANKING)


def test_unsorted_and_ragged_json(tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    path.write_text(json.dumps({"q": {"s.tar/x": 0.1, "s.tar/y": 0.9, "z/pos/P.jpg": 0.1}, "r": {"s.tar/x": 1}}))
    ranking = read_official(path)
    assert lists(ranking)["q"] == [
        ("s.tar/y", pytest.approx(0.9)),
        ("z/pos/P.jpg", pytest.approx(0.1)),
        ("s.tar/x", pytest.approx(0.1)),
    ]
    assert ranking.lengths.tolist() == [3, 1]
    with pytest.raises(OpenIliasError, match="different length"):
        write_official_pickle(ranking, tmp_path / "s.pkl")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "Expected"),
        ('{"q": 1}', "Expected"),
        ('{"q": {"x": "high"}}', "not a number"),
        ('{"q": {"x": true}}', "not a number"),
        ('{"q": {"x": NaN}}', "not finite"),
        ('{"q": {"x": 1e999}}', "not finite"),
        ('{"q": {"x": 1, "x": 2}}', "stands twice"),
        ('{"q": {}, "q": {}}', "stands twice"),
        ("{", "not readable JSON"),
        ('{"q": {"x": %s}}' % ("9" * 400), "out of range|not finite|not readable"),
    ],
)
def test_malformed_json(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "s.json"
    path.write_text(text)
    with pytest.raises(OpenIliasError, match=message) as caught:
        read_official(path)
    assert caught.value.where == str(path)


def test_malformed_pickles(tmp_path: Path) -> None:
    good = {"query_ids": list(QUERIES), "db_ids": list(IMAGES), "sims": RANKING.scores, "ranks": RANKING.rows}
    cases = {
        "Expected query_ids": {"query_ids": []},
        "do not belong together": good | {"query_ids": ["a"]},
        "outside db_ids": good | {"ranks": np.where(RANKING.rows == 3, ABSENT, RANKING.rows)},
        "has an image twice": good | {"ranks": np.zeros_like(RANKING.rows)},
        "duplicates": good | {"db_ids": ["x"] * 4},
        "not integers": good | {"ranks": RANKING.rows.astype(float)},
        "not finite": good | {"sims": np.full_like(RANKING.scores, np.nan)},
    }
    for message, value in cases.items():
        (tmp_path / "s.pkl").write_bytes(pickle.dumps(value))
        with pytest.raises(OpenIliasError, match=message):
            read_official(tmp_path / "s.pkl")
    for data in (b"", b"junk", pickle.dumps(good)[:50]):
        (tmp_path / "s.pkl").write_bytes(data)
        with pytest.raises(OpenIliasError, match="refused or broken"):
            read_official(tmp_path / "s.pkl")


class Run:
    def __init__(self, *call: object) -> None:
        self.call = call

    def __reduce__(self) -> tuple[object, ...]:
        return self.call[0], self.call[1:]


def test_pickles_that_run_code_are_refused(tmp_path: Path) -> None:
    import builtins
    import os

    touched = tmp_path / "hacked"
    for call in (
        (os.system, f"touch {touched}"),
        (builtins.eval, f"open({str(touched)!r}, 'w')"),
        (Path.touch, touched),
        (np.load, str(touched)),
        (getattr, "text", "upper"),
    ):
        (tmp_path / "s.pkl").write_bytes(pickle.dumps({"query_ids": Run(*call)}))
        with pytest.raises(OpenIliasError, match="refused"):
            read_official(tmp_path / "s.pkl")
    assert not touched.exists()


def test_missing_files(tmp_path: Path) -> None:
    for name in ("s.json", "s.pkl"):
        with pytest.raises(OpenIliasError, match="does not exist"):
            read_official(tmp_path / name)


def test_a_dtype_cannot_be_forged(tmp_path: Path) -> None:
    """A record type with an object field over plain bytes makes NumPy itself follow an address in the file."""

    class Forged:
        def __reduce__(self) -> tuple[object, ...]:
            state = (3, "|", None, ("a",), {"a": (np.dtype("O"), 0)}, 8, 1, 0)
            return np.dtype, ("V8", False, True), state

    import numpy._core.numeric as numeric

    class Array:
        def __reduce__(self) -> tuple[object, ...]:
            return numeric._frombuffer, (b"A" * 8, Forged(), (1,), "C")

    (tmp_path / "s.pkl").write_bytes(pickle.dumps({"query_ids": Array(), "db_ids": [], "sims": [], "ranks": []}))
    with pytest.raises(OpenIliasError, match="refused or broken: an array has the type 'V8'"):
        read_official(tmp_path / "s.pkl")


@pytest.mark.parametrize(
    "value",
    [
        np.array([object()], object),
        np.array([["a"], [1]], object),
        np.zeros(3, "M8[s]"),
        np.zeros(2, "c16"),
        np.zeros(2, [("a", "f4")]),
        {1, 2},
        np.dtype("f4"),
    ],
)
def test_other_things_in_pickles_are_refused(tmp_path: Path, value: object) -> None:
    (tmp_path / "s.pkl").write_bytes(pickle.dumps({"query_ids": value}))
    with pytest.raises(OpenIliasError, match="refused"):
        read_official(tmp_path / "s.pkl")


@pytest.mark.parametrize("kind", [">f4", "<f8", "f2", ">i8", "i4", "u1"])
def test_arrays_of_every_plain_type_come_through(tmp_path: Path, kind: str) -> None:
    from openilias.evaluate.pickles import read_arrays

    value = np.arange(6).reshape(2, 3).astype(kind)
    for protocol in range(6):
        for array in (value, np.asfortranarray(value), value[:, ::2], np.zeros((0, 2), kind)):
            (tmp_path / "s.pkl").write_bytes(pickle.dumps({"x": array, "y": [array[:1]], "z": array.sum()}, protocol))
            found = read_arrays(tmp_path / "s.pkl")
            assert np.array_equal(found["x"], array)
            assert found["y"][0].tolist() == array[:1].tolist()
            assert found["z"] == array.sum()


def test_doubles_are_not_rounded_into_ties(tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text(json.dumps({"q": {"s.tar/x": 0.5, "a/pos/P.jpg": 0.5 + 1e-12}}))
    ranking = read_official(tmp_path / "s.json")
    assert ranking.ids_of(0) == ["a/pos/P.jpg", "s.tar/x"]
    assert ranking.scores[0, 0] > ranking.scores[0, 1]


def test_pickles_cannot_unfold_beyond_their_size(tmp_path: Path) -> None:
    from openilias.evaluate.pickles import read_arrays

    nested: list[object] = ["x"]
    for _ in range(60):
        nested = [nested, nested]
    shared = np.zeros(100_000, np.float32)
    (tmp_path / "s.pkl").write_bytes(pickle.dumps({"query_ids": nested, "sims": [shared] * 100}))
    found = read_arrays(tmp_path / "s.pkl")  # each thing is built once
    assert found["sims"][0] is found["sims"][99]
    for name in ("query_ids", "db_ids", "sims", "ranks"):
        value = {"query_ids": [], "db_ids": [], "sims": [], "ranks": np.zeros((0, 0), int)} | {name: nested}
        (tmp_path / "s.pkl").write_bytes(pickle.dumps(value))
        with pytest.raises(OpenIliasError, match="Expected query_ids"):
            read_official(tmp_path / "s.pkl")
    loop: list[object] = []
    loop.append(loop)
    (tmp_path / "s.pkl").write_bytes(pickle.dumps({"query_ids": loop}))
    with pytest.raises(OpenIliasError, match="refused or broken"):
        read_official(tmp_path / "s.pkl")


def test_text_that_is_not_text_is_refused(tmp_path: Path) -> None:
    value = np.array([0x7FFFFFFF, 5], "u4").view("U1")
    (tmp_path / "s.pkl").write_bytes(pickle.dumps({"db_ids": value}))
    with pytest.raises(OpenIliasError, match="not text"):
        read_official(tmp_path / "s.pkl")
