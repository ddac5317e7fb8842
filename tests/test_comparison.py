"""Models side by side against numbers that are counted plainly, and SciPy's."""

from __future__ import annotations

import csv
import itertools
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from conftest import Outcome
from openilias.core.errors import OpenIliasError
from openilias.core.protocol import Protocol
from openilias.evaluate.comparison import align, carried_by, compare, effect_size, interval_of, intervals
from openilias.evaluate.evaluation import Evaluation, QueryResult
from openilias.evaluate.results import write_evaluation
from openilias.evaluate.significance import clusters


def evaluation(aps: dict[str, float], *, k: int = 1000) -> Evaluation:
    """An evaluation of queries ``object/number``."""
    queries = tuple(
        QueryResult(item, item.split("/", maxsplit=1)[0], ap, 1.0, ("p",), (1,)) for item, ap in sorted(aps.items())
    )
    mean = float(np.mean(list(aps.values())))
    return Evaluation(queries, mean, 1.0, (), (), (), (), (), 0, Protocol(k=k), "paper", k)


def drawn(seed: int, objects: int = 30, shift: float = 0.0) -> dict[str, float]:
    rng = np.random.default_rng(seed)
    easy = np.random.default_rng(99).beta(0.5, 0.8, objects)
    return {
        f"o{n}/q{m}": float(np.clip(easy[n] + shift + 0.1 * rng.standard_normal(), 0, 1))
        for n in range(objects)
        for m in range(1 + n % 3)
    }


def test_queries_are_put_side_by_side() -> None:
    a, b = {"x/1": 0.1, "x/2": 0.2, "y/1": 1.0}, {"y/1": 0.5, "x/2": 0.4, "x/1": 0.3}
    found = align({"A": evaluation(a), "B": evaluation(b)})
    assert found.unit == "query"
    assert found.ids == ("x/1", "x/2", "y/1")
    assert found.objects == ("x", "x", "y")
    assert found.ap.tolist() == [[0.1, 0.3], [0.2, 0.4], [1.0, 0.5]]


def test_images_and_texts_are_compared_by_object() -> None:
    images, texts = {"x/q1": 0.2, "x/q2": 0.4, "y/q1": 1.0}, {"x/t": 0.5, "y/t": 0.0}
    found = align({"i2i": evaluation(images), "t2i": evaluation(texts)})
    assert found.unit == "object"
    assert found.ids == found.objects == ("x", "y")
    assert found.ap == pytest.approx(np.array([[0.3, 0.5], [1.0, 0.0]]))


def test_what_cannot_be_compared_is_refused() -> None:
    a = evaluation({"x/1": 0.1, "y/1": 0.2})
    with pytest.raises(OpenIliasError, match="not evaluated alike: A: AP@1000"):
        align({"A": a, "B": evaluation({"x/1": 0.1, "y/1": 0.2}, k=10)})
    with pytest.raises(OpenIliasError, match="not evaluated alike"):
        align({"A": a, "B": replace(a, compat="official")})
    with pytest.raises(OpenIliasError, match="1 queries are not in all of these: y/1"):
        align({"A": a, "B": evaluation({"x/1": 0.1})})
    with pytest.raises(OpenIliasError, match="1 objects are not in all of these: y"):
        align({"A": a, "B": evaluation({"x/9": 0.1})})
    with pytest.raises(OpenIliasError, match="no query and no object in common"):
        align({"A": a, "B": evaluation({"z/1": 0.1})}, common=True)
    with pytest.raises(OpenIliasError, match="nothing to compare"):
        align({})
    assert align({"A": a, "B": evaluation({"x/1": 0.1})}, common=True).ids == ("x/1",)


def test_a_pair_in_all_its_numbers() -> None:
    a, b = drawn(1), drawn(2, shift=0.05)
    b["o3/q0"] = a["o3/q0"]
    found = compare(align({"A": evaluation(a), "B": evaluation(b)}), [(0, 1)], resamples=4000, seed=5, deciding=4)
    (pair,) = found.pairs
    each = {item: b[item] - a[item] for item in a}
    assert pair.difference == pytest.approx(np.mean(list(each.values())))
    assert [s.map for s in found.standings] == pytest.approx([np.mean(list(a.values())), np.mean(list(b.values()))])
    assert pair.better == sum(value > 0 for value in each.values())
    assert pair.worse == sum(value < 0 for value in each.values())
    assert pair.same == sum(value == 0 for value in each.values()) >= 1
    assert pair.gain == pytest.approx(np.mean([value for value in each.values() if value > 0]))
    assert pair.loss == pytest.approx(np.mean([value for value in each.values() if value < 0]))
    order = sorted(each, key=lambda item: -abs(each[item]))[:4]
    assert [one.id for one in pair.deciding] == order
    assert [(one.a, one.b) for one in pair.deciding] == [(a[item], b[item]) for item in order]
    by_object = {name: [each[i] for i in each if i.startswith(f"{name}/")] for name in {i.split("/")[0] for i in each}}
    means = [np.mean(values) for values in by_object.values()]
    assert pair.effect == pytest.approx(np.mean(means) / np.std(means, ddof=1))
    sums = np.array([sum(by_object[name]) for name in sorted(by_object)])
    counts = np.array([len(by_object[name]) for name in sorted(by_object)])
    wanted = stats.permutation_test(
        (sums,), lambda x, axis: x.sum(axis), permutation_type="samples", n_resamples=20_000, vectorized=True, rng=1
    ).pvalue
    assert pair.p == pytest.approx(wanted, abs=0.01)
    theirs = stats.bootstrap(
        (np.arange(len(sums)),),
        lambda at, axis=-1: sums[at.astype(int)].sum(axis) / counts[at.astype(int)].sum(axis),
        n_resamples=4000,
        method="BCa",
        rng=np.random.default_rng(5),
        vectorized=True,
    ).confidence_interval
    assert (pair.low, pair.high) == pytest.approx((theirs.low, theirs.high), abs=1e-9)
    assert pair.adjusted == pair.p
    assert not pair.exact
    assert pair.low < pair.difference < pair.high


def test_pairs_that_differ_and_pairs_that_do_not() -> None:
    found = compare(
        align({"A": evaluation(drawn(1)), "same": evaluation(drawn(3)), "better": evaluation(drawn(4, shift=0.15))}),
        [(0, 1), (0, 2)],
        resamples=2000,
    )
    same, better = found.pairs
    assert same.adjusted > 0.05
    assert same.low < 0 < same.high
    assert better.adjusted < 0.01
    assert better.low > 0
    assert better.adjusted == pytest.approx(2 * better.p)  # Holm: the smaller of two
    assert (same.a, same.b) == ("A", "same")


def test_a_model_against_itself() -> None:
    found = compare(align({"A": evaluation(drawn(1)), "B": evaluation(drawn(1))}), [(0, 1)], resamples=200)
    (pair,) = found.pairs
    assert (pair.difference, pair.low, pair.high, pair.p) == (0, 0, 0, 1)
    assert pair.effect is None
    assert pair.carried_by is None
    assert pair.deciding == ()


def test_intervals_are_those_of_the_comparison() -> None:
    aligned = align({"A": evaluation(drawn(1)), "B": evaluation(drawn(4))})
    found = compare(aligned, [], resamples=300, seed=2)
    alone = intervals(clusters(aligned.objects, aligned.ap), resamples=300, seed=2)
    assert np.array([[s.low, s.high] for s in found.standings]) == pytest.approx(alone)


def test_rounding_tells_no_models_apart_and_one_object_has_no_interval() -> None:
    a = {"x/1": 0.1 + 0.2, "x/2": 0.5}
    found = compare(align({"A": evaluation(a), "B": evaluation({"x/1": 0.3, "x/2": 0.5})}), [(0, 1)], resamples=100)
    assert (found.pairs[0].better, found.pairs[0].worse, found.pairs[0].same) == (0, 0, 2)
    assert found.pairs[0].low is None
    assert found.standings[0].low is None
    assert interval_of(evaluation(a)) is None
    alone = interval_of(evaluation(drawn(1)), seed=2)
    assert alone is not None
    assert alone[0] < evaluation(drawn(1)).map < alone[1]


def test_a_difference_that_all_objects_carry() -> None:
    """Rounding must not make it vanish with the first one."""
    for seed in range(200):
        values = np.random.default_rng(seed).uniform(0.05, 1, 1000)
        assert carried_by(values) == 1000


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=9))
@settings(max_examples=200)
def test_the_objects_that_carry_a_difference(values: list[int]) -> None:
    total = sum(values)
    right = None
    if total:
        for size in range(1, len(values) + 1):
            if any(np.sign(total - sum(some)) != np.sign(total) for some in itertools.combinations(values, size)):
                right = size
                break
    assert carried_by(values) == right


def test_effect_sizes() -> None:
    assert effect_size([1.0, 3.0]) == pytest.approx(2 / np.sqrt(2))
    assert effect_size([1.0]) is None
    assert effect_size([0.5, 0.5]) is None


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Evaluations of four models on one benchmark, and of one on another; the last is of texts."""
    folder = tmp_path_factory.mktemp("runs")
    world = {"algorithm_version": 1, "benchmark": "one"}
    for n, name in enumerate(("first", "second", "third")):
        write_evaluation(evaluation(drawn(n, shift=0.1 * (n == 2))), folder / name / "evaluation", made_from=world)
    write_evaluation(evaluation(drawn(7)), folder / "elsewhere" / "evaluation", made_from=world | {"benchmark": "two"})
    texts = {f"{item.split('/')[0]}/t": ap for item, ap in drawn(8).items()}
    write_evaluation(evaluation(texts), folder / "texts", made_from=world)
    part = replace(evaluation(drawn(1)), unsearched=("yfcc100m_0000.tar",))
    write_evaluation(part, folder / "part" / "evaluation", made_from=world)
    return folder


def test_models_are_compared_on_the_command_line(
    ilias: Callable[..., Outcome], runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(runs)
    asked = ("compare", "first", "B=second", "third/evaluation", "--out", tmp_path / "out", "--resamples", 500)
    out = ilias(*asked, "--json", tmp_path / "c.json")
    assert out.code == 0, out.err
    told = json.loads((tmp_path / "c.json").read_text())
    assert [(pair["a"], pair["b"]) for pair in told["pairs"]] == [("first", "B"), ("first", "third")]
    assert told["pairs"][1]["low"] > 0
    assert told["compared"] == len(drawn(0))
    assert told["objects"] == 30
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert files == {
        "models.csv", "models.md", "models.tex", "per_query.csv", "model_comparison.json",
        *(f"{name}.{ending}" for name in ("differences", "queries") for ending in ("csv", "md", "tex", "svg", "png")),
    }  # fmt: skip
    rows = list(csv.DictReader((tmp_path / "out" / "per_query.csv").open()))
    assert float(rows[0]["B"]) == 100 * drawn(1)[rows[0]["query_id"]]
    assert out.out.index("third") < out.out.index("first")  # best first
    again = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    ilias(*asked)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == again


def test_which_pairs_are_compared(
    ilias: Callable[..., Outcome], runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(runs)

    def pairs(*options: object) -> list[tuple[str, str]]:
        out = ilias("compare", "first", "second", "third", *options, "--json", tmp_path / "c.json", "--resamples", 100)
        assert out.code == 0, out.err
        return [(pair["a"], pair["b"]) for pair in json.loads((tmp_path / "c.json").read_text())["pairs"]]

    assert pairs("--against", "third") == [("third", "first"), ("third", "second")]
    assert pairs("--all-pairs") == [("first", "second"), ("first", "third"), ("second", "third")]


def test_names_and_folders_with_an_equals_sign(
    ilias: Callable[..., Outcome], runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run of a matrix lies in a folder such as ``protocol.resolution=384``."""
    shutil.copytree(runs / "second", tmp_path / "side=384")
    monkeypatch.chdir(tmp_path)
    for text, name in (("side=384", "side=384"), ("side=384=side=384", "side=384"), ("b=side=384", "b")):
        out = ilias("compare", runs / "first", text, "--resamples", 100, "--json", tmp_path / "c.json")
        assert out.code == 0, out.err
        (pair,) = json.loads((tmp_path / "c.json").read_text())["pairs"]
        assert pair["b"] == name


def test_images_with_texts_and_other_benchmarks(
    ilias: Callable[..., Outcome], runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(runs)
    assert "30 objects, 100 resamples" in ilias("compare", "first", "texts", "--resamples", 100).out
    assert ilias("compare", "first", "elsewhere", "--across-benchmarks", "--resamples", 100).code == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("first",), "two evaluations or more"),
        (("first", "first"), "called 'first'"),
        (("first", "elsewhere"), "not of the benchmark"),
        (("first", "nothing"), "no run with an evaluation"),
        (("first", "second", "--against", "x"), "none of first, second"),
        (("first", "second", "--against", "first", "--all-pairs"), "Each with each"),
        (("first", "second", "--out", "first"), "holds no model_comparison"),
        (("first", "part"), "other parts of the benchmark"),
        (("first", "=second"), "no name before"),
    ],
)
def test_what_is_refused(
    ilias: Callable[..., Outcome], runs: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], told: str
) -> None:
    monkeypatch.chdir(runs)
    out = ilias("compare", *arguments)
    assert out.code == 2
    assert told in " ".join(out.err.replace("│", " ").split())
    assert {path.name for path in runs.iterdir()} == {"first", "second", "third", "elsewhere", "texts", "part"}
