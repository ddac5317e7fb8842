"""Reading a collector's folder: ``<object>/{query,pos}/<images>``, or a table that says what each file is.

Everything that is wrong is found, not just the first thing; nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from openilias.build.collect.names import LONGEST, natural, slug
from openilias.build.collect.values import Details, Role, SourceImage, SourceObject
from openilias.core.errors import OpenIliasError, first_few
from openilias.core.files import read_bytes
from openilias.core.findings import Finding
from openilias.data.ilias import IMAGE_ENDINGS

ROLES: dict[str, Role] = {
    "query": "query", "queries": "query", "pos": "pos", "positive": "pos", "positives": "pos",
}  # fmt: skip
_CORES = ("ilias_core", "core")
_OTHER_IMAGES = (
    ".heic", ".heif", ".avif", ".tif", ".tiff", ".jxl", ".jp2", ".svg", ".psd", ".dng", ".cr2", ".cr3", ".nef",
    ".arw", ".orf", ".raf", ".rw2", ".jfif", ".ppm", ".tga",
)  # fmt: skip
_SYSTEM = ("thumbs.db", "desktop.ini")
_TABLES = (".csv", ".json", ".xml", ".md", ".txt", ".yaml")  # at the top of a folder; those in use are named
_NO_TEXTS = ("classes.txt", "labels.txt")  # lists of names that annotation tools leave
_MOST_TEXT = 2**20


def objects_folder(folder: Path) -> Path:
    """Return where the objects are: in ``ilias_core`` or ``core`` of a set, else in the folder itself.

    Raises:
        OpenIliasError: there is no such folder.
    """
    if not folder.is_dir():
        what = "This is a file, not a folder." if folder.exists() else "There is no such folder."
        raise OpenIliasError(what, where=folder, fix="Give the folder that holds a folder per object.")
    return next((folder / name for name in _CORES if (folder / name).is_dir()), folder)


class Scan:
    """The objects of a folder, and everything that is wrong with it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.findings: list[Finding] = []
        self.objects: list[SourceObject] = []

    def wrong(self, kind: str, where: Path, what: str, fix: str | None = None) -> None:
        """Add an error."""
        self.findings.append(Finding("error", kind, str(where), what, fix))

    def passed_over(self, path: Path, what: str = "This file is passed over.") -> None:
        """Add a warning; files of operating systems are passed over without."""
        if not path.name.startswith(".") and path.name.lower() not in _SYSTEM:
            self.findings.append(Finding("warning", "stray-file", str(path), what))

    def entries(self, folder: Path) -> Iterator[Path]:
        """Yield what is in a folder in the order of people; hidden and unusable names are passed over."""
        for path in sorted(folder.iterdir(), key=lambda one: (natural(one.name.casefold()), one.name)):
            if not path.name.isprintable():
                self.wrong("name-not-text", folder / ascii(path.name)[1:-1], "This name is not text.", "Rename it.")
            elif path.is_symlink() and not path.exists():
                self.wrong("link-dangling", path, "This link leads nowhere.", "Remove it.")
            elif not path.name.startswith("."):
                yield path


def scan_folder(folder: Path) -> Scan:
    """Read a folder of a folder per object.

    Raises:
        OpenIliasError: there is no such folder.
    """
    scan = Scan(objects_folder(folder))
    for path in scan.entries(scan.root):
        if path.is_dir():
            _object(scan, path)
        elif path.name.lower().endswith((*IMAGE_ENDINGS, *_OTHER_IMAGES)):
            fix = "Put it into OBJECT/query/ or OBJECT/pos/."
            scan.wrong("file-not-folder", path, "An image lies where a folder per object should be.", fix)
        elif not path.name.lower().endswith(_TABLES):
            scan.passed_over(path)
    check_objects(scan, folder)
    return scan


def _object(scan: Scan, folder: Path) -> None:
    images: list[SourceImage] = []
    texts: list[Path] = []
    seen: dict[Role, str] = {}
    for path in scan.entries(folder):
        role = ROLES.get(path.name.lower())
        if role is None and path.suffix.lower() == ".txt" and path.is_file():
            texts.append(path)
        elif role is None:
            what = "folder" if path.is_dir() else "file"
            fix = "An object holds query/ and pos/ and at most one text."
            if path.is_file() and not path.name.lower().endswith((*IMAGE_ENDINGS, *_OTHER_IMAGES)):
                scan.passed_over(path)
            else:
                scan.wrong("object-layout", path, f"This {what} is neither of queries nor of positives.", fix)
        elif not path.is_dir():
            scan.wrong("file-not-folder", path, "This file stands where a folder of images should be.", "Move it.")
        elif role in seen:
            scan.wrong("role-twice", path, f"Both {seen[role]} and {path.name} are here.", "Keep one of them.")
        else:
            seen[role] = path.name
            found, more = _images(scan, path, role)
            images += found
            texts += more
    texts = [path for path in texts if path.name.lower() not in _NO_TEXTS]
    if len(texts) > 1:
        names = first_few([path.relative_to(folder).as_posix() for path in texts])
        scan.wrong("text-several", folder, f"There is more than one text: {names}.", "Keep one of them.")
    scan.objects.append(SourceObject(folder.name, tuple(images), texts[0] if texts else None))


def _images(scan: Scan, folder: Path, role: Role) -> tuple[list[SourceImage], list[Path]]:
    """Return the images of a folder of a role, and the texts that lie among queries."""
    files = list(scan.entries(folder))
    images = [path for path in files if path.name.lower().endswith(IMAGE_ENDINGS) and path.is_file()]
    stems: dict[str, list[Path]] = {}
    for path in images:
        stems.setdefault(path.stem, []).append(path)
    texts: list[Path] = []
    side: dict[tuple[str, str], Path] = {}
    for path in files:
        name = path.name.lower()
        if path in images:
            continue
        if path.is_dir():
            scan.wrong("folder-not-file", path, "A folder lies where images should be.", "Move its images up.")
        elif name.endswith(_OTHER_IMAGES):
            known = ", ".join(IMAGE_ENDINGS)
            scan.wrong("format-unknown", path, "Images of this format are not read.", f"Convert it to one of {known}.")
        elif name.endswith(("_bbox.txt", "_url.txt")):
            stem, kind = path.stem.rsplit("_", 1)
            if stem not in stems:
                scan.wrong("side-file-alone", path, "The image that this file belongs to is not here.", "Remove it.")
            elif len(stems[stem]) > 1:
                scan.wrong("side-file-several", path, "This file belongs to several images.", "Rename one of them.")
            side[stem, kind.lower()] = path
        elif name.endswith(".txt") and role == "query" and path.stem not in stems:
            texts.append(path)
        elif not (name.endswith(".txt") and path.stem in stems):  # labels of YOLO are asked for elsewhere
            scan.passed_over(path)
    found = []
    for path in images:
        url = side.get((path.stem, "url"))
        details = Details() if url is None else Details(url=_url(scan, url))
        source = path.relative_to(scan.root).as_posix()
        found.append(SourceImage(source, path, role, side.get((path.stem, "bbox")), details))
    return found, texts


def _url(scan: Scan, path: Path) -> str | None:
    try:
        url = read_bytes(path, most=_MOST_TEXT).decode("utf-8").strip()
    except (OSError, ValueError) as error:
        scan.wrong("url-unreadable", path, f"This file cannot be read: {error}.")
        return None
    return check_url(scan, url, path)


def check_url(scan: Scan, url: str, where: Path | str) -> str | None:
    """Return a URL, or add an error if it is none."""
    if not url.lower().startswith(("http://", "https://")) or len(url.split()) != 1 or not url.isprintable():
        scan.wrong("url-malformed", Path(where), f"This is no http address: {url[:80]!r}.", "Correct it.")
        return None
    return url


def check_objects(scan: Scan, folder: Path) -> None:
    """Check what must hold among the objects of a folder, however they were found."""
    if not scan.objects and not scan.findings:
        fix = "It must hold OBJECT/query/ and OBJECT/pos/ with images."
        scan.wrong("no-objects", folder, "There are no objects in this folder.", fix)
    spelt: dict[str, str] = {}
    for one in scan.objects:
        name = slug(one.name)
        if not name:
            scan.wrong("name-empty", scan.root / one.name, "No letter or digit is in this name.", "Rename the object.")
        elif len(name) > LONGEST:
            what = f"This name has {len(name)} characters in ASCII; {LONGEST} are the most."
            scan.wrong("name-long", scan.root / one.name, what, "Rename the object.")
        elif name in spelt:
            what = f"The objects {spelt[name]!r} and {one.name!r} are both spelt {name}."
            scan.wrong("name-twice", scan.root / one.name, what, "Rename one of them, or put them together.")
        spelt[name] = one.name


def check_complete(scan: Scan, left_out: set[str]) -> None:
    """Add an error for each object without a query or a positive, but for those (by name) that are left out."""
    for one in scan.objects:
        if one.name in left_out:
            continue
        for role, what in (("query", "query image"), ("pos", "positive")):
            if not any(image.role == role for image in one.images):
                fix = "Add one, or reject the object in objects.csv."
                scan.wrong(f"no-{role}", scan.root / one.name, f"This object has no {what}.", fix)


def with_details(one: SourceObject, details: dict[str, Details]) -> SourceObject:
    """Return an object with what a table says of its images; a field that the table leaves empty stays."""
    return replace(one, images=tuple(_detailed(image, details.get(image.source)) for image in one.images))


def _detailed(image: SourceImage, said: Details | None) -> SourceImage:
    if said is None:
        return image
    values = {name: value for name, value in vars(said).items() if value is not None}
    return replace(image, details=replace(image.details, **values))
