"""Checking, counting, showing and editing ``taxonomy.json``; reading it is in :mod:`openilias.data.taxonomy`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openilias.build.collect.csv_tables import read_table, table_bytes
from openilias.core.errors import OpenIliasError, first_few
from openilias.core.files import read_json, write_json
from openilias.core.findings import Finding
from openilias.core.ids import object_of
from openilias.data.ilias import find_ilias, taxonomy_file
from openilias.data.taxonomy import UNASSIGNED, Taxonomy, find_taxonomy, read_taxonomy

Node = tuple[str, str, str]
Nodes = Mapping[str, Node]
LEVELS = ("coarse", "mid", "fine")
HEADER = ("object", *LEVELS)
FEWEST = 4
"""Objects of a mid or finer category, by the paper (section 3.2)."""

_LONGEST = 100


@dataclass(frozen=True)
class Place:
    """A taxonomy: its file, and the objects of the set that it is of, None if it is of none."""

    file: Path
    objects: frozenset[str] | None


def find_place(path: Path, *, new: bool = False) -> Place:
    """Find the taxonomy of a set, or a file of one.

    Args:
        path: folder of a set, or a JSON file.
        new: it need not be there.

    Raises:
        OpenIliasError: there is none.
    """
    if path.is_dir():
        benchmark = find_ilias(path).benchmark
        asked = {object_of(item) for item in (*benchmark.image_queries, *benchmark.text_queries)}
        file = taxonomy_file(path, benchmark.core) or path / "taxonomy.json"
        place = Place(file, frozenset(asked | benchmark.relevance.keys()))
    else:
        place = Place(path, None)
    if not new and not place.file.is_file():
        raise OpenIliasError("There is no such taxonomy.", where=place.file, fix="Give a set, or its taxonomy.json.")
    return place


def read_or_none(path: Path) -> Taxonomy | None:
    """Read a taxonomy; None if there is no such file.

    Raises:
        OpenIliasError: it is malformed.
    """
    return read_taxonomy(path) if path.exists() else None


def tree_of(nodes: Nodes) -> dict[str, dict[str, dict[str, list[str]]]]:
    """Return ``{coarse: {mid: {fine: [object, ...]}}}`` in the order of the objects."""
    tree: dict[str, dict[str, dict[str, list[str]]]] = {}
    for name, (coarse, mid, fine) in nodes.items():
        tree.setdefault(coarse, {}).setdefault(mid, {}).setdefault(fine, []).append(name)
    return tree


def write_taxonomy(path: Path, nodes: Nodes) -> None:
    """Write ``taxonomy.json``, all or nothing; a file that says the same already stays as it is."""
    tree = tree_of(nodes)
    if not path.exists() or read_json(path) != tree:
        write_json(path, tree)


@dataclass(frozen=True)
class LevelCounts:
    """How much there is on each level.

    Attributes:
        objects: that are named.
        categories: coarse, mid, fine, without ``other``.
        nodes: the same with ``other``.
        assigned: objects that have a category on the level.
    """

    objects: int
    categories: tuple[int, int, int]
    nodes: tuple[int, int, int]
    assigned: tuple[int, int, int]


def count_levels(nodes: Nodes) -> LevelCounts:
    """Count a taxonomy."""
    values = list(nodes.values())
    coarse, mid, fine = (len({node[: depth + 1] for node in values}) for depth in range(3))
    one, two, three = (sum(node[depth] != UNASSIGNED for node in values) for depth in range(3))
    return LevelCounts(len(values), Taxonomy(nodes).counts(), (coarse, mid, fine), (one, two, three))


def validate(place: Place, *, fewest: int = FEWEST) -> list[Finding]:
    """Find everything that is wrong with a taxonomy: errors of its form, objects, names, and small categories.

    Args:
        place: its file and the objects of its set.
        fewest: objects that a mid or finer category should have.
    """
    taxonomy, errors = find_taxonomy(place.file)
    findings = list(errors)
    if any(one.kind == "taxonomy-unreadable" for one in errors):
        return findings
    where = str(place.file)
    if place.objects is not None:
        for name in sorted(place.objects - taxonomy.nodes.keys()):
            findings.append(Finding("error", "object-missing", name, "The taxonomy does not name this object."))
        for name in sorted(taxonomy.nodes.keys() - place.objects):
            findings.append(Finding("error", "object-unknown", name, "The set has no such object.", "Remove it."))
    findings += _empty(read_json(place.file), where)
    findings += _alike(taxonomy.nodes, where)
    for name, node in taxonomy.nodes.items():
        if UNASSIGNED in node[:2] and any(part != UNASSIGNED for part in node[node.index(UNASSIGNED) + 1 :]):
            what = f"It has a category below a level at which it has none: {'/'.join(node)}."
            findings.append(Finding("warning", "level-skipped", name, what))
    for path, count in sizes(taxonomy.nodes).items():
        if len(path) > 1 and path[-1] != UNASSIGNED and count < fewest:
            what = f"This category has {count} objects; the paper has at least {fewest} in each."
            findings.append(Finding("warning", "category-small", "/".join(path), what, "Merge it, or leave it out."))
    return findings


def sizes(nodes: Nodes) -> dict[tuple[str, ...], int]:
    """Return how many objects each node has: (coarse,), (coarse, mid), (coarse, mid, fine); sorted."""
    counts = Counter(node[: depth + 1] for node in nodes.values() for depth in range(3))
    return dict(sorted(counts.items()))


def _empty(tree: Any, where: str) -> Iterator[Finding]:
    def look(value: Any, path: tuple[str, ...]) -> Iterator[Finding]:
        if isinstance(value, dict | list) and not value:
            name = "/".join(path) or "The taxonomy"
            yield Finding("warning", "category-empty", where, f"{name} is empty.", "Remove it.")
        elif isinstance(value, dict):
            for key, inner in value.items():
                if not key.strip() or key != key.strip():
                    shown = "/".join((*path, repr(key)))
                    yield Finding("error", "name-blank", where, f"The name {shown} is blank or has blanks around it.")
                yield from look(inner, (*path, key))

    yield from look(tree, ())


def _alike(nodes: Nodes, where: str) -> Iterator[Finding]:
    spelt: dict[tuple[str, ...], set[tuple[str, ...]]] = {}
    for path in sizes(nodes):
        spelt.setdefault(tuple(part.casefold() for part in path), set()).add(path)
    for paths in spelt.values():
        names = sorted({path[-1] for path in paths})
        if len(names) > 1:
            what = f"These names differ in nothing but capitals: {', '.join(names)}."
            yield Finding("error", "name-alike", where, what, "Merge them.")
    for name, others in _objects_alike(nodes):
        what = f"These objects differ in nothing but capitals: {name}, {', '.join(others)}."
        yield Finding("error", "name-alike", where, what)


def _objects_alike(nodes: Nodes) -> Iterator[tuple[str, list[str]]]:
    spelt: dict[str, list[str]] = {}
    for name in nodes:
        spelt.setdefault(name.casefold(), []).append(name)
    yield from ((names[0], names[1:]) for names in spelt.values() if len(names) > 1)


def csv_of(nodes: Nodes, unplaced: Iterable[str] = ()) -> bytes:
    """Return a taxonomy as CSV ``object,coarse,mid,fine``; mid and fine are empty where they are not assigned.

    Args:
        nodes: object -> its place.
        unplaced: objects that have none; they come last, with three empty fields.
    """
    rows = [[name, coarse, _shown(mid), _shown(fine)] for name, (coarse, mid, fine) in nodes.items()]
    return table_bytes(HEADER, rows + [[name, "", "", ""] for name in unplaced])


def _shown(part: str) -> str:
    return "" if part == UNASSIGNED else part


def nodes_of_csv(path: Path, objects: Iterable[str] | None, *, partial: bool = False) -> dict[str, Node]:
    """Read a taxonomy from CSV ``object,coarse,mid,fine``; an empty field is not assigned.

    Args:
        path: the table.
        objects: of the set: each must stand in the table once, and no other; None if there is no set.
        partial: objects of the set may be missing.

    Raises:
        OpenIliasError: it is not so.
    """
    found: dict[str, Node] = {}
    known = None if objects is None else set(objects)
    for line in read_table(path, required=HEADER[:2], optional=HEADER[2:]):
        name = line.values["object"]
        problem = None
        if not name or name in found:
            problem = f"The object {name} stands twice." if name else "This line names no object."
        elif known is not None and name not in known:
            problem = f"The set has no object {name!r}."
        if problem is not None:
            raise OpenIliasError(problem, where=line.where, fix="Correct the line, or remove it.")
        found[name] = node_of(*(line.values[level] for level in LEVELS), where=line.where)
    missing = sorted((known or set()) - found.keys())
    if missing and not partial:
        what = f"{len(missing)} objects of the set are not in this table: {first_few(missing)}."
        raise OpenIliasError(what, where=path, fix="Add them, or leave them out with --partial.")
    return found


def node_of(coarse: str, mid: str = "", fine: str = "", *, where: str | None = None) -> Node:
    """Return a node of names that a person gives; an empty one is not assigned.

    Raises:
        OpenIliasError: a name cannot be one, there is no coarse one, or a level is passed over.
    """
    if not coarse.strip():
        raise OpenIliasError("There is no coarse category.", where=where, fix="Give one; mid and fine may be empty.")
    names = [name.strip() or UNASSIGNED for name in (coarse, mid, fine)]
    for name in names:
        if not name.isprintable() or len(name) > _LONGEST:
            raise OpenIliasError(f"This cannot be the name of a category: {name[:60]!r}.", where=where)
    if names[1] == UNASSIGNED and names[2] != UNASSIGNED:
        what = f"{names[2]!r} is a fine category below no mid one."
        raise OpenIliasError(what, where=where, fix="Give it a mid category, or make it one.")
    return names[0], names[1], names[2]


def assign(nodes: Nodes, name: str, node: Node) -> dict[str, Node]:
    """Return a taxonomy in which an object has this place."""
    return {**nodes, name: node}


def _parse(nodes: Nodes, path: str) -> tuple[str, ...]:
    """Return the category that ``coarse/mid/fine`` names; names may hold a slash themselves, as ILIAS has one."""
    meant = [one for one in sizes(nodes) if "/".join(one) == path]
    if len(meant) > 1:
        raise OpenIliasError(f"{path!r} may be any of {len(meant)} categories.", fix="Edit the taxonomy as a table.")
    if not meant:
        known = sorted("/".join(one) for one in sizes(nodes) if len(one) == path.count("/") + 1)
        fix = (
            f"On this level there are: {first_few(known, most=12)}."
            if known
            else "Give coarse, coarse/mid or .../fine."
        )
        raise OpenIliasError(f"There is no category {path!r}.", fix=fix)
    return meant[0]


def rename(nodes: Nodes, path: str, name: str) -> dict[str, Node]:
    """Return a taxonomy in which a category, ``coarse/mid`` and so on, has another name.

    Raises:
        OpenIliasError: there is no such category, it means "not assigned", or there is one of the new name beside it.
    """
    parts = _parse(nodes, path)
    if parts[-1] == UNASSIGNED or name.strip() in ("", UNASSIGNED):
        raise OpenIliasError(f"{UNASSIGNED!r} means not assigned, and is no category.", fix="Assign its objects.")
    name = node_of(name)[0]
    new = (*parts[:-1], name)
    if name != parts[-1] and any(node[: len(new)] == new for node in nodes.values()):
        raise OpenIliasError(f"There is a category {'/'.join(new)} already.", fix="Put them together with merge.")
    return _moved(nodes, parts, new)


def merge(nodes: Nodes, path: str, into: str) -> dict[str, Node]:
    """Return a taxonomy in which the objects of a category are in another one of the same level.

    Raises:
        OpenIliasError: one of them is not there, or they are not of one level.
    """
    parts, target = _parse(nodes, path), _parse(nodes, into)
    if len(parts) != len(target) or parts == target:
        raise OpenIliasError(f"{path} and {into} are not two categories of one level.", fix="Give two of one level.")
    return _moved(nodes, parts, target)


def _moved(nodes: Nodes, old: tuple[str, ...], new: tuple[str, ...]) -> dict[str, Node]:
    moved: dict[str, Node] = {}
    for name, node in nodes.items():
        inside = node[: len(old)] == old
        coarse, mid, fine = (*new, *node[len(old) :]) if inside else node
        moved[name] = coarse, mid, fine
    return moved


def remove(nodes: Nodes, what: str) -> dict[str, Node]:
    """Return a taxonomy without an object; or without a category, whose objects are not assigned on its level then.

    Raises:
        OpenIliasError: there is neither.
    """
    if what in nodes:
        return {name: node for name, node in nodes.items() if name != what}
    parts = _parse(nodes, what)
    if len(parts) == 1:
        fix = "Assign its objects elsewhere, or merge it into another one."
        raise OpenIliasError("An object needs a coarse category.", fix=fix)
    return {
        name: node_of(*node[: len(parts) - 1]) if node[: len(parts)] == parts else node for name, node in nodes.items()
    }


def outline(nodes: Nodes, *, objects: bool = False) -> list[str]:
    """Return a taxonomy as a Markdown list, with the number of objects of each category; the largest first.

    Args:
        nodes: object -> its place.
        objects: name the objects too.
    """
    counts = sizes(nodes)

    def children(path: tuple[str, ...]) -> list[tuple[str, ...]]:
        inner = [one for one in counts if len(one) == len(path) + 1 and one[: len(path)] == path]
        return sorted(inner, key=lambda one: (one[-1] == UNASSIGNED, -counts[one], one))

    def lines(path: tuple[str, ...]) -> Iterator[str]:
        for one in children(path):
            alone = one[-1] == UNASSIGNED and len(children(path)) == 1
            if not alone:
                yield f"{'  ' * (len(one) - 1)}- {one[-1]} ({counts[one]})"
            if len(one) < 3:
                yield from lines(one)
            elif objects:
                depth = 3 - alone - (one[1] == UNASSIGNED)
                yield from (
                    f"{'  ' * depth}- `{name}`" for name in sorted(n for n, node in nodes.items() if node == one)
                )

    return list(lines(()))
