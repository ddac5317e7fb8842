"""The folder of a network of AMES that was learned: ``network.pt``, and ``ames.json`` that says from what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openilias.adapt.steps import do_steps
from openilias.core.errors import OpenIliasError
from openilias.core.fingerprints import fingerprint, fingerprint_lines
from openilias.core.manifests import claim, read_manifest, replacing, write_manifest
from openilias.core.progress import tell
from openilias.core.resume import kept_state
from openilias.data.training import TrainingSet
from openilias.descriptors.local_store import LocalStore
from openilias.rerank.ames import Ames
from openilias.rerank.ames_files import digest_of, read_ames, write_ames
from openilias.rerank.ames_pairs import kept_back, mine
from openilias.rerank.ames_training import AmesSettings, AmesTraining, drawn_network, told_apart
from openilias.rerank.itq import Binarisation
from openilias.rerank.packing import local_state_of
from openilias.rerank.similarities import check_alike, database_of_local
from openilias.search.ranking import read_ranking

KIND = "network of AMES"
MANIFEST, NETWORK = "ames.json", "network.pt"


@dataclass(frozen=True)
class Learned:
    """A network that was learned.

    Attributes:
        network: of AMES.
        manifest: what it was made from, and how that went.
    """

    network: Ames
    manifest: dict[str, Any]


def learn_ames_to(
    ranking: Path,
    stores: Sequence[LocalStore],
    training: TrainingSet,
    settings: AmesSettings,
    out: Path,
    *,
    bits: Binarisation | None = None,
    teacher: Ames | None = None,
    device: str = "cpu",
    overwrite: bool = False,
) -> Learned:
    """Learn a network and write it into a folder; killed, it goes on.

    Args:
        ranking: of the training images among themselves, by global descriptors.
        stores: local descriptors of these images.
        training: their labels.
        settings: how.
        out: the folder.
        bits: where those of a binary network begin; None learns one of numbers.
        teacher: a network that a binary one learns from besides.
        device: where it computes.
        overwrite: replace a network that was learned from something else.

    Raises:
        OpenIliasError: no labels, no pairs, stores that do not fit one another or the network, an output in the way.
    """
    check_alike(stores)
    _check_kinds(stores, bits, teacher)
    first, manifest = read_ranking(ranking)
    mined = mine(first, training, hard=settings.hard)
    learned, kept = kept_back(mined, settings.held_out, seed=settings.seed)
    made_from = {
        **settings.made_from(teacher=teacher is not None),
        "ranking": manifest["fingerprint"],
        "labels": fingerprint_lines(f"{item} {number}" for item, number in zip(mined.ids, mined.classes, strict=True)),
        "local": sorted(local_state_of(store) for store in stores),
        "descriptors": stores[0].origin(),
        "bits": None if bits is None else bits.digest,
        "teacher": None if teacher is None else digest_of(teacher),
    }
    state = claim(out, MANIFEST, kind=KIND, made_from=made_from, overwrite=overwrite, ours=r"network\.pt")
    if state == "same" and (out / NETWORK).is_file():
        try:
            return read_learned(out)
        except OpenIliasError:
            if not overwrite:
                raise
    database = database_of_local(stores, mined.ids)
    for store in stores:
        for shard in store.shards:  # what is damaged must not be learned from as if it were what is recorded
            shard.verify()
    dims = stores[0].dims if bits is None or stores[0].bits is None else bits.dims
    network = drawn_network(dims, settings, bits, teacher)
    steps = AmesTraining(network, learned, database, settings, teacher=teacher, device=device)
    told = f"{len(learned.anchors):,} images with pairs, {steps.total:,} steps"
    tell(f"ames: {told}" + ("" if kept is None else f"; {len(kept.anchors):,} of classes kept back"))

    def measure() -> float:
        return 0.0 if kept is None else told_apart(steps.network, kept, database, settings, device)

    with kept_state(out, f"{fingerprint(made_from)[:16]}.pt") as path:
        history = do_steps(
            steps,
            path,
            measure=None if kept is None else measure,
            measured="told_apart",
            told="pairs of classes kept back told apart",
        )
        made = steps.network.cpu().eval()
        with replacing(out, state):
            out.mkdir(parents=True, exist_ok=True)
            write_ames(made, out / NETWORK, made_from=made_from)
            write_manifest(out / MANIFEST, kind=KIND, made_from=made_from, sha256=digest_of(made), history=history)
    return read_learned(out)


def _check_kinds(stores: Sequence[LocalStore], bits: Binarisation | None, teacher: Ames | None) -> None:
    """Refuse stores that the networks cannot read.

    Raises:
        OpenIliasError: packed stores for a network of numbers, or packed by other bits; a teacher of other dimensions.
    """
    first = stores[0]
    if first.bits is not None and (
        bits is None or first.manifest["made_from"]["binarisation"]["sha256"] != bits.digest
    ):
        raise OpenIliasError(
            "Packed stores: a network of numbers cannot learn from them, and a binary one only from its own bits.",
            where=first.folder,
            fix="Give the stores they were packed from, or with --itq the binarisation they were packed by.",
        )
    fits = teacher is None or (not teacher.binary and teacher.local_dims == first.dims)
    if teacher is not None and (bits is None or first.bits is not None or not fits):
        raise OpenIliasError(
            "A teacher is a network of numbers and takes the same descriptors; its student is binary.",
            where=first.folder,
            fix="Give --itq, stores that are not packed, and a teacher that was trained on descriptors of this model.",
        )


def read_learned(folder: Path) -> Learned:
    """Read what :func:`learn_ames_to` wrote.

    Raises:
        OpenIliasError: it is no such folder, or its network is not the one that was written.
    """
    manifest = read_manifest(folder / MANIFEST, kind=KIND)
    network = read_ames(folder / NETWORK)
    if digest_of(network) != manifest.get("sha256"):
        raise OpenIliasError(
            "This network is not the one that was learned.",
            where=folder / NETWORK,
            fix="Learn it again with --overwrite.",
        )
    return Learned(network, manifest)
