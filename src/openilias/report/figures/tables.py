"""The tables of the paper for any model, with the published row beside ours (Tables 1, 2, 4, A, C, F, G and H)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from openilias.models.record import Record
from openilias.published import (
    Value,
    image_rows,
    printed,
    reranked_by_method,
    reranked_by_model,
    resolutions,
    text_rows,
)
from openilias.report.figures.exhibit import Exhibit
from openilias.report.figures.measured import Measured, labels, map_label, on_benchmarks
from openilias.report.layout import Column, Table, printed_table

_OTHER = "paper: ILIAS with 100M distractors; on another database the difference is that of the databases."


def models(measured: Sequence[Measured], intervals: Mapping[str, tuple[float, float]] | None = None) -> Exhibit:
    """Return the main table: what each model is, its mAP and oracle, and the published number (Tables 2, G and H).

    Args:
        measured: the models.
        intervals: confidence interval of the mAP of each, in [0, 1].
    """
    columns = (
        Column("run", "run"),
        Column("model", "model"),
        Column("year", "year"),
        Column("arch", "arch"),
        Column("train", "train"),
        Column("dataset", "dataset"),
        Column("data_size", "data size"),
        Column("dims", "dims"),
        Column("train_res", "train res"),
        Column("test_res", "test res"),
        Column("adapted", "adapted"),
        Column("queries", "queries"),
        Column("map", map_label(measured), best="high"),
        *((Column("low", "95 % from"), Column("high", "to")) if intervals else ()),
        Column("oracle", "oracle", best="high"),
        Column("paper", "paper"),
        Column("difference", "difference", signed=True),
    )
    rows = []
    for one in sorted(measured, key=lambda one: -one.evaluation.map):
        record, value = one.record, 100 * one.evaluation.map
        known = published_map(one)
        interval = (None, None) if intervals is None or one.name not in intervals else intervals[one.name]
        rows.append(
            (
                one.name,
                one.model,
                *_about(record),
                one.dims,
                None if record is None else record.model.train_resolution,
                one.resolution,
                "yes" if one.adapted else "no",
                one.queries,
                value,
                *((None if end is None else 100 * end for end in interval) if intervals else ()),
                100 * one.evaluation.oracle,
                known,
                None if known is None else value - known,
            )
        )
    beside = any(published_map(one) is not None for one in measured)
    notes = (_OTHER,) if beside and not all(one.full for one in measured) else ()
    title = f"Models by {map_label(measured)}; {on_benchmarks(measured)}."
    return Exhibit("table-2-models", "Tables 2, G, H", Table(title, columns, tuple(rows), notes=notes))


def _about(record: Record | None) -> tuple[Value, ...]:
    if record is None:
        return (None,) * 5
    return record.year, record.kind, record.training, record.dataset, record.data_size


def published_map(one: Measured) -> float | None:
    """Return the published mAP@1k in % of the same model, adaptation, queries and re-ranking; None if there is none."""
    if one.record is None or one.queries == "both" or not as_the_paper(one):
        return None
    names = {one.record.name, *one.record.also}
    if one.reranked is not None:
        method = {"chamfer": "CS", "spatial": "SP", "ames": "AMES"}.get(one.reranked)
        known = [*reranked_by_method(), *reranked_by_model()]
        found = [r.map for r in known if (r.method, r.adapted) == (method, one.adapted) and r.model in names]
        return found[0] if found and one.queries == "image" else None
    if one.evaluation.protocol.expand is not None:
        return None
    if one.queries == "text":
        texts = [row.map_100m for row in text_rows() if row.checkpoint in names]
        return texts[0] if texts and not one.adapted else None
    rows = [row for row in image_rows() if row.checkpoint in names]
    return None if not rows else rows[0].map_100m_adapted if one.adapted else rows[0].map_100m


def as_the_paper(one: Measured) -> bool:
    """Tell whether a run was made as the paper makes its numbers, whatever the database."""
    p, record = one.evaluation.protocol, one.record
    plain = p.query_boxes == p.positive_boxes == "none" and p.scales == (1.0,) and p.rotations == (0,)
    right = record is not None and one.resolution == record.model.test_resolution
    return plain and right and p.k == 1000 and not (one.random_weights or one.evaluation.unsearched)


def rerank_name(one: Measured) -> str:
    """Return how Table 4 calls the way a run ranks."""
    if one.reranked is not None:
        return {"chamfer": "CS", "spatial": "SP", "ames": "AMES"}.get(one.reranked, one.reranked)
    expand = one.evaluation.protocol.expand
    return "global" if expand is None else f"αQE{expand.n}"


def reranking(measured: Sequence[Measured]) -> Exhibit | None:
    """Return mAP and oracle by the way to re-rank, by model (Tables 4 and F); None without re-ranking."""
    images = [one for one in measured if one.queries == "image"]
    ways = list(dict.fromkeys(map(rerank_name, images)))
    if ways in ([], ["global"]):
        return None
    order = ["global", "αQE1", "αQE2", "αQE5", "CS", "SP", "AMES"]
    ways.sort(key=lambda way: (order.index(way) if way in order else len(order), way))
    found: dict[tuple[str, bool, str], dict[str, Measured]] = {}
    for one in images:
        found.setdefault((one.model, one.adapted, one.descriptors), {}).setdefault(rerank_name(one), one)
    groups = [of for of in found.values() if set(of) != {"global"}]
    ways = [way for way in ways if any(way in of for of in groups)]
    first = [next(iter(of.values())) for of in groups]
    columns, rows = [Column("reranking", "re-ranking")], []
    for name in labels(first, [one.model + (" †" if one.adapted else "") for one in first]):
        columns += [
            Column(f"{name} map", f"{name}, mAP", best="high"),
            Column(f"{name} oracle", "oracle", best="high"),
            Column(f"{name} paper", "paper"),
        ]
    for way in ways:
        line: list[Value] = [way]
        for of in groups:
            line += _reranked(of[way], way) if way in of else [None] * 3
        rows.append(tuple(line))
    full = all(one.full for one in images)
    kept = [n for n, column in enumerate(columns) if not column.key.endswith(" paper") or any(row[n] for row in rows)]
    table = Table(
        f"mAP and oracle in % by the way to re-rank; {on_benchmarks(images)}. †: adapted.",
        tuple(columns[n] for n in kept),
        tuple(tuple(row[n] for n in kept) for row in rows),
        notes=(_OTHER,) if any(columns[n].key.endswith(" paper") for n in kept) and not full else (),
    )
    return Exhibit("table-4-reranking", "Tables 4, F", table)


def _reranked(one: Measured, way: str) -> list[Value]:
    return [100 * one.evaluation.map, 100 * one.evaluation.oracle, _published_reranked(one, way)]


def _published_reranked(one: Measured, way: str) -> float | None:
    if one.record is None or not as_the_paper(one):
        return None
    names = {one.record.name, *one.record.also}
    known = [*reranked_by_method(), *reranked_by_model()]
    found = [r.map for r in known if (r.method, r.adapted) == (way, one.adapted) and r.model in names]
    return found[0] if found else None


def resolution(measured: Sequence[Measured]) -> Exhibit | None:
    """Return mAP of each model by test resolution (Table C); None if no model has several.

    A line has runs that differ in nothing else.
    """
    images = [one for one in measured if one.queries == "image" and not one.adapted and one.reranked is None]
    alike: dict[tuple[str, str], dict[int, Measured]] = {}
    for one in images:
        if one.resolution is not None and one.evaluation.protocol.expand is None:
            alike.setdefault((one.model, one.but_resolution), {}).setdefault(one.resolution, one)
    alike = {key: sizes for key, sizes in alike.items() if len(sizes) > 1}
    if not alike:
        return None
    first = [next(iter(sizes.values())) for sizes in alike.values()]
    found = dict(zip(labels(first, [model for model, _ in alike]), alike.values(), strict=True))
    sides = sorted({side for sizes in found.values() for side in sizes})
    published = {(cell.model, int(cell.setting)): cell.value for cell in resolutions()}
    columns = (Column("model", "model"), Column("train_res", "train res"), *(Column(f"map_{s}", str(s)) for s in sides))
    rows, marks, beside = [], set(), []
    for model, sizes in found.items():
        record = next(iter(sizes.values())).record
        rows.append(
            (
                model,
                None if record is None else record.model.train_resolution,
                *(100 * sizes[side].evaluation.map if side in sizes else None for side in sides),
            )
        )
        if record is not None and record.model.test_resolution in sides:
            marks.add((len(rows) - 1, 2 + sides.index(record.model.test_resolution)))
        name = next(iter(sizes.values())).model
        known = [f"{side}: {published[name, side]:.1f}" for side in sides if (name, side) in published]
        beside += [f"paper (mini-ILIAS), {name}: {', '.join(known)}."] if known else []
    notes = ("‡ the resolution that the rule chooses: one step above that of the training.", *beside)
    title = f"mAP in % by test resolution in pixels; {on_benchmarks(images)}."
    return Exhibit("table-c-resolution", "Table C", Table(title, columns, tuple(rows), frozenset(marks), notes))


@dataclass(frozen=True)
class Dataset:
    """A line of Table 1; numbers are those of the benchmark, None where they are not known."""

    name: str
    objects: int
    queries: int
    positives: int
    database: int | None
    boxes: bool


def datasets(ours: Sequence[Dataset]) -> Exhibit:
    """Return Table 1 with lines for other benchmarks."""
    paper = printed_table(printed("1"))
    rows = tuple(
        (
            one.name,
            None,
            f"{one.objects:,}",
            f"{one.queries:,}",
            f"{one.positives:,}",
            None if one.database is None else f"{one.database:,}",
            *(None,) * 3,
            "yes" if one.boxes else "no",
            *(None,) * 2,
        )
        for one in ours
    )
    table = Table(paper.title, paper.columns, (*paper.rows, *rows), paper.marks, paper.notes)
    return Exhibit("table-1-datasets", "Table 1", table)


def cameras(name: str, counts: Mapping[str, int], images: int) -> Exhibit | None:
    """Return which cameras took the images (Table A); None if no image says.

    Args:
        name: of the benchmark.
        counts: camera -> images, of queries and positives.
        images: all of them.
    """
    if not counts:
        return None
    paper = {str(row[0]): row[3] for row in printed("A").rows}
    beside = any(camera in paper for camera in counts)
    columns = (
        Column("camera", "camera"),
        Column("images", "images"),
        *((Column("paper", "paper"),) if beside else ()),
    )
    order = sorted(counts, key=lambda camera: (-counts[camera], camera))
    rows = tuple((camera, counts[camera], *((paper.get(camera),) if beside else ())) for camera in order)
    known = sum(counts.values())
    title = f"Cameras of the queries and positives of {name}: {known:,} of {images:,} images say."
    return Exhibit("table-a-cameras", "Table A", Table(title, columns, rows))
