"""Evaluating a ranking of the size of ILIAS, beside the straightforward evaluation, query by query in Python.

    python benchmarks/evaluate.py                    1,232 queries x 1,000 images, medians of five rounds
    python benchmarks/evaluate.py --models 100       and how much memory so many evaluations take, compared

Both sides begin with what they work on: ours with the arrays of a ranking, the plain one with a dictionary
{query: {image: similarity}}, as official result files hold it. Their numbers are compared. Lines are measured in turns
in one process.

    plain           mAP@1k and oracle
    with groups     besides, by category, mid-level category, area coverage and clutter: all that a report needs
    twin            scikit-learn's average precision of each list, after each positive was looked up in it
"""

from __future__ import annotations

import argparse
import platform
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from sklearn.metrics import average_precision_score

from openilias.core.manifests import software
from openilias.core.protocol import Protocol
from openilias.data import Attributes, Benchmark, Taxonomy
from openilias.evaluate.comparison import align, compare
from openilias.evaluate.evaluation import Evaluation, evaluate
from openilias.evaluate.groups import CLUTTER_EDGES, COVERAGE_EDGES
from openilias.evaluate.results import read_evaluation, write_evaluation
from openilias.search.ranking import Ranking

Lists = dict[str, dict[str, float]]
K = 1000


def made(queries: int, positives: int, objects: int, distractors: int, k: int) -> tuple[Benchmark, Ranking]:
    """Return a benchmark of made-up ids with all attributes, and a ranking in which 60 % of the positives are found."""
    rng = np.random.default_rng(0)
    names = [f"object_{n:04d}" for n in range(objects)]
    asked, known = np.ones(objects, int), np.ones(objects, int)
    asked[rng.choice(objects, queries - objects, replace=False)] += 1
    np.add.at(known, rng.integers(0, objects, positives - objects), 1)
    query_ids = tuple(f"{name}/query/Q{n:03d}_{m:02d}.jpg" for n, name in enumerate(names) for m in range(asked[n]))
    positive_ids = tuple(f"{name}/pos/P{n:03d}_{m:02d}.jpg" for n, name in enumerate(names) for m in range(known[n]))
    attributes = {item: Attributes(float(rng.beta(1, 4)), int(rng.gamma(2, 18))) for item in positive_ids}
    taxonomy = Taxonomy({name: (f"c{n % 8}", f"m{n % 42}", "other") for n, name in enumerate(names)})
    benchmark = Benchmark(Path("x"), Path("x"), query_ids, (), positive_ids, (), attributes, taxonomy)
    number = {item: n for n, item in enumerate(positive_ids)}
    rows = np.empty((len(query_ids), k), np.int64)
    for row, query in enumerate(query_ids):
        listed = dict.fromkeys((positives + rng.integers(0, distractors, k + 100)).tolist())
        found = [number[item] for item in benchmark.relevance[query.split("/")[0]] if rng.random() < 0.6]
        order = list(listed)
        for item in found:
            order.insert(int(10 ** (3 * rng.random())) - 1, item)
        rows[row] = order[:k]
    used, inverse = np.unique(rows, return_inverse=True)
    ids = tuple(positive_ids[n] if n < positives else f"yfcc100m_{n // 100000:04d}.tar/{n}" for n in used.tolist())
    scores = -np.sort(-rng.integers(0, 100_000, rows.shape), axis=1).astype(np.float32) / 100_000  # some are equal
    return benchmark, Ranking(query_ids, ids, inverse.reshape(rows.shape), scores, used)


def as_lists(ranking: Ranking) -> Lists:
    """Return a ranking as official result files hold it."""
    return {
        query: dict(zip(ranking.ids_of(n), ranking.scores[n].tolist(), strict=True))
        for n, query in enumerate(ranking.query_ids)
    }


def plain_ap(found: dict[str, float], relevant: set[str], k: int) -> tuple[float, float]:
    """Return AP@k and oracle of one list."""
    items, scores = list(found)[:k], list(found.values())[:k]
    marks = [item in relevant for item in items]
    hits = sum(marks)
    if not hits:
        return 0.0, 0.0
    return float(average_precision_score(marks, scores)) * hits / min(k, len(relevant)), hits / len(relevant)


def plain(lists: Lists, benchmark: Benchmark, k: int) -> dict[str, float]:
    """Evaluate query by query."""
    results = {
        query: plain_ap(found, set(benchmark.relevance[query.split("/")[0]]), k) for query, found in lists.items()
    }
    return {
        "map": float(np.mean([ap for ap, _ in results.values()])),
        "oracle": float(np.mean([oracle for _, oracle in results.values()])),
    }


def plain_groups(lists: Lists, benchmark: Benchmark, k: int) -> dict[str, float]:
    """Evaluate query by query, and by groups: each group looks at every list again."""
    numbers = plain(lists, benchmark, k)
    for depth, name in ((1, "categories"), (2, "mid_categories")):
        by_object: dict[str, list[float]] = {}
        for query, found in lists.items():
            thing = query.split("/")[0]
            by_object.setdefault(thing, []).append(plain_ap(found, set(benchmark.relevance[thing]), k)[0])
        members: dict[str, list[float]] = {}
        for thing, aps in by_object.items():
            members.setdefault("/".join(benchmark.taxonomy.nodes[thing][:depth]), []).append(float(np.mean(aps)))
        numbers |= {f"{name} {group}": float(np.mean(values)) for group, values in members.items()}
    for attribute, edges in (("coverage", COVERAGE_EDGES), ("clutter", CLUTTER_EDGES)):
        for low, high in pairwise(edges):
            aps = []
            for query, found in lists.items():
                everything = set(benchmark.relevance[query.split("/")[0]])
                inside = {i for i in everything if low <= getattr(benchmark.attributes[i], attribute) < high}
                if inside:
                    left = {item: score for item, score in found.items() if item not in everything or item in inside}
                    aps.append(plain_ap(left, inside, k)[0])
            numbers[f"{attribute} {low:g}-{high:g}"] = float(np.mean(aps))
    return numbers


def numbers_of(evaluation: Evaluation) -> dict[str, float]:
    """Return the numbers of an evaluation by the names of the plain one."""
    found = {"map": evaluation.map, "oracle": evaluation.oracle}
    for name in ("categories", "mid_categories", "coverage", "clutter"):
        found |= {f"{name} {group.name}": group.map for group in getattr(evaluation, name) if group.map is not None}
    return found


def seconds_of(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def memory() -> float:
    """Return the resident memory in MiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


def many(evaluation: Evaluation, models: int) -> None:
    """Say what reading and comparing many evaluations takes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_evaluation(evaluation, folder / "one", made_from={"benchmark": "x"})
        before = memory()
        started = time.perf_counter()
        kept = {f"model {n}": read_evaluation(folder / "one")[0] for n in range(models)}
        read, held = time.perf_counter() - started, memory() - before
        started = time.perf_counter()
        aligned = align(kept)
        found = compare(aligned, [(0, n) for n in range(1, models)])
        print(
            f"{models} evaluations: read in {read:.1f} s, {held:.0f} MiB held; aligned and compared with the first "
            f"(10,000 resamples, {len(found.pairs)} pairs) in {time.perf_counter() - started:.1f} s"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=1232)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--models", type=int, default=0)
    arguments = parser.parse_args()
    objects = max(1, round(arguments.queries / 1.232))
    benchmark, ranking = made(arguments.queries, round(4.715 * objects), objects, 3_000_000, K)
    lists = as_lists(ranking)
    nothing = dict.fromkeys(benchmark.positives, Attributes(float("nan"), None))
    without = replace(benchmark, stated=nothing, taxonomy=Taxonomy())
    protocol = Protocol(k=K)

    def ours(of: Benchmark) -> Evaluation:
        return evaluate(ranking, of, protocol, trusted=True)

    mine, theirs = numbers_of(ours(benchmark)), plain_groups(lists, benchmark, K)
    worst = max(abs(mine[name] - theirs[name]) for name in theirs)
    if mine.keys() != theirs.keys() or worst > 1e-9:
        raise SystemExit(f"the numbers differ: {worst}")
    versions = software()
    print(f"{platform.machine()}, Python {versions['python']}, NumPy {versions['numpy']}")
    size = f"{len(ranking.query_ids):,} queries x {K:,}, {len(ranking.db_ids):,} different images"
    print(f"{size}; {len(theirs)} numbers, all within {worst:.0e}")
    lines: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "plain": (lambda: ours(without), lambda: plain(lists, benchmark, K)),
        "with groups": (lambda: ours(benchmark), lambda: plain_groups(lists, benchmark, K)),
    }
    times: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in lines}
    for _ in range(arguments.rounds):
        for name, pair in lines.items():
            for side, work in enumerate(pair):
                times[name][side].append(seconds_of(work))
    print(f"{'':12}  {'ours':>8}  {'twin':>8}  ratio")
    for name, (a, b) in times.items():
        mid = statistics.median(a), statistics.median(b)
        print(f"{name:12}  {mid[0]:8.3f}  {mid[1]:8.3f}  {mid[1] / mid[0]:5.1f}")
    if arguments.models:
        many(ours(benchmark), arguments.models)


if __name__ == "__main__":
    main()
