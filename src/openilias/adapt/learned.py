"""The folder of a layer that was learned: ``layer.pth``, and ``adaptation.json`` that says from what."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openilias.adapt.files import read_linear_map
from openilias.adapt.linear import LinearMap
from openilias.core.errors import OpenIliasError
from openilias.core.fingerprints import differences
from openilias.core.manifests import read_manifest
from openilias.core.progress import tell

KIND = "linear adaptation"
MANIFEST, LAYER = "adaptation.json", "layer.pth"
_MODEL = ("model", "weights")
_OTHERS = frozenset({"query_boxes", "positive_boxes", "views"})  # fields that do not concern training images


@dataclass(frozen=True)
class Adaptation:
    """A layer that was learned.

    Attributes:
        layer: the linear map.
        manifest: what it was made from, and how that went.
    """

    layer: LinearMap
    manifest: dict[str, Any]


def read_adaptation(folder: Path) -> Adaptation:
    """Read what :func:`openilias.adapt.train.train` wrote.

    Raises:
        OpenIliasError: it is no such folder, or its layer is not the one that was written.
    """
    manifest = read_manifest(folder / MANIFEST, kind=KIND)
    layer = read_linear_map(folder / LAYER)
    if layer.digest != manifest.get("sha256"):
        raise OpenIliasError(
            "This layer is not the one that was learned.", where=folder / LAYER, fix="Learn it again with --overwrite."
        )
    return Adaptation(layer, manifest)


def read_layer(path: Path, origins: Iterable[Mapping[str, Any]]) -> LinearMap:
    """Read a layer for descriptors of some origin (``DescriptorStore.origin()``).

    Of a learned layer, or one in its folder, it is known which model it belongs to; of other files only the dimensions.
    Another resolution is possible, and said.

    Args:
        path: a file, or the folder of a learned layer.
        origins: of the descriptors to adapt; those of official files say nothing.

    Raises:
        OpenIliasError: as :func:`read_linear_map`, or it was learned from descriptors of another model.
    """
    folder = path if path.is_dir() else path.parent
    if not path.is_dir() and (path.name != LAYER or not (folder / MANIFEST).is_file()):
        return read_linear_map(path)
    made = read_adaptation(folder)
    learned = made.manifest["made_from"]["descriptors"]
    for origin in origins:
        if not all(name in learned and name in origin for name in _MODEL):
            continue
        changed = differences({n: learned[n] for n in _MODEL}, {n: origin[n] for n in _MODEL})
        if changed:
            raise OpenIliasError(
                "This layer was learned from descriptors of another model:\n    " + "\n    ".join(changed[:6]),
                where=path,
                fix="Learn one from descriptors of this model: ilias adapt train.",
            )
        changed = differences(_concerning(learned["protocol"]), _concerning(origin["protocol"]))
        if changed:
            tell(f"{path}: learned with another protocol: {'; '.join(changed)}")
    return made.layer


def _concerning(protocol: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in protocol.items() if name not in _OTHERS}
