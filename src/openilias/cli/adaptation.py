"""``ilias adapt``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from openilias.cli.options import Json, Overwrite, Shard, emit, say

app = typer.Typer(help="Adapt descriptors with a linear layer.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Adapt descriptors with a linear layer."""


@app.command(epilog="Example: ilias adapt apply runs/r18/positives --adapt linear.pth --out runs/r18-adapted/positives")
def apply(
    store: Annotated[
        Path, typer.Argument(help="A store; or official HDF5: a file, or a folder of distractors.", metavar="STORE")
    ],
    adapt: Annotated[Path, typer.Option(help="The layer: layer.weight and layer.bias, official .pth or .safetensors.")],
    out: Annotated[Path, typer.Option(help="Folder of the adapted store.")],
    overwrite: Overwrite = False,
    shard: Shard = None,
    json: Json = None,
) -> None:
    """Adapt a descriptor store: normalise(Wx + b). Killed, it continues when run again."""
    from openilias.adapt.apply import adapt_share
    from openilias.adapt.files import read_linear_map
    from openilias.core.shards import Share, parse_share
    from openilias.descriptors.store import open_store

    share = Share() if shard is None else parse_share(shard)
    unfinished = adapt_share(open_store(store), read_linear_map(adapt), out, overwrite=overwrite, share=share)
    if unfinished:
        say(f"{out}: this share is done; {len(unfinished)} shards are left to the others")
        emit({"store": str(out), "unfinished": unfinished}, json)
        return
    made = open_store(out)
    say(f"{out}: {made.rows} descriptors of {made.dims} dimensions in {len(made.shards)} shards")
    emit(
        {
            "store": str(out),
            "rows": made.rows,
            "dims": made.dims,
            "shards": len(made.shards),
            "fingerprint": made.fingerprint,
        },
        json,
    )
