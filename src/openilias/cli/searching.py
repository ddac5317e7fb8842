"""``ilias search``, ``ilias merge`` and ``ilias ensemble``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from openilias.cli.options import MOST_K, Device, Json, Overwrite, Shard, device_of, emit, numbers_of, refuse, say
from openilias.core.protocol import Expand, Fusion, Keep

_SELECT = "Which images"
_WORK = "How the work is done"
_INDEX = "A compressed index instead of the descriptors"

IdsFile = Annotated[
    Path | None,
    typer.Option(
        "--ids",
        rich_help_panel=_SELECT,
        metavar="FILE",
        help="Search only these: one id per line; ids of tars also without the tar, as the official mini list has "
        "them. Partitions of which it names none are searched whole.",
    ),
]
Exclude = Annotated[
    Path | None,
    typer.Option("--exclude", rich_help_panel=_SELECT, metavar="FILE", help="Do not search these: a list as --ids."),
]
Partial = Annotated[
    bool,
    typer.Option(
        "--partial-database", rich_help_panel=_SELECT, help="Accept lists that name images not in the stores."
    ),
]
SelfMatches = Annotated[
    Keep | None,
    typer.Option(
        "--self-matches",
        rich_help_panel=_SELECT,
        help="Whether an image finds itself: by its id, or the same descriptor. Stated, --queries may be images of the "
        "database. By default kept.",
    ),
]
Duplicates = Annotated[
    Keep,
    typer.Option(
        "--duplicates", rich_help_panel=_SELECT, help="Of images with the same descriptor list all, or only the first."
    ),
]
Adapt = Annotated[
    Path | None,
    typer.Option("--adapt", metavar="FILE", help="Adapt the descriptors with this linear map while they are read."),
]
ExpandBy = Annotated[
    int | None,
    typer.Option(
        "--expand",
        metavar="N",
        min=1,
        max=10_000,
        help="Alpha query expansion: search again with each query and the best N that it found, put together.",
    ),
]
Alpha = Annotated[
    float, typer.Option("--alpha", min=0.0, max=1000.0, help="Power of their similarity that the N weigh.")
]
First = Annotated[
    Path | None,
    typer.Option(
        metavar="RANKING", help="Of an expansion: the ranking of the same without it, instead of a first search."
    ),
]
Trust = Annotated[
    bool, typer.Option("--trust", rich_help_panel=_WORK, help="Do not compare the shards with their checksums.")
]
Threads = Annotated[
    int | None, typer.Option("--threads", rich_help_panel=_WORK, min=1, help="Of the CPU; all cores by default.")
]
FirstPass = Annotated[
    str | None,
    typer.Option(
        "--first-pass",
        rich_help_panel=_WORK,
        help="Precision of the first pass: int8, bfloat16, float32; on GPUs float16 too. By default what is fastest "
        "here. It never changes the result.",
    ),
]
Index = Annotated[
    str | None,
    typer.Option(
        "--index", rich_help_panel=_INDEX, help="As faiss names it: PQ64, OPQ64,PQ64, IVF256,PQ64, SQ8, HNSW32."
    ),
]
Parameters = Annotated[
    str, typer.Option("--index-params", rich_help_panel=_INDEX, help="Of its search: nprobe=16, efSearch=128.")
]
Rescore = Annotated[
    int, typer.Option("--rescore", rich_help_panel=_INDEX, min=0, help="Score so many of its best again, exactly.")
]
IndexFile = Annotated[
    Path | None,
    typer.Option("--index-file", rich_help_panel=_INDEX, help="Keep the index in this file, and use it again."),
]
Train = Annotated[
    int | None, typer.Option("--index-train", rich_help_panel=_INDEX, min=1, help="Learn it from so many descriptors.")
]
Seed = Annotated[int, typer.Option("--index-seed", rich_help_panel=_INDEX, min=0, help="Of the sample it learns from.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command(
        epilog="Example: ilias search --queries runs/r18/image_queries --database runs/r18/positives "
        "--database runs/r18/distractors --out runs/r18/ranking"
    )(search)
    app.command(epilog="Example: ilias ensemble runs/siglip/ranking runs/siglip-texts/ranking --out runs/both/ranking")(
        ensemble
    )
    app.command(epilog="Example: ilias merge part-0 part-1 part-2 part-3 --out runs/r18/ranking")(merge)


def search(
    queries: Annotated[list[Path], typer.Option(help="Store of queries, or official HDF5; may be repeated.")],
    database: Annotated[
        list[Path],
        typer.Option(help="Store of database images, or official HDF5 (a file or a folder); may be repeated."),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the ranking.")],
    k: Annotated[int, typer.Option("-k", min=1, max=MOST_K, help="Images per query.")] = 1000,
    adapt: Adapt = None,
    expand: ExpandBy = None,
    alpha: Alpha = 1.0,
    first: First = None,
    ids: IdsFile = None,
    exclude: Exclude = None,
    partial_database: Partial = False,
    self_matches: SelfMatches = None,
    duplicates: Duplicates = "keep",
    device: Device = "cpu",
    threads: Threads = None,
    first_pass: FirstPass = None,
    trust: Trust = False,
    shard: Shard = None,
    index: Index = None,
    index_params: Parameters = "",
    rescore: Rescore = 0,
    index_file: IndexFile = None,
    index_train: Train = None,
    index_seed: Seed = 0,
    overwrite: Overwrite = False,
    json: Json = None,
) -> None:
    """Search exactly: every query against every database image.

    The ranking is the same, bit by bit, on every machine and with every option of how the work is done. A search that
    was killed goes on where it was. Parts of a large database are searched with --shard on several machines and put
    together with ilias merge.

    With --index the search is not exact: a compressed index is made and searched.
    """
    from openilias.adapt.apply import adapted
    from openilias.adapt.learned import read_layer
    from openilias.core.shards import Share, parse_share
    from openilias.descriptors.store import open_store

    if expand is None:
        refuse("can only be used with --expand", alpha=alpha != 1.0, first=first)
    asked, searched = ([open_store(path) for path in paths] for paths in (queries, database))
    linear = read_layer(adapt, [store.origin() for store in asked + searched]) if adapt else None
    share = parse_share(shard) if shard else Share()
    if index is not None:
        refuse(
            "cannot be used with --index",
            ids=ids,
            exclude=exclude,
            partial_database=partial_database,
            self_matches=self_matches,
            duplicates=duplicates != "keep",
            shard=shard,
            device=device != "cpu",
            threads=threads,
            first_pass=first_pass,
            trust=trust,
            expand=expand,
        )
        from openilias.search.compressed import search_compressed_to
        from openilias.search.indexes import IndexSpec

        if linear is not None:
            asked, searched = ([adapted(store, linear) for store in stores] for stores in (asked, searched))
        spec = IndexSpec(index, index_params, rescore, index_train, index_seed)
        ranking, facts = search_compressed_to(asked, searched, k, out, spec, index_file=index_file, overwrite=overwrite)
        say(f"{index}: {facts.bytes_per_image:.0f} bytes per image, {facts.queries_per_second:.0f} queries/s")
    else:
        from openilias.search.choice import Choice, Means
        from openilias.search.restriction import Restriction, read_ids
        from openilias.search.stores import search_to

        refuse(
            "can only be used with --index",
            index_params=index_params,
            rescore=rescore,
            index_file=index_file,
            index_train=index_train,
            index_seed=index_seed,
        )
        if partial_database and ids is None and exclude is None:
            raise typer.BadParameter("--partial-database can only be used with --ids or --exclude.")
        only, without = (read_ids(path) if path else None for path in (ids, exclude))
        restriction = Restriction(only, without, partial_database)
        expansion = None if expand is None else Expand(n=expand, alpha=alpha)
        choice = Choice(linear, restriction, self_matches, duplicates, expansion, share)
        means = Means(device_of(device), threads, first_pass, trust, first)
        ranking = search_to(asked, searched, k, out, choice, means, overwrite=overwrite)
    count, depth = ranking.rows.shape
    say(f"{out}: {count} queries, the best {depth} images of each")
    if not share.everything:
        say(f"a part of the database, {shard}: put all parts together with ilias merge")
    emit({"ranking": str(out), "queries": count, "depth": depth}, json)


def merge(
    rankings: Annotated[list[Path], typer.Argument(help="Rankings of the same queries in parts of a database.")],
    out: Annotated[Path, typer.Option(help="Folder of the ranking.")],
    overwrite: Overwrite = False,
    json: Json = None,
) -> None:
    """Put rankings of parts of a database together: exactly the ranking of one search of everything.

    The parts are those of ilias search --shard, or searches of other stores with the same queries.
    """
    from openilias.search.merge import merge_to

    ranking = merge_to(rankings, out, overwrite=overwrite)
    count, depth = ranking.rows.shape
    say(f"{out}: {count} queries, the best {depth} images of each")
    emit({"ranking": str(out), "queries": count, "depth": depth}, json)


def ensemble(
    rankings: Annotated[
        list[Path],
        typer.Argument(
            help="Two or more, of the same database. The first says the queries; of the others those of the same id, "
            "or else of the same object, go with them: texts with images."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the ranking.")],
    store: Annotated[
        list[Path] | None,
        typer.Option(
            help="Stores that they were made from, beside those in the folders of their runs; may be repeated."
        ),
    ] = None,
    adapt: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="Layers that they were adapted with; may be repeated.")
    ] = None,
    fusion: Annotated[
        Fusion, typer.Option(help="Mean of the similarities; of their z-scores; or of 1 / (60 + rank).")
    ] = "mean",
    weights: Annotated[
        str | None, typer.Option(metavar="W,W,...", help="Of the rankings; all the same by default.")
    ] = None,
    k: Annotated[
        int | None, typer.Option("-k", min=1, max=MOST_K, help="Images per query; as the rankings have by default.")
    ] = None,
    overwrite: Overwrite = False,
    json: Json = None,
) -> None:
    """Put rankings of several models, or of images and texts, together.

    Every image that one of them lists is scored by all, from their stores; nothing counts as zero.
    """
    from openilias.experiments.beside import layers_beside, stores_beside
    from openilias.search.ensemble import ensemble_to
    from openilias.search.members import read_member

    opened, layers = stores_beside(rankings, store or ()), layers_beside(rankings, adapt or ())
    members = [read_member(folder, opened, layers) for folder in rankings]
    shares = None if weights is None else numbers_of(weights, "--weights", float)
    ranking, _ = ensemble_to(members, out, fusion=fusion, weights=shares, k=k, overwrite=overwrite)
    count, depth = ranking.rows.shape
    say(f"{out}: {count} queries, the best {depth} images of each")
    emit({"ranking": str(out), "queries": count, "depth": depth}, json)
