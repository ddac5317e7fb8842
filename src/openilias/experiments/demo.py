"""The demo: the whole way on a generated test set, offline."""

from __future__ import annotations

from pathlib import Path

from openilias.build.generated.synth import SynthSettings, build_synth
from openilias.experiments.experiment import Experiment, FitStep
from openilias.experiments.run import Resources, RunResult, run_experiment


def run_demo(
    out: Path, *, objects: int = 50, distractors: int = 1000, seed: int = 0, workers: int | None = None
) -> RunResult:
    """Generate a benchmark, fit ``sift_vlad`` on its distractors, and run the experiment on it.

    Args:
        out: folder; a demo begun there with the same numbers continues.
        objects: how many.
        distractors: how many.
        seed: of everything.
        workers: processes and threads; all cores by default.
    """
    settings = SynthSettings(objects=objects, distractors=distractors, seed=seed)
    build_synth(out / "benchmark", settings, workers=workers)
    experiment = Experiment(
        benchmark=out / "benchmark",
        model="sift_vlad",
        # The pictures are small and clean: fewer pixels and keypoints than for photographs keep the demo short.
        fit=FitStep(resolution=384, keypoints=600, words=32, dims=1000, word_images=150, seed=seed),
        out=out / "run",
    )
    return run_experiment(experiment, Resources(workers=workers))
