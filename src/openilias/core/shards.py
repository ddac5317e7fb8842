"""Parts of work: ``--shard i/n`` does every n-th piece, on any machine."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from openilias.core.errors import OpenIliasError

T = TypeVar("T")


@dataclass(frozen=True)
class Share:
    """The part of the work that falls to one of ``of`` machines; ``number`` counts from 0."""

    number: int = 0
    of: int = 1

    def take(self, pieces: Sequence[T]) -> list[T]:
        """Return every ``of``-th piece from ``number`` on: neighbours go to different machines."""
        return list(pieces[self.number :: self.of])

    @property
    def everything(self) -> bool:
        """Whether this is all of the work."""
        return self.of == 1


def parse_share(text: str) -> Share:
    """Read ``i/n`` with i from 0 to n - 1.

    Raises:
        OpenIliasError: it is something else.
    """
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text.strip())
    if found is None or int(found[1]) >= int(found[2]):
        raise OpenIliasError(
            f"Expected a shard 'i/n' with i from 0 to n - 1, found {text!r}.", fix="Give for example --shard 0/8."
        )
    return Share(int(found[1]), int(found[2]))
