"""``ilias build anonymise``: find, review, apply, undo."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from openilias.cli.options import Json, Processes, device_of, emit, numbers_of, refuse, say

if TYPE_CHECKING:
    from openilias.build.anonymise import Applied, Mark

app = typer.Typer(help="Faces and licence plates: find, review, blur or crop, undo.", no_args_is_help=True)

SetDir = Annotated[Path, typer.Argument(help="Folder of the set, in the ILIAS layout.", metavar="SET")]
Images = Annotated[
    list[str] | None, typer.Option("--image", metavar="ID", help="Only these images, or a pattern with *; repeatable.")
]
_SHOWN = 10


def register(build: typer.Typer) -> None:
    """Add the commands to the group ``build``."""
    build.add_typer(app, name="anonymise")


@app.callback()
def _group() -> None:
    """Faces and licence plates: find, review, blur or crop, undo."""


@app.command(epilog="Example: ilias build anonymise find my-set --faces haar --faces yunet:yunet.onnx")
def find(
    root: SetDir,
    faces: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DETECTOR",
            help="haar, yunet:FILE.onnx, hf:MODEL[@REVISION][#LABEL,...], owl:MODEL[@REVISION][#TEXT,...], or none; "
            "repeatable. By default haar.",
        ),
    ] = None,
    plates: Annotated[
        list[str] | None, typer.Option(metavar="DETECTOR", help="haar, hf:..., owl:..., or none; repeatable.")
    ] = None,
    least: Annotated[int, typer.Option(min=8, help="Smallest side of a box, in pixels.")] = 20,
    neighbours: Annotated[
        int | None, typer.Option(min=1, help="Of haar: windows that must agree; fewer find more, right and wrong.")
    ] = None,
    angles: Annotated[
        str, typer.Option(metavar="A,A,...", help="Of haar: turn pictures by these degrees too, as in 30,-30.")
    ] = "0",
    threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="Of the other detectors: least score; their own by default.")
    ] = None,
    device: Annotated[str, typer.Option(help="Of networks: cpu, cuda, mps, or auto.")] = "cpu",
    workers: Processes = None,
    json: Json = None,
) -> None:
    """Look for faces and plates in queries and positives; write build/anonymise/boxes.csv.

    What is found is proposed, not done. What you decided or drew before stays.
    """
    from openilias.build.anonymise import FindSettings, find_marks

    settings = FindSettings(
        faces=_detectors(faces, "--faces"),
        plates=_detectors(plates, "--plates"),
        least=least,
        neighbours=neighbours,
        angles=numbers_of(angles, "--angles", int),
        threshold=threshold,
        device=device if device == "cpu" else device_of(device),
    )
    found = find_marks(root, settings, workers=workers)
    result = found.as_json()
    counts = ", ".join(f"{count} {kind}" for kind, count in result["boxes"].items() if count) or "none"
    say(f"{found.images} images, {len(found.marks)} boxes ({counts}) in {result['images_with_boxes']} of them")
    _say_inside(found.inside)
    say(f"{found.path}\nreview them: ilias build anonymise review {root}")
    emit(result, json)


def _detectors(names: list[str] | None, option: str) -> tuple[str, ...]:
    if names is None:
        return ("haar",)
    if "none" in names:
        if len(names) > 1:
            raise typer.BadParameter("none and others exclude each other.", param_hint=option)
        return ()
    return tuple(names)


@app.command(epilog="Example: ilias build anonymise review my-set --all-images")
def review(
    root: SetDir,
    out: Annotated[Path | None, typer.Option(metavar="FILE", dir_okay=False, help="Another page to write.")] = None,
    all_images: Annotated[
        bool, typer.Option("--all-images", help="Show images without boxes too, to draw what was not found.")
    ] = False,
    take: Annotated[
        Path | None,
        typer.Option(metavar="CSV", dir_okay=False, help="Write no page: take the table that it made, after a check."),
    ] = None,
    json: Json = None,
) -> None:
    """Write a page on which to confirm, reject and draw boxes; or take the table that the page made.

    The page shows people: keep it private.
    """
    from openilias.build.anonymise import read_marks, take_decisions, write_review
    from openilias.build.anonymise.place import place_of

    if take is not None:
        refuse("writes a page, and --take does not", out=out, all_images=all_images)
        marks = list(take_decisions(root, take))
        page = None
    else:
        page = write_review(root, out, all_images=all_images)
        marks = read_marks(place_of(root).boxes)
    counts = {status: sum(mark.status == status for mark in marks) for status in sorted({m.status for m in marks})}
    say(", ".join(f"{count} {status}" for status, count in counts.items()) or "no boxes")
    say(f"apply them: ilias build anonymise apply {root}" if page is None else f"{page}")
    emit({"page": None if page is None else str(page), "status": counts}, json)


@app.command(epilog="Example: ilias build anonymise apply my-set")
def apply(
    root: SetDir,
    how: Annotated[
        Literal["blur", "crop"] | None,
        typer.Option(help="Blur the boxes, or cut the image so that they are outside; by default as before, or blur."),
    ] = None,
    margin: Annotated[
        float | None, typer.Option(min=0, max=2, help="Around each box, as a share of its sides; 0.15.")
    ] = None,
    cells: Annotated[
        int | None, typer.Option(min=1, max=8, help="Colours kept along the longer side of what is blurred; 4.")
    ] = None,
    images: Images = None,
    all_proposed: Annotated[
        bool, typer.Option("--all-proposed", help="Take proposed boxes for confirmed: nobody looked at them.")
    ] = False,
    json: Json = None,
) -> None:
    """Make the confirmed boxes unrecognisable; originals are kept in build/anonymise, and never published."""
    from openilias.build.anonymise import ApplySettings, apply_marks

    settings = ApplySettings(
        how=how, margin=margin, cells=cells, all_proposed=all_proposed, images=tuple(images) if images else None
    )
    done = apply_marks(root, settings)
    cropped = sum(kind == "crop" for kind in done.how.values())
    say(f"{len(done.how) - cropped} images are blurred, {cropped} cropped; {len(done.changed)} of them now")
    _say_rest(done)
    if any(done.how[item] == "crop" for item in done.changed):
        say("cropped images have other coverage and clutter: ilias build clutter")
    emit(done.as_json(), json)


@app.command(epilog="Example: ilias build anonymise undo my-set --image 'teapot_001/*'")
def undo(root: SetDir, images: Images = None, json: Json = None) -> None:
    """Put the originals back, byte for byte; their boxes are confirmed and no longer applied."""
    from openilias.build.anonymise import undo_marks

    done = undo_marks(root, tuple(images) if images else None)
    _say_rest(done)
    emit(done.as_json(), json)


def _say_rest(done: Applied) -> None:
    if done.restored:
        say(f"{len(done.restored)} images are their originals again")
    _say_inside(done.inside)
    if done.without_row:
        say(f"{len(done.without_row)} images are not in rows/core.parquet: {', '.join(done.without_row[:_SHOWN])}")
    say("boxes: " + (", ".join(f"{count} {status}" for status, count in done.status.items()) or "none"))
    if done.status.get("proposed"):
        say("proposed boxes are not decided: ilias build anonymise review")


def _say_inside(marks: tuple[Mark, ...]) -> None:
    if marks:
        say(f"{len(marks)} boxes lie mostly in a box of the object, which may be what was found:")
        for mark in marks[:_SHOWN]:
            say(f"  {mark.image}  {mark.kind}  {' '.join(map(str, mark.box))}")
        if len(marks) > _SHOWN:
            say(f"  ... and {len(marks) - _SHOWN} more; all are in --json FILE")
