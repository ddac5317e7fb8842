"""What the linear adaptation is worth: mAP before and after, for every method, with single domains, over seeds.

    python benchmarks/adaptation.py                                     made-up descriptors, a minute
    python benchmarks/adaptation.py --benchmark PHOTOS --weights DIR    besides: real backbones, learned on a generated
                                                                        training split, tested on other generated
                                                                        objects and on real photographs

Made-up descriptors: four domains; objects of a domain differ along directions of its own, and pictures of one object
along directions that all domains share and that are stronger (light, ground, view), and along some of its own domain.
Learned from 150 objects of each domain; tested on 50 others of each, one picture of each as query.

`DIR` holds the files `mobilenetv2_100_tf_in1k.safetensors` and `tf_efficientnet_lite0_features.safetensors`. The runs
are those of `ilias run`.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from openilias.adapt.linear import adapt
from openilias.adapt.methods import Method
from openilias.adapt.train import Recipe, train
from openilias.adapt.ujcds import Settings
from openilias.build.generated.synth import SynthSettings, build_synth
from openilias.core.manifests import write_manifest
from openilias.core.protocol import Protocol
from openilias.data import TrainingSet
from openilias.descriptors.store import DescriptorStore, open_store, write_shard
from openilias.evaluate.metrics import average_precision
from openilias.experiments.adapting import AdaptStep
from openilias.experiments.experiment import Experiment
from openilias.experiments.run import run_experiment

Array = npt.NDArray[np.float32]
DOMAINS, OBJECTS, TESTED, PICTURES, DIMS, NOISE = 4, 150, 50, 6, 256, 5.0
SEEDS = (0, 1, 2)
EPOCHS = 30  # of a training set of some thousands; the paper: 2 of a million
MODELS = {
    "MobileNetV2": ("mobilenetv2_100.tf_in1k", "mobilenetv2_100_tf_in1k.safetensors"),
    "EfficientNet-Lite0": ("tf_efficientnet_lite0.features", "tf_efficientnet_lite0_features.safetensors"),
}


class World:
    """Where made-up descriptors come from."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.signals = rng.normal(size=(DOMAINS, 24, DIMS))
        self.shared = rng.normal(size=(24, DIMS))
        self.own = rng.normal(size=(DOMAINS, 8, DIMS))
        self.rng = rng

    def draw(self, objects: int) -> tuple[Array, list[str], list[str]]:
        """Return descriptors with the names of their objects and domains."""
        rows, labels, domains = [], [], []
        for domain in range(DOMAINS):
            for number in range(objects):
                center = self.rng.normal(size=24) @ self.signals[domain]
                for _ in range(PICTURES):
                    light = 2.5 * self.rng.normal(size=24) @ self.shared
                    ground = 1.5 * self.rng.normal(size=8) @ self.own[domain]
                    rows.append(center + light + ground + NOISE * self.rng.normal(size=DIMS))
                    labels.append(f"{number}")
                    domains.append(f"domain {domain}")
        vectors = np.array(rows)
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype("f4"), labels, domains


def store_of(folder: Path, vectors: Array) -> DescriptorStore:
    """Write descriptors."""
    folder.mkdir(parents=True)
    made_from = {"partition": "train", "model": "made up", "dims": vectors.shape[1]}
    write_manifest(
        folder / "manifest.json", kind="descriptor store", made_from=made_from, sources=["all"], dims=vectors.shape[1]
    )
    ids = [f"{row}.jpg" for row in range(len(vectors))]
    write_shard(folder, 0, source="all", ids=ids, descriptors=vectors, skipped=[])
    return open_store(folder)


def mean_ap(vectors: Array, classes: npt.NDArray[Any]) -> float:
    """Return the mAP of the first picture of each object, searched in all others."""
    asked = np.unique(classes, return_index=True)[1]
    rest = np.setdiff1d(np.arange(len(classes)), asked)
    scores = vectors[asked] @ vectors[rest].T
    order = np.argsort(-scores, axis=1, kind="stable")
    relevant = classes[rest][order] == classes[asked][:, None]
    scores = np.take_along_axis(scores, order, axis=1)
    return float(average_precision(scores, relevant, relevant.sum(1), k=len(rest)).mean())


def made_up() -> None:
    """Compare methods on made-up descriptors."""
    methods: dict[str, tuple[Method, tuple[str, ...] | None]] = {
        "PCAw": ("pcaw", None),
        "Lw": ("lw", None),
        **{f"UJCDS, domain {number} alone": ("ujcds", (f"domain {number}",)) for number in range(DOMAINS)},
        "UJCDS, all domains": ("ujcds", None),
    }
    found: dict[str, list[float]] = {"no adaptation": [], **{name: [] for name in methods}}
    for seed in SEEDS:
        world = World(seed)
        vectors, labels, domains = world.draw(OBJECTS)
        tested, test_labels, test_domains = world.draw(TESTED)
        classes = np.unique([f"{d} {o}" for d, o in zip(test_domains, test_labels, strict=True)], return_inverse=True)[
            1
        ]
        found["no adaptation"].append(mean_ap(tested, classes))
        with tempfile.TemporaryDirectory() as folder:
            store = store_of(Path(folder) / "store", vectors)
            ids = tuple(f"{row}.jpg" for row in range(len(vectors)))
            training = TrainingSet(Path(folder), ids, tuple(labels), tuple(domains))
            for name, (method, chosen) in methods.items():
                settings = Settings(dim=96, epochs=20, batch=64, held_out=0, seed=seed)
                made = train(store, training, Recipe(method, settings, chosen), Path(folder) / name)
                found[name].append(mean_ap(adapt(made.layer, tested), classes))
    print(f"\nmade-up descriptors, mAP of {DOMAINS * TESTED} objects, seeds {SEEDS}\n")
    show(found)


def with_networks(benchmark: Path, weights: Path, folder: Path, instances: int) -> None:
    """Compare methods on other generated objects and on real photographs, with the same layers."""
    objects, generated = 60, folder / "generated"
    settings = SynthSettings(objects=objects, distractors=400, train=instances, train_images=(4, 6), size=384)
    build_synth(generated, settings)
    lines: dict[str, dict[str, Any]] = {
        "no adaptation": {"method": "none"},
        "PCAw": {"method": "pcaw"},
        "Lw": {"method": "lw"},
        **{f"UJCDS, {name} alone": {"domains": (name,)} for name in largest(generated)},
        "UJCDS, all domains": {},
    }
    for name, (model, file) in MODELS.items():
        on_photographs: dict[str, list[float]] = {}
        on_generated: dict[str, list[float]] = {}
        for line, change in lines.items():
            for seed in SEEDS if change.get("method") not in ("none", "pcaw") else SEEDS[:1]:
                out = folder / name / f"{line} {seed}".replace(" ", "_")
                learned = AdaptStep(train=generated, epochs=EPOCHS, held_out=0, seed=seed, **change)
                first = Experiment(
                    benchmark=benchmark,
                    model=model,
                    weights=weights / file,
                    protocol=Protocol(resolution=384, resize="pad"),
                    adapt=learned,
                    stores=folder / name / "stores",
                    out=out,
                )
                on_photographs.setdefault(line, []).append(run_experiment(first).evaluation.map)
                there = AdaptStep(file=out / "adaptation") if learned.method != "none" else learned
                places = {"stores": folder / name / "stores of generated", "out": Path(f"{out}_generated")}
                second = first.model_copy(update={"benchmark": generated, "adapt": there, **places})
                on_generated.setdefault(line, []).append(run_experiment(second).evaluation.map)
        print(f"\n{name}, layers learned from {instances} generated objects; mAP@1k on {objects} others\n")
        show(on_generated)
        print(f"\n{name}, the same layers; mAP@1k on the photographs\n")
        show(on_photographs)


def largest(folder: Path) -> list[str]:
    """Return the two domains with the most images."""
    from collections import Counter

    from openilias.data import read_training_set

    return [name for name, _ in Counter(read_training_set(folder).domains).most_common(2)]


def show(found: dict[str, list[float]]) -> None:
    """Print a table in Markdown."""
    print("| adaptation | mAP | std over seeds |\n|---|---:|---:|")
    for name, values in found.items():
        spread = f"{100 * statistics.stdev(values):.2f}" if len(values) > 1 else ""
        print(f"| {name} | {100 * statistics.mean(values):.1f} | {spread} |")


def main() -> None:
    """Run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--benchmark", type=Path)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--instances", type=int, default=1200)
    parser.add_argument("--folder", type=Path, help="keep what is made")
    options = parser.parse_args()
    made_up()
    if options.benchmark:
        if options.folder:
            with_networks(options.benchmark, options.weights, options.folder, options.instances)
            return
        with tempfile.TemporaryDirectory() as folder:
            with_networks(options.benchmark, options.weights, Path(folder), options.instances)


if __name__ == "__main__":
    main()
