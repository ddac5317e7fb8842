"""Mini-ILIAS of a set: describe, score, choose, write the lists; killed, it goes on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, Field

from openilias.build.mini.alignment import Keys, Scored, key_of, together
from openilias.build.mini.choice import Best, Combine, Places, random_places, rule_of
from openilias.build.mini.phrases import Phrases, make_phrases
from openilias.build.mini.scores import ALGORITHM_VERSION, Floats, names_of, score_store
from openilias.core.errors import OpenIliasError, first_few
from openilias.core.files import InUseError, atomic_path, is_there, owned, read_json, sha256_of, write_json
from openilias.core.fingerprints import fingerprint, fingerprint_lines
from openilias.core.manifests import software
from openilias.core.progress import tell
from openilias.core.protocol import Protocol
from openilias.core.shards import Share
from openilias.data import Benchmark, read_ilias
from openilias.data.ilias import LISTS, MINI
from openilias.descriptors.extract import Options, extract_share
from openilias.descriptors.store import DescriptorStore, StoreShard, open_store, told_if_full
from openilias.models.backbone import Backbone
from openilias.models.zoo import TextFiles, find_model, load_model

MODELS = (
    "vit_large_patch16_siglip_384.webli",
    "convnext_large_mlp.clip_laion2b_ft_soup_320",
    "eva02_large_patch14_clip_336.merged2b",
)
"""Large SigLIP, OpenCLIP and EVA-CLIP; the paper names the families. Of several large models of one it takes the best
(section B), which for OpenCLIP is ConvNeXt."""

_STEP = Path("build") / "mini"
_MANIFEST = "manifest.json"
_BEGUN = "begun.json"  # digests of lists that the manifest does not name yet
_BATCH = 256  # texts at a time
_USUAL = Options()


class MiniSettings(BaseModel, frozen=True, extra="forbid"):
    """What is chosen, and how.

    Attributes:
        top: how many distractors.
        combine: how the scores of the models become one.
        synonyms: a table of terms, by default ours.
        templates: a table of templates, by default 15 of the paper and 28 ours.
        random: how many random subsets of the same size.
        seed: of these.
    """

    top: Annotated[int, Field(ge=1)]
    combine: Combine = "mean"
    synonyms: Path | None = None
    templates: Path | None = None
    random: Annotated[int, Field(ge=0, le=1000)] = 0
    seed: Annotated[int, Field(ge=0)] = 0


@dataclass(frozen=True)
class Tower:
    """A model that describes images and texts.

    Attributes:
        model: its name.
        store: its descriptors of the distractors; made if there is none.
        weights: a local file of its weights.
        random_weights: a seed instead of weights.
        text: local files of its text tower.
    """

    model: str
    store: Path | None = None
    weights: Path | None = None
    random_weights: int | None = None
    text: TextFiles = field(default_factory=TextFiles)


@dataclass(frozen=True)
class Mini:
    """What was chosen.

    Attributes:
        lists: the list, and those of the random subsets; none while shards are left to others of a share, or where
            another one of it writes them.
        phrases: what the texts were made of.
        texts: how many different ones.
        images: distractors that all models have described.
        left_out: distractors that some have not.
        chosen: how many stand in each list.
        least: the lowest score that was chosen.
        models: names.
        unfinished: shards that are left to others of a share.
    """

    lists: tuple[Path, ...]
    phrases: Phrases
    texts: int
    images: int = 0
    left_out: int = 0
    chosen: int = 0
    least: float | None = None
    models: tuple[str, ...] = ()
    unfinished: tuple[str, ...] = ()


def select_mini(
    root: Path,
    settings: MiniSettings,
    towers: Sequence[Tower] = tuple(map(Tower, MODELS)),
    *,
    out: Path | None = None,
    device: str = "cpu",
    options: Options = _USUAL,
    overwrite: bool = False,
) -> Mini:
    """Choose the distractors that look most like what the categories of a set name (paper, section 3.3).

    Each model describes distractors and texts; the score of a distractor is its largest similarity with any text, and
    the models' scores are averaged. Ties go to the image whose id comes first.

    Args:
        root: the set.
        settings: what to choose.
        towers: the models.
        out: where lists and the state of the work go, by default into the set.
        device: where models and products are computed.
        options: how distractors are described where there is no store yet; its share is that of the scoring too.
        overwrite: replace a list that is not of this command.

    Raises:
        OpenIliasError: a model has no texts, or is not that of its store; the stores have other shards; more images
            are asked for than there are; a list is in the way.
    """
    out = root if out is None else out
    if not towers:
        raise OpenIliasError("There is no model.", fix="Name one that describes texts too.")
    benchmark = read_ilias(root)
    phrases = make_phrases(benchmark.taxonomy, synonyms=settings.synonyms, templates=settings.templates)
    texts = phrases.texts()
    tell(
        f"{len(phrases.labels)} labels and {len(phrases.terms)} terms in {len(phrases.templates)} templates: "
        f"{phrases.combinations} combinations, {len(texts)} different texts"
    )
    work = out / _STEP
    _check_lists(out, work, settings, overwrite=overwrite)
    _check_early(settings.top, [open_store(tower.store) for tower in towers if tower.store is not None])
    work.mkdir(parents=True, exist_ok=True)
    each = [_score(benchmark, tower, texts, work, device, options) for tower in towers]
    if not each[-1][2]:
        # Others of a share may have been behind with an earlier model, and are done with all of them by now.
        each = [
            _score(benchmark, tower, texts, work, device, options) if done[2] else done
            for tower, done in zip(towers, each, strict=True)
        ]
    scored = [one for done, _, _ in each for one in done]
    sources = [source for _, source, _ in each]
    unfinished = dict.fromkeys(name for _, _, left in each for name in left)
    names = tuple(tower.model for tower in towers)
    if unfinished:
        return Mini((), phrases, len(texts), models=names, unfinished=tuple(unfinished))
    try:
        with owned(work):
            return _choose(scored, sources, settings, phrases, texts, out, work, names)
    except InUseError:
        if options.share.everything:
            raise
        return Mini((), phrases, len(texts), models=names)  # another one of the share ended just now, and writes them


def _check_early(top: int, stores: Sequence[DescriptorStore]) -> None:
    """Refuse stores of other shards or of too few images before hours of work; what all have is known later."""
    if stores:
        names_of(stores)
    for store in stores:
        if store.rows < top:
            what = f"There are {store.rows} distractors, fewer than the {top} that are asked for."
            raise OpenIliasError(what, where=store.folder, fix="Ask for less.")


def _score(
    benchmark: Benchmark, tower: Tower, texts: list[str], work: Path, device: str, options: Options
) -> tuple[list[Scored], dict[str, Any], list[str]]:
    """Return the scored store of a model, what it was made from, and the shards that are left to others."""
    backbone = load_model(
        find_model(tower.model),
        Protocol(),
        weights=tower.weights,
        random_weights=tower.random_weights,
        text=tower.text,
        device=device,
    )
    backbone.encode_texts([])  # says at once if the model cannot
    place = tower.store
    if place is None:
        place = work / "descriptors" / fingerprint({"model": tower.model, "weights": backbone.weights_digest})[:12]
        left = extract_share(benchmark, backbone, "distractors", place, options)
        if left:
            return [], {}, left
    store = open_store(place)
    _check_store(store, backbone, benchmark)
    tell(f"{tower.model}: describing {len(texts)} texts")
    described = _described(backbone, texts)
    source = {
        "algorithm_version": ALGORITHM_VERSION,
        "model": tower.model,
        "store": store.fingerprint,
        "shards": fingerprint_lines(f"{shard.source} {shard.sha256} {shard.ids_sha256}" for shard in store.shards),
        "texts": fingerprint_lines(texts),
        "text_tower": backbone.text_digest(texts) or backbone.weights_digest,
        "descriptors_of_texts": hashlib.sha256(described.tobytes()).hexdigest(),
    }
    folder = work / "scores" / fingerprint(source)[:12]
    folder.mkdir(parents=True, exist_ok=True)
    # Where the descriptors are made here, the last one to do so scores what the others could not yet.
    share = options.share if tower.store is not None else Share()
    left = score_store(store, described, folder, device=device, share=share)
    return [Scored(store, folder)], source, left


def _check_store(store: DescriptorStore, backbone: Backbone, benchmark: Benchmark) -> None:
    """Refuse a store that is not of the distractors of this set, of another model, or adapted."""
    made = store.manifest["made_from"]
    ours = [shard.source for shard in store.shards if isinstance(shard, StoreShard)]
    strange = sorted(set(ours) - {shard.name for shard in benchmark.distractor_shards})
    if strange:
        raise OpenIliasError(
            f"This store has shards that are not in the set: {first_few(strange)}.",
            where=store.folder,
            fix="Give the store of the distractors of this set.",
        )
    if store.partition != "distractors":
        what = f"This store has the {store.partition} of a benchmark, and not its distractors."
        raise OpenIliasError(what, where=store.folder, fix="Give the store of the distractors.")
    if "adaptation" in made or store.dims != backbone.dims:
        raise OpenIliasError(
            "These descriptors are adapted, or have another dimension than the model: they cannot be compared with "
            "its texts.",
            where=store.folder,
            fix="Give a store without adaptation.",
        )
    weights = made.get("weights")
    if weights is not None and weights != backbone.weights_digest:
        raise OpenIliasError(
            f"This store was made with other weights than those of {backbone.spec.name}.",
            where=store.folder,
            fix="Name the model of the store, and its weights with --weights.",
        )


def _described(backbone: Backbone, texts: list[str]) -> Floats:
    parts = [backbone.encode_texts(texts[start : start + _BATCH]) for start in range(0, len(texts), _BATCH)]
    return np.concatenate(parts)


def _choose(
    scored: Sequence[Scored],
    sources: Sequence[dict[str, Any]],
    settings: MiniSettings,
    phrases: Phrases,
    texts: list[str],
    out: Path,
    work: Path,
    names: tuple[str, ...],
) -> Mini:
    best, sizes, left_out = Best(settings.top), [], 0
    with rule_of(settings.combine, scored, work) as rule:
        for group in together(scored):
            best.add(rule(group))
            sizes.append(len(group.ids))
            left_out += group.left_out
    if sum(sizes) < settings.top:
        raise OpenIliasError(
            f"There are {sum(sizes)} distractors, fewer than the {settings.top} that are asked for.",
            fix="Ask for less.",
        )
    if left_out:
        tell(f"{left_out} distractors are not in all stores, and cannot be chosen")
    chosen, scores = best.result()
    starts = np.concatenate(([0], np.cumsum(sizes)))
    paths = _paths(out, settings)
    each = [_split(chosen, starts)]
    each += [list(random_places(sizes, settings.top, settings.seed, number)) for number in range(settings.random)]
    # Not their names: manifests are published.
    own = {"synonyms": settings.synonyms, "templates": settings.templates}
    tables = {name: "ours" if path is None else sha256_of(path) for name, path in own.items()}
    digests = {}
    for path, places in zip(paths, each, strict=True):
        digests[path.name] = _write_list(path, places, scored, work)
    made = {
        "models": list(sources),
        "settings": settings.model_dump(mode="json", exclude={"synonyms", "templates"}) | {"tables": tables},
        "labels": len(phrases.labels),
        "terms": len(phrases.terms),
        "templates": len(phrases.templates),
        "combinations": phrases.combinations,
        "different_texts": len(texts),
        "images": sum(sizes),
        "left_out": left_out,
        "least_score": float(scores.min()),
    }
    previous = _lists_made(work)
    write_json(work / _MANIFEST, {"lists": previous | digests, "made_from": made, "software": software()})
    (work / _BEGUN).unlink(missing_ok=True)
    return Mini(tuple(paths), phrases, len(texts), sum(sizes), left_out, len(chosen), float(scores.min()), models=names)


def _split(places: Places, starts: np.ndarray[Any, Any]) -> list[Places]:
    """Cut sorted places of the whole into those of each source."""
    cuts = np.searchsorted(places, starts)
    return [
        places[first:last] - start for first, last, start in zip(cuts[:-1], cuts[1:], starts[:-1].tolist(), strict=True)
    ]


def _write_list(path: Path, places: list[Places], scored: Sequence[Scored], work: Path) -> str:
    """Write the keys of the chosen images, in the order of their ids; return the digest of the list.

    Raises:
        OpenIliasError: a key stands in two shards: lists of keys cannot tell them apart.
    """
    written: list[Keys] = []
    with told_if_full(path), atomic_path(path) as temporary, temporary.open("wb") as file:
        for keys in _keys(places, scored):
            _check_keys(keys, path)
            file.write(b"".join(key + b"\n" for key in keys))
            written.append(np.array(keys, np.bytes_))
        names, counts = np.unique(np.concatenate(written) if written else np.zeros(0, "S1"), return_counts=True)
        if (counts > 1).any():
            twice = first_few([name.decode() for name in names[counts > 1][:4].tolist()])
            raise OpenIliasError(
                f"These keys stand in more than one shard, and the list would not tell them apart: {twice}.",
                where=path,
                fix="Make the set with keys of its own for each image.",
            )
        file.flush()
        digest = sha256_of(temporary)
        # Before the list is there: one that a kill left without a manifest is known to be ours.
        write_json(work / _BEGUN, _lists_begun(work) | {path.name: digest})
    return digest


def _check_keys(keys: list[bytes], path: Path) -> None:
    """Refuse keys that a reader of the list would take for others."""
    odd = [ascii(key.decode()) for key in keys if not key or key != key.strip() or b"\n" in key]
    if odd:
        raise OpenIliasError(
            f"These keys cannot stand in a list: {first_few(odd)}.",
            where=path,
            fix="Keys do not begin or end with a space, and have no ends of lines.",
        )


def _keys(places: list[Places], scored: Sequence[Scored]) -> Iterator[list[bytes]]:
    for of, group in zip(places, together(scored), strict=True):
        if len(of):
            yield [key_of(item) for item in group.ids[of].tolist()]


def _paths(out: Path, settings: MiniSettings) -> list[Path]:
    randoms = [f"mini_random_{settings.top}_seed{settings.seed}_{number}_ids.txt" for number in range(settings.random)]
    return [out / LISTS / name for name in (MINI, *randoms)]


def _lists_made(work: Path) -> dict[str, str]:
    """Return the lists that this command wrote before, and their digests."""
    return _digests_in(work / _MANIFEST, "lists")


def _lists_begun(work: Path) -> dict[str, str]:
    """Return the digests of lists that this command was about to write, or wrote and was cut off."""
    return _digests_in(work / _BEGUN, None)


def _digests_in(path: Path, entry: str | None) -> dict[str, str]:
    if not is_there(path):
        return {}
    known = read_json(path)
    if entry is not None:
        known = known.get(entry) if isinstance(known, dict) else None
    return dict(known) if isinstance(known, dict) else {}


def _check_lists(out: Path, work: Path, settings: MiniSettings, *, overwrite: bool) -> None:
    """Refuse to replace a list that came from elsewhere, before the work begins."""
    made = (_lists_made(work), _lists_begun(work))
    for path in _paths(out, settings):
        if is_there(path) and not overwrite and sha256_of(path) not in [known.get(path.name) for known in made]:
            raise OpenIliasError(
                "There is such a list already, and this command did not write it.",
                where=path,
                fix="Move it away, give --out FOLDER, or --overwrite.",
            )
