"""Names of objects as they stand in ids: lower case ASCII letters, digits and underscores."""

from __future__ import annotations

import re
import unicodedata

LONGEST = 120
"""Characters of a name without its number: with it and a box file's ending it fits every file system."""

# Letters that are no accented ones, and so do not decompose.
_LETTERS = str.maketrans(
    {"ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "đ": "d", "ð": "d", "þ": "th", "ł": "l", "ı": "i", "ħ": "h"}
)


def slug(name: str) -> str:
    """Return a name in lower case ASCII; empty if nothing of it is a letter or a digit.

    Accents go (``é`` is ``e``), a few letters are spelt out (``ß`` is ``ss``), other letters and digits that are not
    ASCII become ``u`` and their code in hexadecimal (``茶`` is ``u8336``), and everything else is an underscore.
    """
    folded = unicodedata.normalize("NFKD", name.casefold()).translate(_LETTERS)
    plain = "".join(char for char in folded if not unicodedata.combining(char))
    spelt = "".join(f"_u{ord(char):04x}_" if char.isalnum() and not char.isascii() else char for char in plain)
    return re.sub(r"[^a-z0-9]+", "_", spelt).strip("_")


def natural(name: str) -> tuple[tuple[int, int, str], ...]:
    """Return a key that orders names as people do: ``IMG_2`` before ``IMG_10``."""
    parts = re.split(r"(\d+)", name)
    return tuple((0, int(part), part) if part.isdecimal() and part.isascii() else (1, 0, part) for part in parts)
