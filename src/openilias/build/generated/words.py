"""What made-up things are called and made of: words, names, colours, and the families they belong to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

Form = Literal[
    "flat", "cut", "round", "box", "book", "can", "mug", "bottle", "jar", "vase", "ball", "figure", "animal", "robot"
]
Style = Literal["light", "bold", "heavy", "slanted", "outlined", "spaced"]
STYLES: tuple[Style, ...] = get_args(Style)


def _listed(words: str) -> list[str]:
    return words.split()


ADJECTIVES = _listed(
    "amber brisk bubbly cheery chirpy cloudy cosy crinkly crumbly dapper dizzy drowsy dusky fizzy "
    "fluffy foggy frosty fuzzy gentle giddy glossy grumpy hazy husky jaunty jolly knotty lanky leafy "
    "lively lofty mellow misty mossy nifty nimble nutty peppy plump puffy quirky rusty sandy silky "
    "snappy spicy sturdy sunny tangy velvet wiggly woolly zesty zippy"
)
NOUNS = _listed(
    "bimmet blorvic brunkle cadlow chimbit crallop dorrivan drummock embler fandoly fennick flumber "
    "frabbin gadwick gimlop glimmon gorvetta grondle habbock hollivar imbry jorvik kelmish kinnaby "
    "krumple lavvin limbock lorrigan marvock mibbling mundrel nargit noddern obbery orvane pellock "
    "pimbry plunkit quandle quillop rambock rindel rubbick sallown skimbel snorvick stribbel tallock "
    "thrumby tindel tollivan umbrick vandel vorrit wambly wendrick wuffle yarrock yimble zandry zorbik "
    "zuffin"
)
MOST_NAMES = len(ADJECTIVES) * len(NOUNS)

_STARTS = _listed("b bl br c ch cl d dr f fl g gl gr h j k kl l m n p pl pr qu r s sk sl sp st t tr v w z")
_MIDDLES = _listed("a e i o u a e i o ai ea ee oo ou")
_ENDS = _listed("b ck l ll m n nd ng r rn rt s sh ss t th x v z") + [""] * 8

COLOURS: dict[str, tuple[int, int, int]] = {
    "black": (28, 27, 30),
    "white": (244, 242, 236),
    "cream": (240, 224, 190),
    "grey": (134, 136, 140),
    "red": (198, 36, 40),
    "crimson": (146, 20, 50),
    "coral": (240, 112, 92),
    "orange": (238, 128, 32),
    "ochre": (204, 150, 52),
    "yellow": (246, 206, 52),
    "olive": (122, 128, 52),
    "lime": (164, 204, 64),
    "green": (44, 140, 70),
    "dark green": (22, 74, 54),
    "mint": (154, 218, 186),
    "turquoise": (38, 166, 166),
    "sky blue": (122, 190, 232),
    "blue": (38, 92, 190),
    "navy": (24, 38, 92),
    "violet": (114, 66, 160),
    "lilac": (190, 160, 216),
    "magenta": (206, 48, 134),
    "pink": (244, 166, 190),
    "brown": (112, 72, 46),
}


def invent_word(rng: np.random.Generator, *, least: int = 2, most: int = 3) -> str:
    """Return a pronounceable lower-case ASCII word of ``least`` to ``most`` syllables that means nothing."""
    parts = []
    for _ in range(int(rng.integers(least, most + 1))):
        parts.append(_STARTS[rng.integers(len(_STARTS))] + _MIDDLES[rng.integers(len(_MIDDLES))])
    return "".join(parts) + _ENDS[rng.integers(len(_ENDS))]


def object_names(rng: np.random.Generator, count: int) -> list[str]:
    """Return ``count`` different names ``<adjective>_<noun>_<xxx>``, numbered from 000, at most 999."""
    chosen = rng.choice(MOST_NAMES, size=count, replace=False)
    return [f"{ADJECTIVES[c // len(NOUNS)]}_{NOUNS[c % len(NOUNS)]}_{number:03d}" for number, c in enumerate(chosen)]


def palette(rng: np.random.Generator, count: int) -> tuple[tuple[str, ...], NDArray[np.uint8]]:
    """Draw colours for one thing: the first two contrast, all differ.

    Returns:
        the names of ``count`` colours, their values ``(count, 3)`` uint8 RGB, a little off the names'.
    """
    names = list(COLOURS)
    values = np.array(list(COLOURS.values()), float)
    light = values @ (0.3, 0.6, 0.1)
    ground = int(rng.integers(len(names)))
    far = [i for i in range(len(names)) if abs(light[i] - light[ground]) > 70]
    second = int(rng.choice(far))
    rest = rng.permutation([i for i in range(len(names)) if i not in (ground, second)])
    chosen = [ground, second, *(int(i) for i in rest[: count - 2])]
    jitter = rng.normal(0, 9, (count, 3))
    return tuple(names[i] for i in chosen), np.clip(values[chosen] + jitter, 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class Kind:
    """A leaf of the taxonomy and the proportions of its things: front width / height, depth / height."""

    coarse: str
    mid: str
    fine: str
    form: Form
    aspect: tuple[float, float]
    depth: tuple[float, float] = (0.0, 0.0)


KINDS: tuple[Kind, ...] = (
    Kind("printed", "poster", "concert poster", "flat", (0.64, 0.75)),
    Kind("packaging", "box", "cereal box", "box", (0.62, 0.76), (0.2, 0.3)),
    Kind("tableware", "mug", "printed mug", "mug", (0.78, 1.0)),
    Kind("toys", "figure", "wooden figure", "figure", (0.5, 0.8)),
    Kind("printed", "cover", "record cover", "flat", (1.0, 1.0)),
    Kind("packaging", "can", "soup can", "can", (0.66, 0.76)),
    Kind("tableware", "vase", "painted vase", "vase", (0.45, 0.85)),
    Kind("printed", "sticker", "die-cut sticker", "cut", (0.95, 1.05)),
    Kind("packaging", "bottle", "juice bottle", "bottle", (0.28, 0.42)),
    Kind("printed", "label", "luggage label", "cut", (1.3, 1.8)),
    Kind("toys", "robot", "block robot", "robot", (0.6, 0.9)),
    Kind("printed", "poster", "exhibition poster", "flat", (1.2, 1.5)),
    Kind("packaging", "box", "tea box", "box", (1.1, 1.6), (0.5, 0.8)),
    Kind("toys", "ball", "toy ball", "ball", (1.0, 1.0)),
    Kind("printed", "cover", "hardback book", "book", (0.64, 0.78), (0.12, 0.24)),
    Kind("packaging", "jar", "jam jar", "jar", (0.62, 0.85)),
    Kind("toys", "animal", "cloth animal", "animal", (0.7, 1.1)),
    Kind("tableware", "plate", "painted plate", "round", (1.0, 1.0)),
    Kind("packaging", "can", "drink can", "can", (0.5, 0.56)),
    Kind("printed", "card", "postcard", "flat", (1.35, 1.5)),
    Kind("packaging", "box", "toy box", "box", (0.9, 1.25), (0.3, 0.5)),
    Kind("printed", "cover", "magazine cover", "flat", (0.72, 0.8)),
    Kind("printed", "sticker", "round sticker", "round", (1.0, 1.0)),
    Kind("printed", "label", "shop label", "cut", (0.7, 1.3)),
)
