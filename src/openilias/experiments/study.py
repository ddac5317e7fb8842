"""The table of a resolution study: models by test resolution, as Table C of the paper."""

from __future__ import annotations

from collections.abc import Sequence

from openilias.experiments.experiment import Experiment
from openilias.models.zoo import find_model

CHOSEN = "*"
"""Marks the resolution that the rule chooses for a model (:attr:`ModelSpec.test_resolution`)."""


def resolution_table(
    experiments: Sequence[Experiment], maps: Sequence[float]
) -> tuple[list[str], list[list[str]]] | None:
    """Lay out mAP@k in percent by model and resolution.

    Args:
        experiments: of the runs.
        maps: in [0, 1], one for each.

    Returns:
        The header and a row for each model, in the order of the experiments; None unless the runs differ in resolution.
    """
    found: dict[str, dict[int, float]] = {}
    for experiment, value in zip(experiments, maps, strict=True):
        if experiment.protocol.resolution is not None:
            found.setdefault(experiment.model, {})[experiment.protocol.resolution] = value
    resolutions = sorted({resolution for row in found.values() for resolution in row})
    if len(resolutions) < 2 or sum(map(len, found.values())) < len(experiments):
        return None
    rows = []
    for model, row in found.items():
        spec = find_model(model)
        marks = {spec.test_resolution: CHOSEN}
        cells = [f"{100 * row[side]:.1f}{marks.get(side, '')}" if side in row else "" for side in resolutions]
        rows.append([model, str(spec.train_resolution), *cells])
    return ["model", "train px", *(f"{resolution} px" for resolution in resolutions)], rows
