"""``ilias build mini``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from openilias.cli.options import BatchSize, BenchmarkDir, Device, Json, Overwrite, Shard, Workers, device_of, emit, say
from openilias.core.errors import OpenIliasError

if TYPE_CHECKING:
    from openilias.build.mini.select import Tower

_MODELS = "Models: by default large SigLIP, OpenCLIP and EVA-CLIP"
_TEXTS = "Texts"
_NONE = "-"


def register(app: typer.Typer) -> None:
    """Add the command to the group."""
    example = "Example: ilias build mini my-ilias --top 5000000 --random 3 --store runs/siglip/distractors"
    app.command(epilog=example)(mini)


def mini(
    benchmark: BenchmarkDir,
    top: Annotated[int, typer.Option(min=1, help="How many distractors to choose.")],
    combine: Annotated[
        Literal["mean", "zscore", "rank"], typer.Option(help="How the scores of several models become one.")
    ] = "mean",
    random: Annotated[int, typer.Option(min=0, max=1000, help="Random subsets of the same size too.")] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Of the random subsets.")] = 0,
    store: Annotated[
        list[Path] | None,
        typer.Option(rich_help_panel=_MODELS, help="Descriptors of the distractors by one model; several times."),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            rich_help_panel=_MODELS,
            help="Of each store, if it does not tell; without stores: describe the distractors with these.",
        ),
    ] = None,
    weights: Annotated[
        list[str] | None,
        typer.Option(rich_help_panel=_MODELS, metavar="FILE", help=f"Of each model, {_NONE} for none."),
    ] = None,
    text_weights: Annotated[
        list[str] | None, typer.Option(rich_help_panel=_MODELS, metavar="FILE", help="Of each model's text tower.")
    ] = None,
    tokenizer: Annotated[
        list[str] | None, typer.Option(rich_help_panel=_MODELS, metavar="FOLDER", help="Of each model.")
    ] = None,
    random_weights: Annotated[
        int | None, typer.Option(rich_help_panel=_MODELS, metavar="SEED", min=0, help="No weights: try things out.")
    ] = None,
    synonyms: Annotated[
        Path | None,
        typer.Option(rich_help_panel=_TEXTS, metavar="CSV", help="Terms term,coarse,mid,fine; by default ours."),
    ] = None,
    templates: Annotated[
        Path | None,
        typer.Option(rich_help_panel=_TEXTS, metavar="CSV", help="Column template, with a * each; by default 43."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="For lists and work, if not into the benchmark.")
    ] = None,
    device: Device = "cpu",
    batch_size: BatchSize = None,
    workers: Workers = None,
    shard: Shard = None,
    skip_unreadable: Annotated[
        bool, typer.Option("--skip-unreadable", help="Distractors that cannot be read cannot be chosen either.")
    ] = False,
    overwrite: Overwrite = False,
    json: Json = None,
) -> None:
    """Choose hard distractors: those most like the category names of the set, by models that know texts. Killed, it
    goes on.

    Writes image_ids/mini_ilias_yfcc100m_ids.txt, and image_ids/mini_random_<top>_seed<seed>_<number>_ids.txt.
    """
    from openilias.build.mini.select import MiniSettings, select_mini
    from openilias.core.shards import Share, parse_share
    from openilias.descriptors.extract import Options

    settings = MiniSettings(top=top, combine=combine, synonyms=synonyms, templates=templates, random=random, seed=seed)
    towers = _towers(
        store or [],
        model or [],
        weights=weights,
        text_weights=text_weights,
        tokenizer=tokenizer,
        random_weights=random_weights,
    )
    options = Options(
        batch_size=batch_size,
        workers=workers,
        skip_unreadable=skip_unreadable,
        share=Share() if shard is None else parse_share(shard),
    )
    done = select_mini(
        benchmark, settings, towers, out=out, device=device_of(device), options=options, overwrite=overwrite
    )
    result = {
        "models": list(done.models),
        "labels": len(done.phrases.labels),
        "terms": len(done.phrases.terms),
        "terms_unused": done.phrases.unused,
        "templates": len(done.phrases.templates),
        "combinations": done.phrases.combinations,
        "texts": done.texts,
        "images": done.images,
        "left_out": done.left_out,
        "chosen": done.chosen,
        "least_score": done.least,
        "lists": [str(path) for path in done.lists],
        "unfinished": list(done.unfinished),
    }
    if done.unfinished:
        say(f"this share is done; {len(done.unfinished)} shards are left to the others")
    elif not done.lists:
        say("this share is done; another one has just ended too, and writes the lists")
    else:
        say(f"{done.chosen} of {done.images} distractors, with a score of {done.least:.4f} or more")
        for path in done.lists:
            say(f"  {path}")
    emit(result, json)


def _towers(
    stores: list[Path],
    models: list[str],
    *,
    weights: list[str] | None,
    text_weights: list[str] | None,
    tokenizer: list[str] | None,
    random_weights: int | None,
) -> list[Tower]:
    """Put together what belongs to each model.

    Raises:
        OpenIliasError: an option is given for more or fewer models than there are.
    """
    from openilias.build.mini.select import MODELS, Tower
    from openilias.descriptors.store import open_store
    from openilias.models.zoo import TextFiles

    if not models:
        models = [_model_of(open_store(path).manifest, path) for path in stores] or list(MODELS)
    if stores and len(stores) != len(models):
        raise OpenIliasError(
            f"There are {len(stores)} stores and {len(models)} models.", fix="Give --model once for each --store."
        )

    def of_each(option: str, words: list[str] | None) -> list[Path | None]:
        if words is None:
            return [None] * len(models)
        if len(words) != len(models):
            raise OpenIliasError(
                f"--{option} is given {len(words)} times for {len(models)} models.",
                fix=f"Give it once for each, {_NONE} where there is none.",
            )
        return [None if word == _NONE else Path(word) for word in words]

    places: list[Path | None] = list(stores) if stores else [None] * len(models)
    return [
        Tower(name, place, file, None if file is not None else random_weights, TextFiles(text, folder))
        for name, place, file, text, folder in zip(
            models,
            places,
            of_each("weights", weights),
            of_each("text-weights", text_weights),
            of_each("tokenizer", tokenizer),
            strict=True,
        )
    ]


def _model_of(manifest: object, store: Path) -> str:
    made = manifest.get("made_from", {}) if isinstance(manifest, dict) else {}
    model = made.get("model")
    name = model.get("name") if isinstance(model, dict) else None
    if not isinstance(name, str):
        raise OpenIliasError(
            "This store does not tell its model.", where=store, fix="Give --model once for each --store."
        )
    return name
