"""``images.csv``: what a collector knows of each file; with an object and a role, a folder of any shape will do."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from openilias.build.collect.csv_tables import Line, read_table
from openilias.build.collect.layout import (
    ROLES,
    Scan,
    check_objects,
    check_url,
    objects_folder,
    scan_folder,
    with_details,
)
from openilias.build.collect.names import natural
from openilias.build.collect.values import Details, SourceImage, SourceObject
from openilias.data.ilias import IMAGE_ENDINGS

IMAGES = "images.csv"
_DETAILS = ("licence", "licence_url", "author", "page_url", "url", "camera", "taken")


def scan_with_table(folder: Path, table: Path | None) -> Scan:
    """Read a collector's folder with its table, by default ``images.csv`` in it.

    A table with the columns object and role says what each file is, and files that it does not name are not looked
    for. Without these columns it adds to what the folders say.

    Raises:
        OpenIliasError: there is no such folder, or the table cannot be read.
    """
    if table is None:
        table = folder / IMAGES if (folder / IMAGES).is_file() else None
    if table is None:
        return scan_folder(folder)
    lines = read_table(table, required=("file",), optional=("object", "role", *_DETAILS))
    placed = [bool(line.values["object"] or line.values["role"]) for line in lines]
    if lines and all(placed):
        return _from_table(folder, lines)
    scan = scan_folder(folder)
    if any(placed):
        what = "Some rows name an object and a role, and others do not."
        scan.wrong("table-mixed", table, what, "Fill the columns in in all rows, or in none.")
    known = {image.source for one in scan.objects for image in one.images}
    details: dict[str, Details] = {}
    for line in lines:
        source = _path(line)
        if source not in known:
            scan.wrong("table-unknown", Path(line.where), f"There is no image {line.values['file']!r}.", "Correct it.")
        elif source in details:
            scan.wrong("table-twice", Path(line.where), f"The file {source!r} stands twice.", "Keep one of the rows.")
        details[source] = _details(scan, line)
    scan.objects = [with_details(one, details) for one in scan.objects]
    return scan


def _path(line: Line) -> str:
    return PurePosixPath(line.values["file"].replace("\\", "/")).as_posix()


def _details(scan: Scan, line: Line) -> Details:
    values = {name: line.values[name] or None for name in _DETAILS}
    for name in ("licence_url", "page_url", "url"):
        if values[name] is not None:
            values[name] = check_url(scan, values[name] or "", line.where)
    return Details(**values)


def _from_table(folder: Path, lines: list[Line]) -> Scan:
    scan = Scan(objects_folder(folder))
    found: dict[str, list[SourceImage]] = {}
    seen: set[str] = set()
    for line in lines:
        source, name = _path(line), line.values["object"]
        role = ROLES.get(line.values["role"].lower())
        path = scan.root / source
        where = Path(line.where)
        if role is None or not name:
            scan.wrong("table-role", where, "Expected an object, and query or pos as its role.", "Fill them in.")
        elif ".." in source.split("/") or source.startswith("/"):
            scan.wrong("table-outside", where, f"The file {source!r} is not in the folder.", "Correct it.")
        elif source in seen:
            scan.wrong("table-twice", where, f"The file {source!r} stands twice.", "Keep one of the rows.")
        elif not path.is_file():
            scan.wrong("table-unknown", where, f"There is no file {source!r}.", "Correct it.")
        elif not path.name.lower().endswith(IMAGE_ENDINGS):
            fix = f"Convert it to one of {', '.join(IMAGE_ENDINGS)}."
            scan.wrong("format-unknown", where, f"Images like {path.name} are not read.", fix)
        else:
            boxes = path.with_name(f"{path.stem}_bbox.txt")
            image = SourceImage(source, path, role, boxes if boxes.is_file() else None, _details(scan, line))
            found.setdefault(name, []).append(image)
        seen.add(source)
    for name, images in sorted(found.items()):
        images.sort(key=lambda one: (natural(one.source.casefold()), one.source))
        text = scan.root / f"{name}.txt"
        inside = "/" not in name and "\\" not in name
        scan.objects.append(SourceObject(name, tuple(images), text if inside and text.is_file() else None))
    check_objects(scan, folder)
    return scan
