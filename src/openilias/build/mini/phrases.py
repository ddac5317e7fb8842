"""The texts that distractors are compared with: category labels and synonyms in prompt templates.

The paper (supplement, "mini-ILIAS composition") has 88 labels, 132 terms and 43 templates, and prints 15 of the
templates; it says 9,976 texts, which does not follow from these numbers. The other templates and the terms here are
our own.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from openilias.core.errors import OpenIliasError
from openilias.data.taxonomy import UNASSIGNED, Taxonomy

Category = tuple[str, str, str]
"""Coarse, mid and fine name; empty below its level."""

_PLACE = "*"
_LONGEST = 300  # characters of a text: towers of CLIP read 77 tokens


@dataclass(frozen=True)
class Phrases:
    """What the texts are made of.

    Attributes:
        labels: the categories of the taxonomy, as words; some names recur in several places.
        terms: synonyms and finer words.
        templates: sentences with a ``*``.
        unused: terms whose category the taxonomy does not have.
    """

    labels: tuple[str, ...]
    terms: tuple[str, ...]
    templates: tuple[str, ...]
    unused: int = 0

    @property
    def combinations(self) -> int:
        """How many pairs of a label or term and a template there are."""
        return (len(self.labels) + len(self.terms)) * len(self.templates)

    def texts(self) -> list[str]:
        """Return the different texts, in the order of labels, terms, templates."""
        words = dict.fromkeys((*self.labels, *self.terms))
        return list(dict.fromkeys(template.replace(_PLACE, word) for word in words for template in self.templates))


def make_phrases(taxonomy: Taxonomy, *, synonyms: Path | None = None, templates: Path | None = None) -> Phrases:
    """Gather labels, terms and templates.

    Args:
        taxonomy: whose categories are the labels.
        synonyms: a table ``term,coarse,mid,fine``; by default ours for the taxonomy of ILIAS. Terms of categories that
            this taxonomy does not have are left out, and counted.
        templates: a table whose column ``template`` has sentences with one ``*``; by default 15 of the paper, 28 ours.

    Raises:
        OpenIliasError: there is no taxonomy, or a table is not as it should be.
    """
    categories = categories_of(taxonomy)
    if not categories:
        fix = "Write SET/taxonomy.json: ilias build taxonomy edit"
        raise OpenIliasError("This set has no taxonomy, whose labels would be the texts.", fix=fix)
    found = read_synonyms(synonyms)
    used = [term for term, category in found if category in categories]
    labels = tuple(_words(next(name for name in reversed(category) if name)) for category in categories)
    return Phrases(labels, tuple(used), read_templates(templates), len(found) - len(used))


def categories_of(taxonomy: Taxonomy) -> tuple[Category, ...]:
    """Return the named categories of all levels: coarse, then mid, then fine ones, by name."""
    nodes = set(taxonomy.nodes.values())
    coarse = {(node[0], "", "") for node in nodes if node[0] != UNASSIGNED}
    mid = {(node[0], node[1], "") for node in nodes if node[1] != UNASSIGNED}
    fine = {node for node in nodes if node[2] != UNASSIGNED}
    return (*sorted(coarse), *sorted(mid), *sorted(fine))


def read_synonyms(path: Path | None = None) -> list[tuple[str, Category]]:
    """Read a table ``term,coarse,mid,fine``, by default ours.

    Raises:
        OpenIliasError: it is not as it should be.
    """
    rows = _table(path, "synonyms.csv", ("term", "coarse"))
    return [(row["term"], (row["coarse"], row.get("mid") or "", row.get("fine") or "")) for row in rows]


def read_templates(path: Path | None = None) -> tuple[str, ...]:
    """Read the column ``template`` of a table, by default ours.

    Raises:
        OpenIliasError: it is not as it should be, or a template has not exactly one ``*``.
    """
    templates = tuple(row["template"] for row in _table(path, "templates.csv", ("template",)))
    for template in templates:
        if template.count(_PLACE) != 1:
            raise OpenIliasError(
                f"A template has one {_PLACE} where the word goes, this one has {template.count(_PLACE)}: "
                f"{template[:80]!r}.",
                where=path,
                fix="As in: a photo of a *.",
            )
    return tuple(dict.fromkeys(templates))


def _words(name: str) -> str:
    return " ".join(name.replace("_", " ").replace("/", " ").split())


def _table(path: Path | None, usual: str, needed: Sequence[str]) -> list[dict[str, str]]:
    try:
        text = (files(__package__) / usual if path is None else path).read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise OpenIliasError(f"This table cannot be read: {error}.", where=path) from None
    reader = csv.DictReader(text.splitlines(), strict=True)
    try:
        rows = [{key: (value or "").strip() for key, value in row.items() if key} for row in reader]
    except csv.Error as error:
        raise OpenIliasError(f"This is no CSV: {error}.", where=path) from None
    missing = [name for name in needed if name not in (reader.fieldnames or ())]
    if missing:
        raise OpenIliasError(
            f"This table has no column {missing[0]!r}.", where=path, fix=f"Its first line names {', '.join(needed)}."
        )
    if not rows:
        raise OpenIliasError("This table is empty.", where=path, fix="Add a line, or take ours.")
    _check(rows, needed, path)
    return rows


def _check(rows: Iterable[dict[str, str]], needed: Sequence[str], path: Path | None) -> None:
    for number, row in enumerate(rows, 2):
        empty = next((name for name in needed if not row[name]), None)
        if empty is not None:
            raise OpenIliasError(f"There is no {empty} in this line.", where=f"{path}, line {number}", fix="Fill it.")
        if len(row[needed[0]]) > _LONGEST:
            raise OpenIliasError(f"This is longer than {_LONGEST} characters.", where=f"{path}, line {number}")
