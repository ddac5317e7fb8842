"""Pages to look at a set with: each a file of its own that asks for nothing else, of bounded size."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from markupsafe import Markup, escape

from openilias.build.publish.checks import STATE, Checked
from openilias.build.publish.outputs import Done, Output
from openilias.build.publish.rows import ROWS_ENDING, batches_of, blank
from openilias.build.publish.settings import PublishSettings
from openilias.build.publish.thumbnails import Thumbnail, thumbnail
from openilias.build.stored import CORE_ROWS, ROWS
from openilias.core.errors import OpenIliasError
from openilias.core.files import read_bytes
from openilias.core.ids import object_of
from openilias.data.benchmark import Benchmark, Item
from openilias.data.published_places import BROWSE, DATASHEET, LICENCES
from openilias.data.taxonomy import UNASSIGNED
from openilias.images.boxes import find_boxes
from openilias.images.tar_index import scan_once

PER_PAGE = 25  # objects
_MOST_POSITIVES, _MOST_QUERIES, _MOST_TEXTS = 12, 4, 4  # of an object
_MOST_ON_INDEX = 2000  # objects with a picture on the first page
_DISTRACTORS, _MOST_SHARDS = 120, 40  # shown, and of how many shards
_SIDE, _SMALL = 224, 112  # pixels
_MOST_TEXT = 2000  # characters of a text query
_WEB = re.compile(r"https?://[^/?#@\s]+([/?#]\S*)?")


@dataclass(frozen=True)
class Credit:
    """Whose an image is."""

    licence: str = ""
    licence_url: str = ""
    author: str = ""
    page_url: str = ""


@dataclass(frozen=True)
class Shot:
    """An image of a page."""

    item: Item
    boxes_of: Path | None
    credit: Credit


@dataclass(frozen=True)
class Entry:
    """An object of a page: its images and texts, as far as they are shown, and how many are not."""

    name: str
    category: tuple[str, ...]
    queries: tuple[Shot, ...]
    positives: tuple[Shot, ...]
    texts: tuple[Path, ...]
    hidden: int = 0


@dataclass(frozen=True)
class PageJob:
    """A page to write.

    Attributes:
        output: where.
        name: of the file.
        title: of the page, below that of the set.
        settings: name and version.
        summary: numbers for the first page.
        entries: objects.
        shots: distractors.
        groups: (category, ((page, object, shot), ...)) of the first page.
        before, behind: pages to go to.
        links: (name, target) of the first page to others.
    """

    output: Output
    name: str
    title: str
    settings: PublishSettings
    summary: tuple[tuple[str, int], ...] = ()
    entries: tuple[Entry, ...] = ()
    shots: tuple[Shot, ...] = ()
    groups: tuple[tuple[str, tuple[tuple[str, str, Shot | None], ...]], ...] = ()
    before: str = ""
    behind: str = ""
    links: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Card:
    """An image as a template shows it."""

    id: str
    picture: Thumbnail
    credit: Credit


@dataclass(frozen=True)
class Shown:
    """An object as a template shows it."""

    name: str
    category: tuple[str, ...]
    texts: tuple[str, ...]
    queries: tuple[Card, ...]
    positives: tuple[Card, ...]
    hidden: int


def pages_of(
    checked: Checked, settings: PublishSettings, output: Output, summary: tuple[tuple[str, int], ...]
) -> list[PageJob]:
    """Return the pages of a set; nothing is decoded yet."""
    entries = _entries(checked, settings)
    by_coarse: dict[str, list[Entry]] = {}
    for entry in entries:
        by_coarse.setdefault(entry.category[0] if entry.category else UNASSIGNED, []).append(entry)
    planned: list[tuple[str, str, list[Entry]]] = []
    for coarse in sorted(by_coarse, key=lambda name: (name == UNASSIGNED, name)):
        parts = [by_coarse[coarse][at : at + PER_PAGE] for at in range(0, len(by_coarse[coarse]), PER_PAGE)]
        for number, part in enumerate(parts, start=1):
            title = coarse if len(parts) == 1 else f"{coarse}, {number} of {len(parts)}"
            planned.append((f"{BROWSE}/objects-{len(planned) + 1:04d}.html", title, part))
    names = [name for name, _, _ in planned]
    distractors = _distractors(checked)
    if distractors:
        names.append(f"{BROWSE}/distractors.html")
    jobs = [
        PageJob(
            output, name, title, settings, entries=tuple(part), before=_before(names, name), behind=_behind(names, name)
        )
        for name, title, part in planned
    ]
    if distractors:
        last = names[-1]
        jobs.append(PageJob(output, last, "Distractors", settings, shots=distractors, before=_before(names, last)))
    groups = [
        (title, tuple((_file(name), one.name, one.queries[0] if one.queries else None) for one in part))
        for name, title, part in planned
    ]
    if len(entries) > _MOST_ON_INDEX:
        groups = [(title, tuple((page, name, None) for page, name, _ in part)) for title, part in groups]
    first = PageJob(
        output,
        f"{BROWSE}/index.html",
        "",
        settings,
        summary=summary,
        groups=tuple(groups),
        behind=_file(names[0]) if names else "",
        links=(
            *((("Distractors", "distractors.html"),) if distractors else ()),
            ("Datasheet", f"../{DATASHEET}"),
            ("Licences", f"../{LICENCES}"),
        ),
    )
    return [first, *jobs]


def _file(name: str) -> str:
    return name.rpartition("/")[2]


def _before(names: list[str], name: str) -> str:
    at = names.index(name)
    return _file(names[at - 1]) if at else "index.html"


def _behind(names: list[str], name: str) -> str:
    at = names.index(name) + 1
    return _file(names[at]) if at < len(names) else ""


def _entries(checked: Checked, settings: PublishSettings) -> list[Entry]:
    benchmark = checked.benchmark
    owners = _credits(checked.root / ROWS / CORE_ROWS, None)
    queries, texts = _by_object(benchmark.image_queries), _by_object(benchmark.text_queries)
    nodes = benchmark.taxonomy.nodes

    def shots(items: Iterable[str]) -> tuple[Shot, ...]:
        return tuple(_shot(benchmark, item, owners, settings) for item in items)

    found = []
    for name in benchmark.relevance.keys() | queries.keys() | texts.keys():
        positives, asked = benchmark.relevance.get(name, ()), queries.get(name, [])
        hidden = max(0, len(positives) - _MOST_POSITIVES) + max(0, len(asked) - _MOST_QUERIES)
        found.append(
            Entry(
                name,
                tuple(part for part in nodes.get(name, ()) if part != UNASSIGNED),
                shots(asked[:_MOST_QUERIES]),
                shots(positives[:_MOST_POSITIVES]),
                tuple(benchmark.path_of(item) for item in texts.get(name, [])[:_MOST_TEXTS]),
                hidden,
            )
        )
    return sorted(found, key=lambda one: (one.category, one.name))


def _by_object(items: Iterable[str]) -> dict[str, list[str]]:
    grouped: dict[str, list[str]] = {}
    for item in items:
        grouped.setdefault(object_of(item), []).append(item)
    return grouped


def _shot(benchmark: Benchmark, item: str, owners: dict[str, Credit], settings: PublishSettings) -> Shot:
    path = benchmark.path_of(item)
    credit = owners.get(item, Credit())
    if not credit.licence and settings.licence is not None:
        credit = Credit(settings.licence, "", credit.author, credit.page_url)
    return Shot(Item(item, path), path.with_name(f"{path.stem}_bbox.txt"), credit)


def _credits(table: Path, only: list[str] | None) -> dict[str, Credit]:
    """Read whose the images of a table are; addresses that are not of the web are left out."""
    found = {}
    for batch in batches_of(table) if table.exists() else ():
        here = batch if only is None else batch.filter(pc.is_in(batch.column("id"), pa.array(only, pa.string())))
        names = ("id", "licence", "licence_url", "author", "page_url")
        for item, licence, licence_url, author, page in zip(*(here.column(n).to_pylist() for n in names), strict=True):
            found[item] = Credit(
                blank(licence) or blank(licence_url) or "", _web(licence_url), blank(author) or "", _web(page)
            )
    return found


def _web(url: str | None) -> str:
    return url if url is not None and _WEB.fullmatch(url) else ""


def _distractors(checked: Checked) -> tuple[Shot, ...]:
    """Choose distractors, evenly over the shards and in them."""
    shards = [shard for shard in checked.benchmark.distractor_shards if shard.tar is not None]
    chosen = _evenly(len(shards), _MOST_SHARDS)
    found: list[Shot] = []
    for at in chosen:
        shard = shards[at]
        if shard.tar is None:
            continue
        index = scan_once(shard.tar, checked.root / STATE / "tar_index").index
        members = [index.member(place) for place in _evenly(len(index), -(-_DISTRACTORS // len(chosen)))]
        table = checked.root / ROWS / f"{shard.name.removesuffix('.tar')}{ROWS_ENDING}"
        owners = _credits(table, [member.key for member in members])
        found += [
            Shot(Item(f"{shard.name}/{one.key}", shard.tar, one), None, owners.get(one.key, Credit()))
            for one in members
        ]
    return tuple(found)


def _evenly(count: int, most: int) -> list[int]:
    return [place * count // min(count, most) for place in range(min(count, most))]


def write_page(job: PageJob) -> Done:
    """Write a page, unless it is there."""

    def make(path: Path) -> None:
        path.write_text(render(job), encoding="utf-8", newline="\n")

    return job.output.write(job.name, make)


def render(job: PageJob) -> str:
    """Return the HTML of a page; every text of the set is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("openilias.build.publish"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["number"] = lambda value: f"{value:,}"
    environment.filters["breakable"] = _breakable
    environment.filters["anchor"] = lambda name: "o-" + re.sub(r"[^A-Za-z0-9_-]", lambda m: f".{ord(m[0]):x}", name)
    groups = [
        (title, [(page, name, _card(shot, _SMALL, boxed=False) if shot else None) for page, name, shot in part])
        for title, part in job.groups
    ]
    return environment.get_template("page.html.j2").render(
        job=job,
        groups=groups,
        shown=[_shown(entry) for entry in job.entries],
        cards=[_card(shot, _SIDE) for shot in job.shots],
    )


def _breakable(text: str) -> Markup:
    """Return a long id, escaped, that a browser may break after ``_`` and ``/``."""
    return Markup(re.sub("([_/])", r"\1<wbr>", str(escape(text))))  # noqa: S704 - escaped in the same line


def _shown(entry: Entry) -> Shown:
    return Shown(
        entry.name,
        entry.category,
        tuple(_text(path) for path in entry.texts),
        tuple(_card(shot, _SIDE) for shot in entry.queries),
        tuple(_card(shot, _SIDE) for shot in entry.positives),
        entry.hidden,
    )


def _text(path: Path) -> str:
    try:
        text = read_bytes(path, most=2**20).decode("utf-8", "replace").strip()
    except OSError as error:
        raise OpenIliasError(f"This text cannot be read: {error.strerror}.", where=path) from None
    return text if len(text) <= _MOST_TEXT else f"{text[:_MOST_TEXT]}..."


def _card(shot: Shot, side: int, *, boxed: bool = True) -> Card:
    boxes = find_boxes(shot.boxes_of)[0] if boxed and shot.boxes_of is not None else ()
    return Card(shot.item.id, thumbnail(shot.item.read, where=shot.item.id, side=side, boxes=boxes), shot.credit)
