"""Explaining any file of ilias or of the official release: what it is, what is in it, what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from openilias.core.errors import OpenIliasError
from openilias.report.inspect_checks import explain_verification
from openilias.report.inspect_hdf5 import explain_hdf5, explain_series, is_hdf5, is_series
from openilias.report.inspect_local import (
    explain_local_store,
    explain_part_of_local_store,
    is_local_store,
    is_part_of_local_store,
)
from openilias.report.inspect_official import (
    GZIP,
    explain_boxes,
    explain_checksums,
    explain_id_list,
    explain_pickle,
    explain_similarities,
    explain_tar,
    explain_taxonomy,
    explain_text_query,
    is_boxes,
    is_checksums,
    is_gzip,
    is_pickle,
    is_tar,
    is_text,
    looks_like_similarities,
)
from openilias.report.inspect_ours import (
    RUN,
    explain_benchmark,
    explain_evaluation,
    explain_image,
    explain_npy,
    explain_our_json,
    explain_parquet,
    explain_part_of_store,
    explain_run,
    explain_store,
    has,
    is_benchmark,
    is_image,
    is_part_of_store,
)
from openilias.report.inspect_rankings import explain_local_similarities, explain_ranking, is_local_similarities
from openilias.report.inspect_values import Explanation, Look, json_object, look_at, shape_of, some
from openilias.report.inspect_weights import ZIP, explain_safetensors, explain_torch, is_safetensors, is_torch

Recogniser = Callable[[Look], bool]
Explainer = Callable[[Look], Explanation]
Kind = tuple[Recogniser, Explainer]


def _is_json(look: Look) -> bool:
    return look.ending == ".json" or look.head.lstrip()[:1] == b"{"


def _explain_json(look: Look) -> Explanation:
    ours = explain_our_json(look)
    if ours is not None:
        return ours
    value = json_object(look)
    if looks_like_similarities(value):
        return explain_similarities(look)
    if value and all(isinstance(mids, dict) for mids in value.values()):
        return explain_taxonomy(look)
    raise look.refuse(f"This JSON file is none that ilias knows; it has the keys {some(value)}.", fix="Give another.")


def _is_text_query(look: Look) -> bool:
    parts = look.path.absolute().parts[-3:]
    return is_text(look) and len(parts) == 3 and shape_of("/".join(parts)) == "text_queries"


FOLDERS: tuple[Kind, ...] = (
    (is_local_store, explain_local_store),
    (has("manifest.json"), explain_store),
    (has("ranking.json"), explain_ranking),
    (has("evaluation.json"), explain_evaluation),
    (has("verify.json"), explain_verification),
    (has(RUN), explain_run),
    (is_series, explain_series),
    (is_benchmark, explain_benchmark),
)
FILES: tuple[Kind, ...] = (
    (is_part_of_local_store, explain_part_of_local_store),
    (is_part_of_store, explain_part_of_store),
    (is_local_similarities, explain_local_similarities),
    (is_hdf5, explain_hdf5),
    (lambda look: look.head.startswith(b"\x93NUMPY") or look.ending == ".npy", explain_npy),
    (lambda look: look.head.startswith(b"PAR1") or look.ending == ".parquet", explain_parquet),
    (is_safetensors, explain_safetensors),
    (is_torch, explain_torch),
    (is_tar, explain_tar),
    (is_image, explain_image),
    (is_pickle, explain_pickle),
    (is_gzip, explain_id_list),
    (_is_json, _explain_json),
    (is_checksums, explain_checksums),
    (is_boxes, explain_boxes),
    (_is_text_query, explain_text_query),
    (lambda look: is_text(look) and look.ending in (".txt", ".csv"), explain_id_list),
)
"""The first recogniser that says yes decides."""


def inspect(path: Path, *, more: Sequence[Kind] = ()) -> Explanation:
    """Explain a file or folder. Nothing in it is executed, and it is read in blocks where it may be large.

    Args:
        path: of the file or folder.
        more: kinds of files that rooms further on know; they are asked first.

    Raises:
        OpenIliasError: it is damaged, or of no kind that is known.
    """
    look = look_at(Path(path))
    # An empty file has no content to explain, whatever its name.
    kinds = FOLDERS if look.folder else (*more, *FILES) if look.size else ()
    for recognise, explain in kinds:
        if recognise(look):
            return _explained(look, explain)
    raise OpenIliasError(
        f"This is no {'folder' if look.folder else 'file'} that ilias knows: {_impression(look)}.",
        where=path,
        fix="Give a file of a benchmark, of features, results or weights, or a folder that ilias wrote.",
    )


def _explained(look: Look, explain: Explainer) -> Explanation:
    try:
        return explain(look)
    except OpenIliasError as error:
        if error.fix is not None and error.where is not None:
            raise
        fix = error.fix or "Correct the file, download it again, or make it again."
        raise OpenIliasError(error.what, where=error.where or look.path, fix=fix) from None


_MAGIC = {
    b"%PDF": "a PDF document",
    b"\x7fELF": "a program",
    b"MZ": "a program",
    ZIP: "a zip archive",
    GZIP: "a gzip file",
    b"BZh": "a bzip2 file",
    b"\xfd7zXZ": "an xz file",
    b"\x28\xb5\x2f\xfd": "a Zstandard file",
    b"SQLite format 3": "an SQLite database",
}


def _impression(look: Look) -> str:
    if look.folder:
        return f"it holds {some(sorted(look.names), most=5)}" if look.names else "it is empty"
    if not look.size:
        return "it is empty"
    name = next((name for magic, name in _MAGIC.items() if look.head.startswith(magic)), "")
    name = name or ("text" if is_text(look) else "binary data")
    return f"it looks like {name}, and begins with {look.head[:8].hex(' ')}"


def lines(explanation: Explanation) -> list[str]:
    """Return an explanation as lines for a terminal."""
    shown = {name.replace("_", " "): value for name, value in explanation.facts.items() if value is not None}
    width = max(map(len, shown), default=0)
    head = [f"{explanation.kind}: {explanation.summary}"]
    facts = [f"  {name:<{width}}  {_text(value)}" for name, value in shown.items()]
    return head + facts + [f"warning: {warning}" for warning in explanation.warnings]


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_text(item)}" for name, item in value.items() if item is not None) or "-"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(_text, value)) or "-"
    return " ".join(str(value).split())
