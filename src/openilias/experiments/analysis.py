"""From run folders to all that their report shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from openilias.core.errors import OpenIliasError
from openilias.core.files import read_json
from openilias.core.fingerprints import fingerprint
from openilias.core.progress import progress
from openilias.data import Benchmark, read_ilias
from openilias.data.ilias import LISTS, MINI
from openilias.data.statistics import Statistics, measure
from openilias.evaluate.comparison import Aligned, align, compare, interval_of
from openilias.evaluate.evaluation import Evaluation
from openilias.experiments.before import reranked_search
from openilias.experiments.experiment import Experiment
from openilias.experiments.results import Result
from openilias.experiments.study import study_of
from openilias.models.record import find_record
from openilias.report.figures.derive import Chosen, Derived, Searched, derive, members_of
from openilias.report.figures.everything import Analysis
from openilias.report.figures.exhibit import Exhibit
from openilias.report.figures.measured import Measured, Queries
from openilias.report.figures.sheets import Moved
from openilias.report.layout import Column, Table
from openilias.report.reranking import gained_most
from openilias.report.sweep import VALUES, Sweep, read_sweep
from openilias.search.ranking import read_ranking
from openilias.search.restriction import read_ids

_NOT_CUT = {
    "expand": "expanded queries",
    "rerank": "a re-ranked shortlist",
    "ensemble": "an ensemble",
    "index": "a compressed index",
    "duplicates": "lists without duplicates",
}
_MOST_COUNTED = 2_000_000
"""Distractors that are counted by their names; of more the list itself is taken for what is there."""


@dataclass(frozen=True, eq=False)
class Run:
    """A run with what is known of it.

    Attributes:
        result: its evaluation.
        measured: as figures take it.
        ranking: folder of its ranking; None if there is none beside the evaluation.
        manifest: of the ranking; empty without.
        about: ``run.json``; empty without.
    """

    result: Result
    measured: Measured
    ranking: Path | None
    manifest: dict[str, Any]
    about: dict[str, Any]


def read_runs(results: Sequence[Result], benchmarks: dict[str, Benchmark]) -> list[Run]:
    """Add what runs say of themselves to their evaluations.

    Args:
        results: the evaluations.
        benchmarks: by fingerprint.
    """
    folders = {result.benchmark: benchmark_of(result) for result in results}
    folders |= {fingerprint: read.root.resolve() for fingerprint, read in benchmarks.items()}
    last = [folder.name for folder in folders.values() if folder is not None]
    names = {
        fingerprint: "another benchmark"
        if folder is None
        else folder.name
        if last.count(folder.name) == 1
        else "/".join(folder.parts[-2:])
        for fingerprint, folder in folders.items()
    }
    return [_run(result, names[result.benchmark]) for result in results]


def benchmark_of(result: Result) -> Path | None:
    """Return where the benchmark of a run was, as ``run.json`` says."""
    folder = result.about.get("benchmark")
    return None if folder is None else Path(folder)


def _run(result: Result, name: str) -> Run:
    about, folder = result.about, result.folder
    ranking = folder / "ranking" if (folder / "ranking" / "ranking.json").exists() else None
    manifest = read_json(ranking / "ranking.json") if ranking is not None else {}
    same = manifest.get("fingerprint") == result.manifest["made_from"].get("ranking")
    if not same:
        ranking, manifest = None, {}
    origin = manifest.get("made_from", {}).get("origin", {})
    model = origin.get("model", {}).get("name", "unknown model") if "ensemble" not in origin else "ensemble"
    rerank = manifest.get("made_from", {}).get("rerank")
    evaluation = result.evaluation
    return Run(
        result,
        Measured(
            name=result.name,
            benchmark=name,
            evaluation=evaluation,
            record=find_record(model),
            model=model,
            dims=manifest.get("dims"),
            adapted="adaptation" in origin,
            reranked=None if rerank is None else rerank["local"]["method"],
            queries=_queries(result),
            database_size=manifest.get("database_size"),
            resolution=evaluation.protocol.resolution if evaluation.described else None,
            random_weights=str(manifest.get("weights_from", "")).startswith("random"),
            descriptors=fingerprint({key: value for key, value in origin.items() if key != "benchmark"}),
            learned=_learned(about),
        ),
        ranking,
        manifest,
        about,
    )


def _learned(about: dict[str, Any]) -> str:
    step = about.get("experiment", {}).get("adapt")
    return (
        ""
        if step is None or "file" in step
        else fingerprint({key: value for key, value in step.items() if key != "dim"})
    )


def _queries(result: Result) -> Queries:
    kinds = {query.query_id.endswith(".txt") for query in result.evaluation.queries}
    return "both" if len(kinds) > 1 else "text" if kinds == {True} else "image"


def find_benchmark(results: Sequence[Result], given: Path | None) -> Benchmark:
    """Read the benchmark of the first run.

    Args:
        results: the evaluations; ``run.json`` says where their benchmark is.
        given: where it is instead, of runs that do not say, or that were moved.

    Raises:
        OpenIliasError: it is not known, not there, or another one.
    """
    first = results[0]
    folder = given or benchmark_of(first)
    if folder is None:
        raise OpenIliasError(
            "This run does not say where its benchmark is.", where=first.folder, fix="Give --benchmark."
        )
    read = read_ilias(folder)
    if read.fingerprint != first.benchmark:
        raise OpenIliasError(
            f"The benchmark is not the one that was searched by '{first.name}', or it has changed.",
            where=folder,
            fix="Run again, or give the right one with --benchmark.",
        )
    return read


def searched_of(manifest: dict[str, Any]) -> Searched:
    """Return how many positives and distractors a ranking was searched in."""
    made_from = manifest["made_from"]
    for field, what in _NOT_CUT.items():
        if made_from.get(field) not in (None, "keep"):
            return Searched(None, None, f"Of {what} a search without some images is another list.")
    shards = manifest.get("database")
    left_out = manifest.get("left_out", {}).get("images", 0)
    if not isinstance(shards, list) or left_out:
        return Searched(None, None)
    rows = [(str(partition), int(count)) for partition, _, count in shards]
    positives = sum(count for partition, count in rows if partition == "positives")
    return Searched(positives, sum(count for _, count in rows) - positives)


def analyse(runs: Sequence[Run], benchmark: Benchmark, others: Sequence[Run] = (), *, seed: int = 0) -> Analysis:
    """Compute all that the figures of runs on one benchmark need; one ranking at a time is held.

    Args:
        runs: on this benchmark.
        benchmark: that they searched.
        others: runs on other benchmarks.
        seed: of intervals and subsets.
    """
    missing: list[str] = []
    derived: dict[str, Derived] = {}
    chosen = _chosen(benchmark, missing)
    with progress("analyse", total=len(runs), unit="runs") as step:
        for run in runs:
            name = run.measured.name
            if run.ranking is None:
                missing.append(f"{name}: its ranking is not beside its evaluation.")
            else:
                ranking, manifest = read_ranking(run.ranking)
                made = derive(
                    name,
                    ranking,
                    run.measured.evaluation,
                    benchmark,
                    searched_of(manifest),
                    seeds=(seed, seed + 1, seed + 2),
                    chosen=chosen,
                )
                derived[name] = replace(made, moved=_moved(manifest, run.measured.evaluation, benchmark))
                missing += made.why
            step()
    aligned, by_object = _aligned(runs, missing)
    intervals = {run.measured.name: interval_of(run.measured.evaluation, seed=seed) for run in runs}
    pairs = [] if aligned is None else list(combinations(range(len(aligned.names)), 2))
    by_other: dict[str, tuple[Measured, ...]] = {}
    for run in others:
        by_other[run.measured.benchmark] = (*by_other.get(run.measured.benchmark, ()), run.measured)
    return Analysis(
        benchmark,
        tuple(run.measured for run in runs),
        derived,
        {name: found for name, found in intervals.items() if found is not None},
        aligned,
        by_object,
        None if aligned is None else compare(aligned, pairs, seed=seed),
        _statistics(benchmark, missing),
        by_other,
        tuple(_sweeps(runs)),
        tuple(_studies(runs, missing)),
        tuple(missing),
    )


def _moved(manifest: dict[str, Any], after: Evaluation, benchmark: Benchmark) -> tuple[Moved, ...]:
    """Return the queries that gain most from re-ranking, if what was re-ranked is still there."""
    search = reranked_search(manifest, after, benchmark)
    return () if search is None else gained_most(search.before, after)


def _chosen(benchmark: Benchmark, missing: list[str]) -> Chosen | None:
    """Return the chosen distractors that the benchmark lists, if it lists any, and how many of them there are."""
    path = benchmark.root / LISTS / MINI
    if not path.exists():
        return None
    ids, count, total = read_ids(path), 0, 0
    try:
        for shard in benchmark.distractor_shards:
            items = shard.items()
            total += len(items)
            if total > _MOST_COUNTED:
                return Chosen(ids, ids.counts()["listed"])
            count += int(members_of([item.id for item in items], ids).sum())
    except OpenIliasError as error:
        missing.append(f"Table 3: {error.what}")
        return None
    return Chosen(ids, count)


def _aligned(runs: Sequence[Run], missing: list[str]) -> tuple[Aligned | None, Aligned | None]:
    """Return the APs of runs that answer the same queries as the first; and of all by object, where some do not."""
    evaluations = {run.measured.name: run.measured.evaluation for run in runs}
    asked = {name: {query.query_id for query in one.queries} for name, one in evaluations.items()}
    usual = next(iter(evaluations.values()))
    alike = {
        name: one
        for name, one in evaluations.items()
        if asked[name] == asked[runs[0].measured.name]
        and (one.protocol.k, one.compat, one.unsearched) == (usual.protocol.k, usual.compat, usual.unsearched)
    }
    others = [name for name in evaluations if name not in alike]
    if others:
        missing.append(
            f"Not compared query by query with {runs[0].measured.name}, as they answer other queries, were evaluated "
            f"otherwise or searched another part: {', '.join(others)}."
        )
    try:
        return align(alike), align(evaluations) if others else None
    except OpenIliasError:
        return align(alike), None


def _statistics(benchmark: Benchmark, missing: list[str]) -> Statistics | None:
    try:
        return measure(benchmark)
    except OpenIliasError as error:
        missing.append(f"The benchmark cannot be counted: {error.what}")
        return None


def _studies(runs: Sequence[Run], missing: list[str]) -> list[Exhibit]:
    """Return the tables that runs of a matrix make together, by the experiments that their folders hold."""
    groups: dict[str, list[tuple[Experiment, Run]]] = {}
    for run in runs:
        kept = run.about.get("experiment", {})
        if kept.get("table") is not None:
            try:
                groups.setdefault(kept["table"], []).append((Experiment.model_validate(kept), run))
            except ValidationError as error:
                missing.append(f"{run.measured.name}: its experiment cannot be read: {error.error_count()} errors.")
    found = []
    for kind, members in groups.items():
        evaluations = [run.measured.evaluation for _, run in members]
        try:
            study = study_of(
                [experiment for experiment, _ in members],
                [one.map for one in evaluations],
                [one.oracle for one in evaluations],
            )
        except OpenIliasError as error:
            missing.append(f"Table {kind}: {error.what}")
            continue
        if study is not None and len(members) > 1:
            columns = tuple(Column(f"{n}. {name}", name) for n, name in enumerate(study.header, start=1))
            rows = tuple(map(tuple, study.rows))
            paper = f"Table {kind}" if len(kind) == 1 else {"dimensions": "Fig. G"}.get(kind, "")
            found.append(Exhibit(f"study-{kind.lower()}", paper, Table(f"{study.title}.", columns, rows)))
    return found


def _sweeps(runs: Sequence[Run]) -> list[tuple[str, Sweep]]:
    folders = {run.measured.name: run.result.folder / "sweep" for run in runs}
    return [(name, read_sweep(folder)) for name, folder in folders.items() if (folder / VALUES).is_file()]
