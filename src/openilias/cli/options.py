"""Options that several commands share, and printing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from openilias.core.files import write_json
from openilias.core.protocol import Compat, Pooling, Protocol, ResizeRule

BenchmarkDir = Annotated[Path, typer.Argument(help="Folder in the ILIAS layout.", metavar="BENCHMARK")]
Model = Annotated[str, typer.Option(help="A name of `ilias models list`, or any timm name.")]
Weights = Annotated[Path | None, typer.Option(help="Local weights file, instead of the published ones.")]
RandomWeights = Annotated[int | None, typer.Option(metavar="SEED", help="No weights at all: try things out.")]
Resolution = Annotated[int | None, typer.Option(min=1, help="In pixels; the model's test resolution by default.")]
Resize = Annotated[
    ResizeRule, typer.Option(help="Larger side, smaller side, smaller side + crop, square, zero-padded.")
]
PoolingName = Annotated[Pooling | None, typer.Option(help="The model's own by default.")]
CompatMode = Annotated[Compat, typer.Option(help="`official` repeats the quirks of the official code.")]
Dtype = Annotated[str, typer.Option(help="Of the stored descriptors: float16 or float32.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, mps, or auto.")]
BatchSize = Annotated[int | None, typer.Option(min=1, help="Images per forward pass; by default 4 on cpu, else 32.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Threads; all cores by default.")]
Processes = Annotated[int | None, typer.Option("--workers", min=1, help="Processes; all cores by default.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an output made from something else.")]
Json = Annotated[
    Path | None,
    typer.Option("--json", metavar="FILE", dir_okay=False, writable=True, help="Write the result as JSON too."),
]
MOST_K = 2**31 - 1


def protocol_of(
    resolution: int | None, resize: ResizeRule, pooling: Pooling | None, dtype: str, compat: Compat
) -> Protocol:
    """Make the protocol of the options; a wrong dtype is a usage error."""
    if dtype not in ("float16", "float32"):
        raise typer.BadParameter(f"'{dtype}' is not float16 or float32.", param_hint="--dtype")
    return Protocol.model_validate(
        {"resolution": resolution, "resize": resize, "pooling": pooling, "dtype": dtype, "compat": compat}
    )


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
            row[column].replace(".", "").replace("-", "").strip(" %").isdigit() or row[column] == "-" for row in rows
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
