"""A report site of three small runs on the generated benchmark, one of them re-ranked."""

from __future__ import annotations

from pathlib import Path

from openilias.experiments.experiment import read_experiment
from openilias.experiments.report import report_site
from openilias.experiments.run import RunResult, run_experiment

TEXT = """
benchmark: {root}
model: resnet10t
random_weights: 0
protocol: {{resolution: 64, k: 18}}
out: runs
rerank: {{method: none, model: sift, resolution: 128, most: 60, query_descriptors: 60, descriptors: 60, bits: null,
  shortlist: 18, global_weight: 0.1, gamma: 0.1}}
table: "4"
variants:
  global: {{}}
  αQE1: {{protocol.expand: {{n: 1, alpha: 1.0}}}}
  SP: {{rerank.method: spatial}}
"""


def make_runs(folder: Path, root: Path) -> list[RunResult]:
    """Make the runs in a folder."""
    path = folder / "experiment.yaml"
    path.write_text(TEXT.format(root=root), encoding="utf-8")
    return [run_experiment(experiment) for experiment in read_experiment(path)]


def make_site(folder: Path, root: Path) -> Path:
    """Make the runs and their site; return its first page."""
    made = make_runs(folder, root)
    names = ("plain", "αQE1", "SP <b>")
    runs = [f"{name}={run.folder}" for name, run in zip(names, made, strict=True)]
    return report_site(runs, folder / "site")
