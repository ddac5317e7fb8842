"""Options that several commands share, and printing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from openilias.core.files import write_json
from openilias.core.protocol import (
    BoxUse,
    Combine,
    Compat,
    Pooling,
    Precision,
    Protocol,
    Resizer,
    ResizeRule,
    StoredType,
    ViewsOf,
)

_PROTOCOL = "Protocol: what the numbers depend on"
_WORK = "Work"
BenchmarkDir = Annotated[Path, typer.Argument(help="Folder in the ILIAS layout.", metavar="BENCHMARK")]
Model = Annotated[
    str,
    typer.Option(
        help="A name of `ilias models list`, any timm name, torchvision:NAME, open_clip:NAME/TAG, hf:NAME, or "
        "path.py:function."
    ),
]
Weights = Annotated[Path | None, typer.Option(help="Local weights file, instead of the published ones.")]
TextWeights = Annotated[
    Path | None, typer.Option(help="Local file of the text tower, where it is not in the weights of the image tower.")
]
TokenizerFolder = Annotated[
    Path | None, typer.Option("--tokenizer", metavar="FOLDER", help="Local files of the tokenizer; else the hub's.")
]
RandomWeights = Annotated[
    int | None, typer.Option(metavar="SEED", min=0, max=2**32 - 1, help="No weights at all: try things out.")
]
PartialDatabase = Annotated[
    bool, typer.Option("--partial-database", help="Accept a search that left out shards of the benchmark.")
]
Resolution = Annotated[
    int | None,
    typer.Option(rich_help_panel=_PROTOCOL, min=1, help="In pixels; the model's test resolution by default."),
]
Resize = Annotated[
    ResizeRule,
    typer.Option(
        rich_help_panel=_PROTOCOL, help="Larger side, smaller side, smaller side + crop, square, zero-padded."
    ),
]
MinSize = Annotated[
    int, typer.Option(rich_help_panel=_PROTOCOL, min=0, help="Zeros around sides shorter than this, in pixels.")
]
ResizerName = Annotated[
    Resizer,
    typer.Option(rich_help_panel=_PROTOCOL, help="`torchvision` is faster and differs by a grey level at times."),
]
QueryBoxes = Annotated[
    BoxUse,
    typer.Option(rich_help_panel=_PROTOCOL, help="Keep only the boxes of query images: masked, cropped, or both."),
]
PositiveBoxes = Annotated[BoxUse, typer.Option(rich_help_panel=_PROTOCOL, help="Likewise of the positives.")]
Scales = Annotated[
    str,
    typer.Option(
        rich_help_panel=_PROTOCOL, metavar="S,S,...", help="Describe at each factor of the size; 0.707,1,1.414."
    ),
]
Rotations = Annotated[
    str, typer.Option(rich_help_panel=_PROTOCOL, metavar="A,A,...", help="Describe at each angle; 0,90,180,270.")
]
Views = Annotated[ViewsOf, typer.Option(rich_help_panel=_PROTOCOL, help="Whose scales and rotations these are.")]
CombineName = Annotated[
    Combine,
    typer.Option("--combine", rich_help_panel=_PROTOCOL, help="Of the descriptors of several views."),
]
PoolingName = Annotated[Pooling | None, typer.Option(rich_help_panel=_PROTOCOL, help="The model's own by default.")]
PrecisionName = Annotated[
    Precision, typer.Option(rich_help_panel=_PROTOCOL, help="In which the network computes; float16 on GPUs only.")
]
CompatMode = Annotated[
    Compat, typer.Option(rich_help_panel=_PROTOCOL, help="`official` repeats the quirks of the official code.")
]
Dtype = Annotated[StoredType, typer.Option(rich_help_panel=_PROTOCOL, help="Of the stored descriptors.")]
Device = Annotated[str, typer.Option(rich_help_panel=_WORK, help="cpu, cuda, mps, or auto.")]
BatchSize = Annotated[
    int | None,
    typer.Option(rich_help_panel=_WORK, min=1, help="Images per forward pass; by default what suits the model."),
]
Workers = Annotated[
    int | None, typer.Option(rich_help_panel=_WORK, min=1, help="Processes or threads; all cores by default.")
]
Timeout = Annotated[
    float, typer.Option(rich_help_panel=_WORK, min=1, help="Seconds that a worker process may take for an image.")
]
Shard = Annotated[
    str | None, typer.Option(rich_help_panel=_WORK, metavar="I/N", help="Only every n-th shard, from i = 0 on.")
]
Processes = Annotated[int | None, typer.Option("--workers", min=1, help="Processes; all cores by default.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an output made from something else.")]
Json = Annotated[
    Path | None,
    typer.Option("--json", metavar="FILE", dir_okay=False, writable=True, help="Write the result as JSON too."),
]
MOST_K = 2**31 - 1


def protocol_of(*, scales: str = "1", rotations: str = "0", **fields: Any) -> Protocol:
    """Make the protocol of the options; the lists are given with commas between."""
    return Protocol.model_validate(
        fields
        | {"scales": numbers_of(scales, "--scales", float), "rotations": numbers_of(rotations, "--rotations", int)}
    )


def numbers_of(text: str, option: str, kind: type[float | int]) -> tuple[float, ...]:
    """Return numbers that are given with commas between."""
    try:
        return tuple(kind(word) for word in text.split(","))
    except ValueError:
        raise typer.BadParameter(f"'{text}' is not numbers with commas between.", param_hint=option) from None


def refuse(why: str, **given: object) -> None:
    """Refuse options that are given and have no meaning.

    Raises:
        typer.BadParameter: there are some.
    """
    refused = [f"--{name.replace('_', '-')}" for name, value in given.items() if value]
    if refused:
        raise typer.BadParameter(f"{', '.join(refused)} {why}.")


def device_of(name: str) -> str:
    """Check a device name; ``auto`` takes the best there is."""
    from openilias.models.devices import choose_device

    return choose_device(name)


def emit(result: dict[str, Any], target: Path | None) -> None:
    """Write the result of a command as JSON, if asked."""
    if target is not None:
        write_json(target, json.loads(json.dumps(result, allow_nan=False)))


def table(header: list[str], rows: list[list[str]]) -> str:
    """Lay a table out for a terminal: columns as wide as they need, numbers to the right."""
    cells = [header, *rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    numeric = [
        bool(rows)
        and all(
            row[column].replace(".", "").replace(",", "").strip(" %‡+-").isdigit() or row[column] in ("-", "–")
            for row in rows
        )
        for column in range(len(header))
    ]

    def line(row: list[str]) -> str:
        return "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        ).rstrip()

    return "\n".join([line(header), "  ".join("-" * width for width in widths), *map(line, rows)])


def say(text: str = "") -> None:
    """Print a line of the result."""
    typer.echo(text)
