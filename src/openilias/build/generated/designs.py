"""What tells one made-up thing from another, how alike two can be, and how a person would ask for one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from openilias.build.generated.words import STYLES, Form, Kind, Style, invent_word, palette

PATTERNS = (
    "plain",
    "stripes",
    "checks",
    "dots",
    "waves",
    "rays",
    "rings",
    "lattice",
    "facets",
    "hills",
    "gradient",
)
OUTLINES = ("star", "flower", "polygon", "blob", "ring", "gear", "circle")
_PATTERN_WORDS = {
    "plain": "a plain {0} ground",
    "stripes": "{1} stripes on {0}",
    "checks": "a {0} and {1} check",
    "dots": "{1} dots on {0}",
    "waves": "{1} waves on {0}",
    "rays": "{0} and {1} rays",
    "rings": "{0} and {1} concentric rings",
    "lattice": "a {1} diamond lattice on {0}",
    "facets": "{0} and {1} triangular facets",
    "hills": "a landscape of {1} hills under a {0} sky",
    "gradient": "a ground fading from {0} to {1}",
}


TRAITS: Mapping[str, tuple[str, ...]] = {
    "second word": ("second",),
    "mark": ("mark",),
    "small shapes": ("small", "small_count"),
    "shape": ("aspect", "depth", "shape"),
    "layout": ("layout",),
    "colours": ("colours", "rgb"),
    "pattern": ("pattern", "texture"),
    "motif": ("outline", "points"),
    "title": ("title", "style"),
}
"""What two things of a kind can share or not: the name of a trait -> the fields of :class:`Design` it is made of."""
DETAILS = ("second word", "mark", "small shapes")
"""The traits that are small details of a thing."""


@dataclass(frozen=True)
class Design:
    """Everything that tells one made-up thing from another.

    ``key`` is who it is and paints nothing; ``shape``, ``layout`` and ``texture`` seed what is drawn at random of
    its body, of where things stand on its faces, and of its pattern.
    """

    key: tuple[int, ...]
    kind: Kind
    aspect: float
    depth: float
    shape: int
    layout: int
    texture: int
    colours: tuple[str, ...]
    rgb: tuple[tuple[int, int, int], ...]
    pattern: str
    outline: str
    points: int
    small: str
    small_count: int
    title: str
    second: str
    style: Style
    mark: str


def make_design(key: Sequence[int], kind: Kind) -> Design:
    """Draw the design of one thing from its own random numbers."""
    rng = np.random.default_rng(key)
    colours, values = palette(rng, 5)
    return Design(
        key=tuple(key),
        kind=kind,
        aspect=float(rng.uniform(*kind.aspect)),
        depth=float(rng.uniform(*kind.depth)),
        shape=int(rng.integers(2**32)),
        layout=int(rng.integers(2**32)),
        texture=int(rng.integers(2**32)),
        colours=colours,
        rgb=tuple((int(r), int(g), int(b)) for r, g, b in values),
        pattern=str(rng.choice(PATTERNS)),
        outline=str(rng.choice(OUTLINES)),
        points=int(rng.integers(4, 10)),
        small=str(rng.choice(OUTLINES)),
        small_count=int(rng.integers(3, 9)),
        title=invent_word(rng),
        second=invent_word(rng),
        style=STYLES[rng.integers(len(STYLES))],
        mark=invent_word(rng, least=1, most=1)[:2].upper(),
    )


def make_variant(design: Design, key: Sequence[int], closeness: float) -> tuple[Design, tuple[str, ...]]:
    """Design another thing of the same kind that shares traits with ``design``; never the same thing.

    With one ``key`` the traits that differ at a higher closeness are among those that differ at a lower one.

    Args:
        design: the thing to resemble.
        key: seeds what differs and how.
        closeness: share of the traits that are the same, in [0, 1]; at 1 one small detail differs, at 0 all do.

    Returns:
        the variant, and the names of the :data:`TRAITS` in which it differs.
    """
    rng = np.random.default_rng([*key, 1])
    detail = DETAILS[int(rng.integers(len(DETAILS)))]
    rest = [name for name in TRAITS if name != detail]
    order = [detail, *(rest[place] for place in rng.permutation(len(rest)))]
    changed = order[: max(1, round((1 - closeness) * len(order)))]
    attempt = 0
    made = replace(design, key=tuple(key))
    for name in changed:
        before = [getattr(design, field) for field in TRAITS[name]]
        while True:
            other = make_design([*key, 2, attempt], design.kind)
            after = {field: getattr(other, field) for field in TRAITS[name]}
            attempt += 1
            if list(after.values()) != before:
                break
        made = replace(made, **after)
    return made, tuple(changed)


_PARTS: Mapping[Form, str] = {
    "cut": "cut out along its edge",
    "book": "with a printed spine",
    "mug": "with a round handle and {4} inside",
    "bottle": "with a {4} cap",
    "jar": "with a {4} lid",
    "vase": "of a turned shape",
    "figure": "with a {4} hat",
    "animal": "with {4} ears and paws",
    "robot": "with {4} arms and legs",
}


def describe(design: Design) -> str:
    """Return one detailed English sentence about a thing, as a person would ask for it."""
    c = design.colours
    ground = _PATTERN_WORDS[design.pattern].format(*c)
    outline = f"{design.points}-pointed star" if design.outline == "star" else design.outline
    article = "an" if design.kind.fine[0] in "aeiou" else "a"
    part = _PARTS.get(design.kind.form, "").format(*c)
    name = f"{article.capitalize()} {design.kind.fine}" + (f" {part}," if part else "")
    return (
        f"{name} with {ground}, the word {design.title.upper()} in "
        f"{design.style} letters and the smaller word {design.second.title()}, a large {c[2]} {outline} in the "
        f"middle, {design.small_count} small {c[3]} {design.small} shapes around it, "
        f"and a round {c[4]} mark with the letters {design.mark}."
    )
