"""What re-ranking is worth: mAP and oracle as in Table 4, on generated pictures and on real photographs.

    python benchmarks/reranking.py --weights DIR --folder DIR --benchmark PHOTOS --local sift

Three generated sets without a thing in common: one to learn from (bits of ITQ, a teacher of AMES and its binary
student), one to tune the mix of global and local similarity on, one to test. Their positives are small and lie in
clutter. With the same bits, networks and mixes the photographs are re-ranked, none of which was seen before.

`DIR` of weights holds `mobilenetv2_100_tf_in1k.safetensors`, `tf_efficientnet_lite0_features.safetensors` and
`aliked_n16rot.safetensors`. All that is made lies in `--folder`; killed, it goes on.

    global          MobileNetV2, 512 pixels
    aQE1, 2, 5      query expansion, alpha 1
    ensemble        with EfficientNet-Lite0
    CS, SP          descriptors of 128 bits, 600 x 100, shortlists of 1,000
    AMES            three layers of 128 dimensions, inner ones of 256, 200 x 100 descriptors; learned with 100 x 60
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from openilias.build.knobs import Knobs
from openilias.build.synth import SynthSettings, build_synth
from openilias.core.ids import Partition
from openilias.core.protocol import Expand, Protocol
from openilias.data import Benchmark, read_ilias, read_training_set
from openilias.descriptors.extract import Options, extract
from openilias.descriptors.extract_local import LocalOptions, extract_local
from openilias.descriptors.local_store import LocalStore, open_local_store
from openilias.descriptors.store import open_store
from openilias.evaluate.evaluation import Evaluation, evaluate
from openilias.experiments.experiment import Experiment, SearchStep
from openilias.experiments.run import run_experiment
from openilias.experiments.tuning import tune_to
from openilias.models.local_backbone import LocalSettings
from openilias.models.local_zoo import load_local
from openilias.models.zoo import find_model, load_model
from openilias.rerank.ames import Ames
from openilias.rerank.ames_files import binarisation_of
from openilias.rerank.ames_learn import NETWORK, learn_ames_to
from openilias.rerank.ames_scores import open_ames
from openilias.rerank.ames_training import AmesSettings
from openilias.rerank.ensemble import Mix
from openilias.rerank.itq import Binarisation
from openilias.rerank.packing import ItqSettings, learn_itq_to, pack_store
from openilias.rerank.rerank import rerank_to
from openilias.rerank.similarities import Comparer, LocalStep
from openilias.rerank.spatial import SpatialSettings
from openilias.rerank.tuning import read_mix
from openilias.search.choice import Choice
from openilias.search.ensemble import ensemble_to
from openilias.search.members import read_member
from openilias.search.ranking import Ranking, read_ranking
from openilias.search.stores import search_to

PARTITIONS: tuple[Partition, ...] = ("image_queries", "positives", "distractors")
GLOBAL = ("mobilenetv2_100", "mobilenetv2_100_tf_in1k.safetensors")
SECOND = ("tf_efficientnet_lite0.features", "tf_efficientnet_lite0_features.safetensors")
PROTOCOL = Protocol(resolution=512)
KNOBS = Knobs(scale=(0.02, 0.15), clutter=(8, 30), viewpoint=(30, 30), occlusion=(0, 0.2))
SETS = {
    "test": SynthSettings(objects=60, distractors=1500, seed=101, knobs=KNOBS),
    "val": SynthSettings(objects=30, distractors=600, seed=102, knobs=KNOBS),
    "train": SynthSettings(objects=1, distractors=0, train=1200, seed=103, knobs=KNOBS),
}
WEIGHTS = tuple(n / 20 for n in range(21))
GAMMAS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


@dataclass(frozen=True)
class Place:
    """Where things are: the folder of all, of the weights, of the photographs; and which local descriptors."""

    folder: Path
    weights: Path
    photographs: Path | None
    local: str
    ames: AmesSettings

    def benchmark(self, name: str) -> Path:
        """Return the folder of a benchmark."""
        return self.photographs if name == "photographs" and self.photographs else self.folder / name

    @property
    def own(self) -> Path:
        """The folder of one kind of local descriptors."""
        return self.folder / self.local


def searched(place: Place, name: str, model: tuple[str, str], expand: Expand | None = None) -> Path:
    """Search a set by global descriptors; return the run."""
    label = model[0].split(".")[0]
    out = place.folder / "runs" / name / (label if expand is None else f"{label}-qe{expand.n}")
    experiment = Experiment(
        benchmark=place.benchmark(name),
        model=model[0],
        weights=place.weights / model[1],
        protocol=PROTOCOL.model_copy(update={"expand": expand}),
        search=SearchStep(k=1000),
        stores=place.folder / "runs" / name / "stores" / label,
        out=out,
    )
    run_experiment(experiment)
    return out


def described(place: Place, name: str) -> dict[str, LocalStore]:
    """Describe all images of a set by local descriptors."""
    weights = place.weights / "aliked_n16rot.safetensors" if place.local == "aliked" else None
    model = load_local(place.local, LocalSettings(resolution=500, most=600), weights=weights)
    source: Benchmark | object = read_ilias(place.benchmark(name)) if name != "train" else None
    options = LocalOptions(Options())
    if not isinstance(source, Benchmark):
        training = read_training_set(place.folder / "train")
        return {"train": extract_local(training, model, "train", place.own / "train" / "train", options)}
    return {p: extract_local(source, model, p, place.own / name / p, options) for p in PARTITIONS}


def packed(place: Place, name: str, stores: dict[str, LocalStore], bits: Binarisation) -> dict[str, LocalStore]:
    """Pack the local descriptors of a set."""
    found = {}
    for partition, store in stores.items():
        out = place.own / f"packed-{bits.digest[:8]}" / name / partition
        pack_store(store, bits, out)
        found[partition] = open_local_store(out)
    return found


def learned(place: Place, store: LocalStore, bits: Binarisation) -> Ames:
    """Learn a teacher, and the binary student of it; return the student."""
    training = read_training_set(place.folder / "train")
    backbone = load_model(
        find_model(GLOBAL[0]), Protocol(resolution=384), weights=place.weights / GLOBAL[1], random_weights=None
    )
    images = extract(training, backbone, "train", place.folder / "runs" / "train" / "store", Options())
    ranking = place.folder / "runs" / "train" / "ranking"
    search_to([images], [images], 200, ranking, Choice(self_matches="remove"))
    teacher = learn_ames_to(ranking, [store], training, place.ames, place.own / "ames-teacher")
    student = learn_ames_to(
        ranking, [store], training, place.ames, place.own / "ames", bits=bits, teacher=teacher.network
    )
    for name, one in (("teacher", teacher), ("student", student)):
        last = one.manifest["history"][-1]
        print(f"AMES, {name}: loss {last['loss']:.3f}, pairs of classes kept back told apart {last['told_apart']}")
    return student.network


def reranked(
    place: Place,
    name: str,
    method: str,
    run: Path,
    stores: dict[str, LocalStore],
    mix: Mix,
    by: Comparer | None,
) -> tuple[Ranking, float]:
    """Re-rank a set; return the ranking, and the seconds of a query."""
    step = LocalStep(
        method={"CS": "chamfer", "SP": "spatial", "AMES": "ames"}[method],
        query_descriptors=200 if method == "AMES" else 600,
        spatial=SpatialSettings(scales=place.local == "sift"),
    )
    out = place.own / "reranked" / f"{name}-{method}-{mix.global_weight:g}-{mix.gamma:g}"
    again = next(iter(sorted((place.own / "reranked").glob(f"{name}-{method}-*"))), None)
    queries, *database = (stores[partition] for partition in PARTITIONS)
    made = rerank_to(run / "ranking", [queries], database, step, mix, out, by=by, again=again)
    return made.ranking, made.manifest["seconds"] / len(made.ranking.query_ids)


def line(name: str, evaluation: Evaluation, note: str = "") -> str:
    """Return a line of the table."""
    small = evaluation.coverage[0].map if evaluation.coverage else None
    cluttered = evaluation.clutter[-1].map if evaluation.clutter else None
    parts = ("" if value is None else f"{100 * value:.1f}" for value in (small, cluttered))
    return f"| {name} | {100 * evaluation.map:.1f} | {100 * evaluation.oracle:.1f} | {' | '.join(parts)} | {note} |"


def table(place: Place, name: str, bits: Binarisation, student: Ames | None, mixes: dict[str, Mix]) -> None:
    """Print the table of a set."""
    benchmark = read_ilias(place.benchmark(name))

    def of(ranking: Ranking) -> Evaluation:
        return evaluate(ranking, benchmark, PROTOCOL)

    run = searched(place, name, GLOBAL)
    lines = [line("global", of(read_ranking(run / "ranking")[0]))]
    for count in (1, 2, 5):
        expanded = searched(place, name, GLOBAL, Expand(n=count, alpha=1.0))
        lines.append(line(f"αQE{count}", of(read_ranking(expanded / "ranking")[0])))
    second = searched(place, name, SECOND)
    stores = place.folder / "runs" / name / "stores"
    members = [
        read_member(one / "ranking", [open_store(stores / model[0].split(".")[0] / each) for each in PARTITIONS])
        for one, model in ((run, GLOBAL), (second, SECOND))
    ]
    both, _ = ensemble_to(members, place.folder / "runs" / name / "ensemble" / "ranking")
    lines += [
        line("EfficientNet-Lite0 alone", of(read_ranking(second / "ranking")[0])),
        line("ensemble of two", of(both)),
    ]
    local = described(place, name)
    for method, mix in mixes.items():
        own = packed(place, name, local, binarisation_of(student) if student and method == "AMES" else bits)
        by = open_ames(place.own / "ames" / NETWORK) if method == "AMES" else None
        ranking, seconds = reranked(place, name, method, run, own, mix, by)
        note = f"weight {mix.global_weight:g}, gamma {mix.gamma:g}; {seconds:.2f} s per query"
        lines.append(line(f"{method}, {place.local}", of(ranking), note))
    print(f"\n{name}: {len(benchmark.image_queries)} queries\n")
    print("| re-ranking | mAP | oracle | smallest positives | most cluttered | |\n|---|---:|---:|---:|---:|---|")
    print("\n".join(lines), flush=True)


def tuned(place: Place, bits: Binarisation, student: Ames | None) -> dict[str, Mix]:
    """Tune the mix of each method on the set that is there for it."""
    run, local = searched(place, "val", GLOBAL), described(place, "val")
    found = {}
    for method in ("CS", "SP", *(("AMES",) if student else ())):
        own = packed(place, "val", local, binarisation_of(student) if student and method == "AMES" else bits)
        by = open_ames(place.own / "ames" / NETWORK) if method == "AMES" else None
        mix = Mix(global_weight=0.5, gamma=0.1)
        reranked(place, "val", method, run, own, mix, by)
        path = place.own / f"mix-{method}.json"
        folder = place.own / "reranked" / f"val-{method}-0.5-0.1"
        tried = tune_to(folder, place.benchmark("val"), path, weights=WEIGHTS, gammas=GAMMAS, overwrite=True)
        found[method] = read_mix(path)
        print(f"{method}: mAP {100 * max(one.map for one in tried):.1f} on the set it is tuned on")
    return found


def main() -> None:
    """Run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True, help="of all that is made")
    parser.add_argument("--benchmark", type=Path, help="real photographs in the ILIAS layout")
    parser.add_argument("--local", choices=["sift", "aliked"], default="sift")
    parser.add_argument("--epochs", type=int, default=6, help="of AMES")
    parser.add_argument("--without-ames", action="store_true", help="a few minutes instead of an hour")
    options = parser.parse_args()
    settings = AmesSettings(
        layers=3,
        wide=256,
        epochs=options.epochs,
        batch=16,
        rate=3e-4,
        query_descriptors=100,
        descriptors=60,
        held_out=100,
    )
    place = Place(options.folder, options.weights, options.benchmark, options.local, settings)
    for name, made in SETS.items():
        if not (place.folder / name).exists():
            build_synth(place.folder / name, made)
    training = described(place, "train")["train"]
    # AMES subtracts no mean; without that some bits of RootSIFT, which has no negative numbers, are always the same.
    student = None
    if not options.without_ames:
        student = learned(
            place, training, learn_itq_to([training], ItqSettings(bits=128), place.own / "itq.safetensors")
        )
    bits = learn_itq_to([training], ItqSettings(bits=128, centred=True), place.own / "itq-centred.safetensors")
    mixes = tuned(place, bits, student)
    for name in ("test", *(("photographs",) if options.benchmark else ())):
        table(place, name, bits, student, mixes)


if __name__ == "__main__":
    main()
