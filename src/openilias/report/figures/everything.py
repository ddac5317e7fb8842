"""All figures and tables that some runs have the data for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from openilias.data import Benchmark
from openilias.data.statistics import Statistics
from openilias.evaluate.comparison import Aligned, Comparison, Pair, oracle_of_models
from openilias.evaluate.evaluation import Attribute, values_of
from openilias.evaluate.groups import RANK_EDGES, Group
from openilias.report.figures import (
    categories,
    database,
    differences,
    groups,
    per_query,
    settings,
    tables,
    taxonomy,
    timeline,
)
from openilias.report.figures.derive import ATTRIBUTES, Derived, edges_of
from openilias.report.figures.exhibit import Exhibit
from openilias.report.figures.measured import Measured
from openilias.report.layout import Column, Table
from openilias.report.statistics import exhibits as statistics_exhibits
from openilias.report.sweep import Sweep
from openilias.report.sweep import exhibit as sweep_exhibit

UNNAMED = ("unknown model", "ensemble")
MOST_PAIRS = 15
"""Of more pairs of models only those of the best are shown."""


@dataclass(frozen=True, eq=False)
class Analysis:
    """What is to be shown of the runs on one benchmark.

    Attributes:
        benchmark: that was searched.
        measured: the runs, as they were given.
        derived: name -> what was computed of its ranking.
        intervals: name -> confidence interval of its mAP, in [0, 1].
        aligned: the APs of the runs that answer the same queries as the first.
        by_object: of all runs, object by object, where some answer other queries (images and texts); else None.
        comparison: of those that are aligned.
        statistics: of the benchmark; None where its images are not here.
        others: name of another benchmark -> runs on it.
        sweeps: name of a run and what its re-ranking was swept over.
        studies: tables that the runs of a matrix make.
        missing: what could not be shown, and why.
    """

    benchmark: Benchmark
    measured: tuple[Measured, ...]
    derived: Mapping[str, Derived] = field(default_factory=dict)
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    aligned: Aligned | None = None
    by_object: Aligned | None = None
    comparison: Comparison | None = None
    statistics: Statistics | None = None
    others: Mapping[str, tuple[Measured, ...]] = field(default_factory=dict)
    sweeps: tuple[tuple[str, Sweep], ...] = ()
    studies: tuple[Exhibit, ...] = ()
    missing: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Of the benchmark."""
        return self.measured[0].benchmark


def exhibits(analysis: Analysis) -> list[Exhibit]:
    """Return all that there is data for, in the order of the paper, what is not in it first.

    To be called within :func:`openilias.report.figures.style.figure_style`.
    """
    found: dict[str, Exhibit] = {}
    for exhibit in (exhibit for make in _MAKERS for exhibit in make(analysis) if exhibit is not None):
        name, number = exhibit.name, 1
        while name in found:  # as of two other benchmarks, or two runs with a sweep
            number += 1
            name = f"{exhibit.name}-{number}"
        found[name] = replace(exhibit, name=name)
    return list(found.values())


def _of_models(analysis: Analysis) -> Iterator[Exhibit | None]:
    found = analysis.comparison
    yield tables.models(analysis.measured, analysis.intervals)
    if found is not None and found.pairs:
        shown = replace(found, pairs=_with_the_best(found))
        yield differences.differences(shown, len(found.pairs))
        yield differences.queries(shown)
    if analysis.aligned is not None and len(analysis.aligned.names) > 1:
        yield best_of_models(analysis.aligned)


def _with_the_best(found: Comparison) -> tuple[Pair, ...]:
    """Return all pairs, or where they are many those of the best model."""
    if len(found.pairs) <= MOST_PAIRS:
        return found.pairs
    best = max(found.standings, key=lambda one: one.map).name
    return tuple(pair for pair in found.pairs if best in (pair.a, pair.b))


def _of_the_benchmark(analysis: Analysis) -> Iterator[Exhibit | None]:
    if analysis.statistics is not None:
        s = analysis.statistics
        database_size = None if s.distractors is None else s.distractors + s.positives.images
        boxes = bool(len(s.boxes)) and bool(s.boxes.sum())
        yield tables.datasets(
            [tables.Dataset(s.name, s.objects, s.queries.images, s.positives.images, database_size, boxes)]
        )
        yield from statistics_exhibits(s)
        yield tables.cameras(s.name, dict(s.cameras), len(s.boxes))
    yield taxonomy.taxonomy_tree(analysis.benchmark.taxonomy)


def _of_the_paper(analysis: Analysis) -> Iterator[Exhibit | None]:
    yield timeline.timeline(analysis.measured)
    for adapted in (False, True):
        ours = _by_model(analysis.measured, adapted=adapted)
        for name, others in analysis.others.items():
            yield settings.benchmarks(analysis.name, ours, name, _by_model(others, adapted=adapted), adapted=adapted)
    for level in ("mid", "coarse"):
        yield categories.categories(analysis.measured, level)
    if analysis.aligned is not None:
        yield per_query.per_query(analysis.aligned)
    if analysis.by_object is not None:
        yield per_query.per_query(analysis.by_object)
    yield from _of_groups(analysis)
    curves = {name: found.curve for name, found in analysis.derived.items() if found.curve is not None}
    yield database.distractors(curves, k=analysis.measured[0].evaluation.protocol.k)
    yield database.mini([found.mini for found in analysis.derived.values() if found.mini is not None])
    yield settings.dimensions(analysis.measured)
    yield tables.reranking(analysis.measured)
    yield tables.resolution(analysis.measured)
    for name, sweep in analysis.sweeps:
        yield sweep_exhibit(name, sweep)
    yield from analysis.studies


def _of_groups(analysis: Analysis) -> Iterator[Exhibit | None]:
    edges = edges_of(analysis.benchmark)
    for attribute in ATTRIBUTES:
        yield groups.groups(analysis.measured, attribute)
        with_quartiles = [one for one in analysis.measured if attribute in _quartiles(analysis, one)]
        if attribute in edges and with_quartiles:
            found = [_quartiles(analysis, one)[attribute] for one in with_quartiles]
            yield groups.groups(with_quartiles, attribute, edges=edges[attribute], found=found)
    best = max(analysis.measured, key=lambda one: one.evaluation.map)
    # A list of the whole database leaves no rank open.
    whole = best.database_size is not None and best.database_size <= best.evaluation.depth
    depth = max(best.evaluation.protocol.k, RANK_EDGES[-1] + 1) if whole else best.evaluation.protocol.k
    for attribute in ATTRIBUTES:
        known = values_of(analysis.benchmark, attribute)
        named = zip(analysis.benchmark.positives, known.tolist(), strict=True)
        values = {item: value for item, value in named if not np.isnan(value)}
        yield groups.ranks(best.name, best.evaluation.queries, values, attribute, depth=depth)


def _quartiles(analysis: Analysis, one: Measured) -> Mapping[Attribute, tuple[Group, ...]]:
    return analysis.derived[one.name].quartiles if one.name in analysis.derived else {}


def _by_model(measured: Sequence[Measured], *, adapted: bool) -> dict[settings.Key, Measured]:
    """Return the plain run of each model that is known by its name, and at which k it was evaluated."""
    found: dict[settings.Key, Measured] = {}
    for one in measured:
        protocol = one.evaluation.protocol
        if one.plain and one.adapted == adapted and one.model not in UNNAMED:
            found.setdefault((one.model, protocol.k), one)
    return found


def best_of_models(aligned: Aligned) -> Exhibit:
    """Return what choosing the best model for each query would reach, models put together one by one."""
    found = oracle_of_models(aligned)
    columns = (
        Column("models", "models"),
        Column("added", "with"),
        Column("map", "mAP of the best per query, %", 2),
        Column("gain", "gain", 2, signed=True),
        Column("alone", "alone, %", 2),
    )
    rows, before = [], 0.0
    for number, (name, value) in enumerate(found, start=1):
        alone = float(aligned.ap[:, aligned.names.index(name)].mean())
        rows.append((number, name, 100 * value, None if number == 1 else 100 * (value - before), 100 * alone))
        before = value
    note = "Each line adds the model that raises it most: a bound for ensembles and for choosing a model by the query."
    table = Table("mAP if for every query the best model were known.", columns, tuple(rows), notes=(note,))
    return Exhibit("best-of-models", "", table)


_MAKERS: tuple[Callable[[Analysis], Iterator[Exhibit | None]], ...] = (_of_models, _of_the_paper, _of_the_benchmark)
