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
        ('{"q": {"x": 1e99}}', "not finite"),
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
