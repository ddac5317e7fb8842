"""The table that the runs of a matrix make, as the paper has it, with the published numbers beside ours."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from openilias.core.errors import OpenIliasError
from openilias.experiments.experiment import Experiment
from openilias.models.record import find_record
from openilias.models.zoo import find_model
from openilias.published import Cell, domains, methods, reranked_by_method, reranked_by_model, resolutions

CHOSEN = "*"
"""Marks the resolution that the rule chooses for a model (:attr:`ModelSpec.test_resolution`)."""
_PAPER = "paper"
_ADAPTED = " †"


@dataclass(frozen=True)
class Study:
    """A table, mAP@k in percent.

    Attributes:
        title: what it shows, and what the published numbers are.
        header: of the columns.
        rows: as text.
    """

    title: str
    header: list[str]
    rows: list[list[str]]

    def markdown(self) -> str:
        """Return it as Markdown."""
        lines = [self.header, ["---", *["---:"] * (len(self.header) - 1)], *self.rows]
        return f"{self.title}\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines)


def study_of(experiments: Sequence[Experiment], maps: Sequence[float], oracles: Sequence[float] = ()) -> Study | None:
    """Lay out the runs of a matrix.

    Args:
        experiments: of the runs.
        maps: mAP@k in [0, 1], one for each.
        oracles: of them; Tables 4 and F show both.

    Returns:
        The table that the experiment names; that of Table C if only models and resolutions differ; None if there is no
        such table.

    Raises:
        OpenIliasError: two runs belong into one place of the table.
    """
    kind = experiments[0].table
    if kind is None:
        sides = {experiment.protocol.resolution for experiment in experiments}
        alone = len({(e.model, e.protocol.resolution) for e in experiments}) == len(experiments)
        kind = "C" if alone and None not in sides and len(sides) > 1 else None
    if kind in _RERANKING:
        return _reranking(experiments, maps, oracles, kind)
    return None if kind is None else _KINDS[kind](experiments, maps)


def _resolutions(experiments: Sequence[Experiment], maps: Sequence[float]) -> Study:
    found = _placed(experiments, maps, lambda experiment: str(experiment.protocol.resolution))
    published = _published(resolutions())
    sides = sorted({side for side, _ in found}, key=lambda side: (len(side), side))
    rows = []
    for model in dict.fromkeys(model for _, model in found):
        spec = find_model(model)
        marks = {str(spec.test_resolution): CHOSEN}
        cells = [
            text
            for side in sides
            for text in (_text(found.get((side, model)), marks.get(side, "")), published.get((side, model), ""))
        ]
        rows.append([model, str(spec.train_resolution), *cells])
    rule = f"{CHOSEN} = chosen by the rule, one step above training"
    return Study(
        f"mAP by test resolution; {rule}. {_PAPER}: Table C, mini-ILIAS",
        *_without_empty(["model", "train px", *(name for side in sides for name in (f"{side} px", _PAPER))], rows),
    )


def _methods(experiments: Sequence[Experiment], maps: Sequence[float]) -> Study:
    names = {"none": "no adaptation", "pcaw": "PCAw", "lw": "Lw", "ujcds": "UJCDS"}
    found = _placed(experiments, maps, lambda experiment: experiment.adapt.method if experiment.adapt else "none")
    title = f"mAP by the way to adapt. {_PAPER}: Table D, ILIAS with 100M distractors, learned from UnED"
    return _beside(title, "adaptation", found, names, methods())


def _domains(experiments: Sequence[Experiment], maps: Sequence[float]) -> Study:
    found = _placed(experiments, maps, _domain_of)
    known = {"none": "no adaptation", **{name: name for name, _ in found if name not in ("none", "all")}, "all": "all"}
    title = f"mAP by the domains of the training set. {_PAPER}: Table E, ILIAS with 100M distractors, UnED"
    return _beside(title, "learned from", found, known, domains())


def _domain_of(experiment: Experiment) -> str:
    step = experiment.adapt
    if step is None or step.method == "none":
        return "none"
    return "all" if step.domains is None else " + ".join(step.domains)


def _dimensions(experiments: Sequence[Experiment], maps: Sequence[float]) -> Study:
    found = _placed(experiments, maps, lambda experiment: str(experiment.adapt.dim if experiment.adapt else "none"))
    dims = sorted({dim for dim, _ in found}, key=lambda dim: (len(dim), dim))
    rows = [
        [model, *(_text(found.get((dim, model))) for dim in dims)]
        for model in dict.fromkeys(model for _, model in found)
    ]
    title = "mAP by the dimensions of the adapted descriptor. The paper (Fig. G): saturated from 256 on, for all models"
    return Study(title, ["model", *dims], rows)


def _seeds(experiments: Sequence[Experiment], maps: Sequence[float]) -> Study:
    found = _placed(experiments, maps, lambda experiment: str(experiment.adapt.seed if experiment.adapt else "none"))
    seeds = list(dict.fromkeys(seed for seed, _ in found))
    rows = []
    for model in dict.fromkeys(model for _, model in found):
        values = [100 * found[seed, model] for seed in seeds if (seed, model) in found]
        spread = f"{statistics.stdev(values):.2f}" if len(values) > 1 else ""
        rows.append(
            [model, *(_text(found.get((seed, model))) for seed in seeds), f"{statistics.mean(values):.1f}", spread]
        )
    title = "mAP by the seed of the adaptation. The paper (B.2): a standard deviation of at most 0.2 over three seeds"
    return Study(title, ["model", *(f"seed {seed}" for seed in seeds), "mean", "std"], rows)


def _boxes(experiments: Sequence[Experiment], maps: Sequence[float]) -> Study:
    title = (
        "mAP by what is done to the boxes of the positives. The paper (B.1), SigLIP adapted, 100M distractors: 28.9 as "
        "they are, 62.4 masked, 69.4 cropped"
    )
    return _by_variant(title, "boxes of positives", experiments, maps)


def _views(experiments: Sequence[Experiment], maps: Sequence[float]) -> Study:
    title = (
        "mAP by the views of the queries, and the difference to one view. The paper (B.1): scales gain 0.4 on average, "
        "SigLIP 0.1; rotations lose 0.3, SigLIP gains 0.2"
    )
    return _by_variant(title, "views of queries", experiments, maps)


def _by_variant(title: str, heading: str, experiments: Sequence[Experiment], maps: Sequence[float]) -> Study:
    found = _placed(experiments, maps, lambda experiment: experiment.variant or "none", _column_of)
    variants = list(dict.fromkeys(variant for variant, _ in found))
    columns = list(dict.fromkeys(column for _, column in found))
    rows = []
    for variant in variants:
        cells = [variant]
        for column in columns:
            value, plain = found.get((variant, column)), found.get(("none", column))
            cells += [_text(value), "" if value is None or plain is None else f"{100 * (value - plain):+.1f}"]
        rows.append(cells)
    return Study(title, [heading, *(name for column in columns for name in (column, "difference"))], rows)


def _reranking(experiments: Sequence[Experiment], maps: Sequence[float], oracles: Sequence[float], kind: str) -> Study:
    published, title = _RERANKING[kind]
    known = {(row.method, row.model, row.adapted): row for row in published()}
    found = _placed(experiments, maps, _variant_of, _column_of)
    bounds = _placed(experiments, oracles or maps, _variant_of, _column_of)
    columns = list(dict.fromkeys(_column_of(experiment) for experiment in experiments))
    own = {}
    for experiment in experiments:
        record = find_record(experiment.model)
        name = experiment.model if record is None else record.name
        own[_column_of(experiment)] = name, _column_of(experiment).endswith(_ADAPTED)
    rows = []
    for variant in dict.fromkeys(map(_variant_of, experiments)):
        cells = [variant]
        for column in columns:
            row = known.get((variant, *own[column]))
            both = "" if row is None else f"{row.map:.1f}, {row.oracle:.1f}"
            mini = "" if row is None or row.mini is None else f"{row.mini:.1f}, {row.mini_oracle:.1f}"
            cells += [_text(found.get((variant, column))), _text(bounds.get((variant, column))), both, mini]
        rows.append(cells)
    header = ["re-ranking", *(name for column in columns for name in (column, "oracle", _PAPER, f"{_PAPER}, mini"))]
    return Study(title, *_without_empty(header, rows))


def _variant_of(experiment: Experiment) -> str:
    if experiment.variant is not None:
        return experiment.variant
    return "global" if experiment.reranks is None else experiment.reranks.method


def _column_of(experiment: Experiment) -> str:
    adapted = experiment.adapt is not None and experiment.adapt.method != "none"
    return experiment.model + (_ADAPTED if adapted else "")


_RERANKING = {
    "4": (reranked_by_method, "mAP and oracle by the way to re-rank. paper: Table 4, ILIAS with 100M distractors"),
    "F": (
        reranked_by_model,
        "mAP and oracle with re-ranking and without. paper: Table F, 100M distractors, and mini-ILIAS",
    ),
}
_KINDS = {
    "C": _resolutions,
    "D": _methods,
    "E": _domains,
    "dimensions": _dimensions,
    "seeds": _seeds,
    "boxes": _boxes,
    "views": _views,
}
Found = dict[tuple[str, str], float]


def _placed(
    experiments: Sequence[Experiment],
    maps: Sequence[float],
    setting: Callable[[Experiment], str],
    column: Callable[[Experiment], str] = lambda experiment: experiment.model,
) -> Found:
    found: Found = {}
    for experiment, value in zip(experiments, maps, strict=True):
        place = setting(experiment), column(experiment)
        if place in found:
            raise OpenIliasError(
                f"Two runs belong into one place of this table: {place[1]}, {place[0]}.",
                fix="Leave 'table' out, or vary only what it shows.",
            )
        found[place] = value
    return found


def _published(cells: Sequence[Cell]) -> dict[tuple[str, str], str]:
    return {(cell.setting, cell.model): f"{cell.value:.1f}" for cell in cells}


def _beside(title: str, heading: str, found: Found, names: dict[str, str], cells: Sequence[Cell]) -> Study:
    published = _published(cells)
    models = list(dict.fromkeys(model for _, model in found))
    records = {model: find_record(model) for model in models}
    own = {model: model if record is None else record.name for model, record in records.items()}
    rows = [
        [
            name,
            *(
                text
                for model in models
                for text in (_text(found.get((setting, model))), published.get((setting, own[model]), ""))
            ),
        ]
        for setting, name in names.items()
        if any((setting, model) in found for model in models)
    ]
    return Study(title, *_without_empty([heading, *(name for model in models for name in (model, _PAPER))], rows))


def _text(value: float | None, mark: str = "") -> str:
    return "" if value is None else f"{100 * value:.1f}{mark}"


def _without_empty(header: list[str], rows: list[list[str]]) -> tuple[list[str], list[list[str]]]:
    """Leave out columns of published numbers in which there is none."""
    kept = [n for n, name in enumerate(header) if not name.startswith(_PAPER) or any(row[n] for row in rows)]
    return [header[place] for place in kept], [[row[place] for place in kept] for row in rows]
