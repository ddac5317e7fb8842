"""What re-ranking is worth: mAP and oracle as in Table 4, on generated pictures and on real photographs.

    python benchmarks/reranking.py --weights DIR --folder DIR --benchmark PHOTOS --local sift

Generated sets without a thing in common: one to learn from (bits of ITQ, a teacher of AMES and its binary student);
one to test, whose positives are small and lie in clutter, and one like it to tune the mix of global and local
similarity on; and one of larger things, to tune the mix for the photographs on. No photograph is learned from. Because
the mix depends on how good the global descriptors are, which generated things do not tell, it is also tuned on every
second object of the photographs and tested on the others, and the other way round.

`DIR` of weights holds `mobilenetv2_100_tf_in1k.safetensors`, `tf_efficientnet_lite0_features.safetensors` and
`aliked_n16rot.safetensors`. All that is made lies in `--folder`; killed, it goes on.

    global          MobileNetV2, 384 pixels, padded
    aQE1, 2, 5      query expansion, alpha 1
    ensemble        with EfficientNet-Lite0
    CS, SP          descriptors of 128 bits, 600 of the query, 100 or 600 of an image, shortlists of 1,000
    AMES            three layers of 128 dimensions, inner ones of 256, 200 x 100 descriptors; learned with 100 x 60
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from openilias.build.generated.knobs import Knobs
from openilias.build.generated.synth import SynthSettings, build_synth
from openilias.core.ids import Partition
from openilias.core.protocol import Expand, Protocol
from openilias.data import read_ilias, read_training_set
from openilias.descriptors.extract import Options, extract
from openilias.descriptors.extract_local import LocalOptions, extract_local
from openilias.descriptors.local_store import LocalStore, open_local_store
from openilias.descriptors.store import open_store
from openilias.evaluate.evaluation import Evaluation, evaluate
from openilias.evaluate.groups import Group
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
from openilias.rerank.ensemble import Mix, grid
from openilias.rerank.itq import Binarisation
from openilias.rerank.packing import ItqSettings, learn_itq_to, pack_store
from openilias.rerank.rerank import read_reranked, rerank_to
from openilias.rerank.similarities import LocalStep
from openilias.rerank.spatial import SpatialSettings
from openilias.rerank.tuning import read_mix
from openilias.search.choice import Choice
from openilias.search.ensemble import ensemble_to
from openilias.search.members import read_member
from openilias.search.ranking import Ranking, read_ranking
from openilias.search.stores import search_to

PARTITIONS: tuple[Partition, ...] = ("image_queries", "positives", "distractors")
GLOBAL = ("mobilenetv2_100.tf_in1k", "mobilenetv2_100_tf_in1k.safetensors")
SECOND = ("tf_efficientnet_lite0.features", "tf_efficientnet_lite0_features.safetensors")
PROTOCOL = Protocol(resolution=384, resize="pad")
SMALL = Knobs(scale=(0.05, 0.4), clutter=(6, 30), viewpoint=(0, 30), occlusion=(0, 0.2))
LARGE = Knobs(scale=(0.34, 0.82), clutter=(0, 6), viewpoint=(0, 30), occlusion=(0, 0), crop=(0, 0.1), hard=0.02)
BETWEEN = Knobs(scale=(0.1, 0.6), clutter=(2, 20), viewpoint=(0, 30), occlusion=(0, 0.2))
SETS = {
    "small": SynthSettings(objects=60, distractors=1000, seed=101, knobs=SMALL),
    "small-tuning": SynthSettings(objects=40, distractors=500, seed=102, knobs=SMALL),
    "large-tuning": SynthSettings(objects=40, distractors=500, seed=104, knobs=LARGE),
    "train": SynthSettings(objects=1, distractors=0, train=1200, train_images=(2, 3), seed=103, knobs=BETWEEN),
}
TUNED_ON = {"small": "small-tuning", "photographs": "large-tuning"}
RESOLUTION = {"sift": 500, "aliked": 384}
WEIGHTS = tuple(n / 20 for n in range(21))
GAMMAS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


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
    model = load_local(place.local, LocalSettings(resolution=RESOLUTION[place.local], most=600), weights=weights)
    source = read_training_set(place.folder / name) if name == "train" else read_ilias(place.benchmark(name))
    partitions: tuple[Partition, ...] = ("train",) if name == "train" else PARTITIONS
    return {p: extract_local(source, model, p, place.own / name / p, LocalOptions(Options())) for p in partitions}


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
    backbone = load_model(find_model(GLOBAL[0]), PROTOCOL, weights=place.weights / GLOBAL[1], random_weights=None)
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


@dataclass(frozen=True)
class Method:
    """A way to compare: its name in the table, what it takes of an image, whether it has a network."""

    name: str
    step: LocalStep
    learned: bool = False


def methods(local: str, *, ames: bool) -> list[Method]:
    """Return the ways to compare."""
    # Points of SIFT have a size, and are as exact as a few pixels: a match is a translation with a scaling.
    spatial = SpatialSettings(scales=True, tolerance=8) if local == "sift" else SpatialSettings(tolerance=12)
    found = [
        Method(f"{short}, {count} descriptors", LocalStep(method=method, descriptors=count, spatial=spatial))
        for short, method in (("CS", "chamfer"), ("SP", "spatial"))
        for count in (100, 600)
    ]
    if ames:
        found.append(Method("AMES, 100 descriptors", LocalStep(method="ames", query_descriptors=200), learned=True))
    return found


@dataclass(frozen=True)
class Tools:
    """What was learned: bits for CS and SP; the student of AMES."""

    bits: Binarisation
    student: Ames | None


def compared(place: Place, name: str, method: Method, tools: Tools, mix: Mix) -> tuple[Ranking, Path, float]:
    """Re-rank a set; return the ranking, where it is, and the seconds of a query."""
    by = open_ames(place.own / "ames" / NETWORK) if method.learned else None
    bits = binarisation_of(tools.student) if tools.student and method.learned else tools.bits
    stores = packed(place, name, described(place, name), bits)
    folder = place.own / "reranked" / name / method.name.replace(", ", "-").replace(" ", "-")
    queries, *database = (stores[partition] for partition in PARTITIONS)
    out = folder / f"{mix.global_weight:g}-{mix.gamma:g}"
    again = next((one for one in sorted(folder.glob("*-*")) if one != out), None)
    run = searched(place, name, GLOBAL)
    made = rerank_to(run / "ranking", [queries], database, method.step, mix, out, by=by, again=again)
    return made.ranking, out, made.manifest["seconds"] / len(made.ranking.query_ids)


def line(name: str, evaluation: Evaluation, note: str = "") -> str:
    """Return a line of the table."""
    small, cluttered = ([one.map for one in group if one.map is not None] for group in groups(evaluation))
    parts = (f"{100 * values[end]:.1f}" if values else "" for values, end in ((small, 0), (cluttered, -1)))
    return f"| {name} | {100 * evaluation.map:.1f} | {100 * evaluation.oracle:.1f} | {' | '.join(parts)} | {note} |"


def groups(evaluation: Evaluation) -> tuple[tuple[Group, ...], tuple[Group, ...]]:
    """Return the groups of area coverage and of clutter."""
    return evaluation.coverage, evaluation.clutter


def tuned(place: Place, name: str, method: Method, tools: Tools) -> Mix:
    """Tune the mix of a method on a set that is there for it."""
    _, folder, _ = compared(place, name, method, tools, Mix(global_weight=0.5, gamma=0.1))
    path = folder.parent / "mix.json"
    tried = tune_to(folder, place.benchmark(name), path, weights=WEIGHTS, gammas=GAMMAS, overwrite=True)
    print(f"{method.name}: mAP {100 * max(one.map for one in tried):.1f} on {name}, which it is tuned on", flush=True)
    return read_mix(path)


def halves(place: Place, name: str, folder: Path) -> float:
    """Return the mAP of all queries, those of every second object with the mix that is best for the others."""
    benchmark, made = read_ilias(place.benchmark(name)), read_reranked(folder)
    first, _ = read_ranking(Path(made.manifest["first"]))
    objects = sorted(benchmark.relevance)
    kept = []

    def reached(ranking: Ranking) -> float:
        found = evaluate(ranking, benchmark, PROTOCOL, trusted=True)
        kept.append([sum(one.ap for one in found.queries if objects.index(one.object) % 2 == half) for half in (0, 1)])
        return found.map

    lengths = [min(made.similarities.shape[1], first.rows.shape[1])]
    tried = list(grid(first, made.similarities, reached, shortlists=lengths, weights=WEIGHTS, gammas=GAMMAS))
    best = [max(range(len(tried)), key=lambda one: kept[one][half]) for half in (0, 1)]
    return (kept[best[1]][0] + kept[best[0]][1]) / len(first.query_ids)


def table(place: Place, name: str, tools: Tools) -> None:
    """Print the table of a set."""
    benchmark = read_ilias(place.benchmark(name))

    def of(ranking: Ranking) -> Evaluation:
        return evaluate(ranking, benchmark, PROTOCOL)

    run = searched(place, name, GLOBAL)
    before = of(read_ranking(run / "ranking")[0])
    lines = [line("global", before)]
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
    for method in methods(place.local, ames=tools.student is not None):
        mix = tuned(place, TUNED_ON[name], method, tools)
        ranking, folder, seconds = compared(place, name, method, tools, mix)
        note = f"weight {mix.global_weight:g}, gamma {mix.gamma:g}; {seconds:.2f} s per query"
        if name == "photographs":
            note += f"; mix of the other half: mAP {100 * halves(place, name, folder):.1f}"
        lines.append(line(f"{method.name}, {place.local}", of(ranking), note))
    columns = []
    for what, group, end in zip(("coverage", "clutter"), groups(before), (0, -1), strict=True):
        some = [one.name for one in group if one.map is not None]
        columns.append(f"{what} {some[end]}" if some else "")
    print(f"\n{name}: {len(benchmark.image_queries)} queries\n")
    print(f"| re-ranking | mAP | oracle | {' | '.join(columns)} | |\n|---|---:|---:|---:|---:|---|")
    print("\n".join(lines), flush=True)


def main() -> None:
    """Run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True, help="of all that is made")
    parser.add_argument("--benchmark", type=Path, help="real photographs in the ILIAS layout")
    parser.add_argument("--local", choices=["sift", "aliked"], default="sift")
    parser.add_argument("--epochs", type=int, default=6, help="of AMES")
    parser.add_argument("--without-ames", action="store_true", help="leave it out")
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
    for name in ("small", *(("photographs",) if options.benchmark else ())):
        table(place, name, Tools(bits, student))


if __name__ == "__main__":
    main()
