"""The file of a mix that was tuned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from openilias.core.errors import OpenIliasError
from openilias.core.manifests import read_manifest, write_manifest
from openilias.rerank.ensemble import Mix

KIND = "mix of similarities"


def write_mix(mix: Mix, path: Path, *, made_from: dict[str, Any], reached: float) -> None:
    """Write a mix, with what it was tuned on and the mAP it reached there."""
    write_manifest(path, kind=KIND, made_from=made_from, mix=mix.model_dump(mode="json"), map=reached)


def read_mix(path: Path, *, method: str | None = None) -> Mix:
    """Read a mix.

    Args:
        path: the file.
        method: that it must have been tuned for; None takes any.

    Raises:
        OpenIliasError: it is no such file, or was tuned for another method.
    """
    if not path.is_file():
        raise OpenIliasError("There is no such mix.", where=path, fix="Make one: ilias tune.")
    manifest = read_manifest(path, kind=KIND)
    local = manifest["made_from"].get("local", {}).get("local", {})
    tuned = local.get("method") if isinstance(local, dict) else None
    try:
        if None not in (method, tuned) and method != tuned:
            raise OpenIliasError(
                f"This mix was tuned for {tuned}, not for {method}: their similarities are of other sizes.",
                where=path,
                fix="Tune one on a ranking that was re-ranked by this method: ilias tune.",
            )
        return Mix.model_validate(manifest.get("mix"))
    except ValidationError:
        raise OpenIliasError("This mix is damaged.", where=path, fix="Make it again: ilias tune.") from None


def mix_of(path: Path | None, *, method: str, shortlist: int, global_weight: float | None, gamma: float | None) -> Mix:
    """Return the mix of a file, or of numbers that are given, for a shortlist.

    Raises:
        OpenIliasError: neither or both are given.
    """
    given = [value for value in (global_weight, gamma) if value is not None]
    if (path is None) == (not given) or len(given) == 1:
        raise OpenIliasError(
            "How global and local similarity are put together has no default: it depends on model and method.",
            fix="Give --mix with a file of ilias tune, or both --global-weight and --gamma.",
        )
    if path is not None:
        read = read_mix(path, method=method)
        return read.model_copy(update={"shortlist": min(read.shortlist, shortlist)})
    return Mix(shortlist=shortlist, global_weight=global_weight, gamma=gamma)
