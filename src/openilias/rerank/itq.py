"""Local descriptors as bits: iterative quantisation (Gong et al., PAMI 2013)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from openilias.core.errors import OpenIliasError
from openilias.core.files import atomic_path

FORMAT = "openilias binarisation 1"
_LEAST = 1e-9  # of the largest variance: less is rounding

Floats = npt.NDArray[np.floating]


@dataclass(frozen=True, eq=False)
class Binarisation:
    """Bit i is 1 where (x - mean) . weight[:, i] is not negative.

    Attributes:
        weight: (D, bits) float32.
        mean: (D,) float32.

    Raises:
        OpenIliasError: on construction, if the shapes do not fit, or the bits are no multiple of 64.
    """

    weight: npt.NDArray[np.float32]
    mean: npt.NDArray[np.float32]

    def __post_init__(self) -> None:
        if self.weight.ndim != 2 or self.mean.shape != self.weight.shape[:1] or self.weight.shape[1] % 64:
            raise OpenIliasError(
                f"A binarisation has a weight (D, bits), bits a multiple of 64, and a mean (D,), not "
                f"{self.weight.shape} and {self.mean.shape}."
            )
        if not (np.isfinite(self.weight).all() and np.isfinite(self.mean).all()):
            raise OpenIliasError("This binarisation has numbers that are not finite.")

    @property
    def bits(self) -> int:
        """Of a packed descriptor."""
        return int(self.weight.shape[1])

    @property
    def dims(self) -> int:
        """Of what is packed."""
        return int(self.weight.shape[0])

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the numbers."""
        digest = hashlib.sha256(f"binarisation {self.dims} {self.bits}\n".encode())
        for values in (self.weight, self.mean):
            digest.update(np.ascontiguousarray(values, "<f4").tobytes())
        return digest.hexdigest()

    def pack(self, descriptors: Floats) -> npt.NDArray[np.uint8]:
        """Return (n, bits / 8) uint8 of (n, D), as ``numpy.packbits``.

        Raises:
            OpenIliasError: other dimensions.
        """
        if descriptors.ndim != 2 or descriptors.shape[1] != self.dims:
            raise OpenIliasError(
                f"This binarisation takes {self.dims} dimensions, these descriptors have shape {descriptors.shape}.",
                fix="Learn one from descriptors of this model: ilias local itq.",
            )
        return np.packbits((descriptors.astype(np.float32) - self.mean) @ self.weight >= 0, axis=1)


def learn_itq(
    descriptors: Floats, bits: int, *, iterations: int = 50, seed: int = 0, centred: bool = False
) -> Binarisation:
    """Learn a binarisation from a sample.

    The descriptors are projected on their first axes, and the axes turned so that the signs lose least. More bits than
    dimensions are made of several turns of all axes, each from a beginning of its own.

    Args:
        descriptors: (n, D).
        bits: how many, a multiple of 64.
        iterations: of turning.
        seed: of the beginnings.
        centred: subtract the mean; AMES does not (its bits are the signs of x W).

    Raises:
        OpenIliasError: bits that cannot be, too few descriptors, or ones that do not vary.
    """
    x = descriptors.astype(np.float64)
    count, dims = x.shape
    if bits < 64 or bits % 64:
        raise OpenIliasError(f"{bits} bits cannot be packed.", fix="Give a multiple of 64.")
    if not np.isfinite(x).all():
        raise OpenIliasError("A local descriptor is not finite.", fix="Describe the images again.")
    mean = x.mean(0) if centred else np.zeros(dims)
    x = x - mean
    values, axes = np.linalg.eigh(x.T @ x / max(count, 1))
    values, axes = values[::-1], axes[:, ::-1]
    each = min(bits, dims)
    varying = int((values > values[0] * _LEAST).sum()) if count else 0
    if count < 2 * each or varying < each:
        raise OpenIliasError(
            f"{count} descriptors that vary along {varying} axes do not determine {each} bits.",
            fix="Give more descriptors, or fewer bits.",
        )
    parts = []
    for number, start in enumerate(range(0, bits, each)):
        width = min(each, bits - start)
        rng = np.random.default_rng([seed, number])
        parts.append(axes[:, :width] @ _turned(x @ axes[:, :width], rng, iterations))
    return Binarisation(np.concatenate(parts, 1).astype(np.float32), mean.astype(np.float32))


def _turned(projected: npt.NDArray[np.float64], rng: np.random.Generator, iterations: int) -> npt.NDArray[np.float64]:
    """Return the rotation (b, b) after which signs lose least."""
    width = projected.shape[1]
    rotation = np.linalg.qr(rng.standard_normal((width, width)))[0]
    for _ in range(iterations):
        signs = np.where(projected @ rotation >= 0, 1.0, -1.0)
        left, _, right = np.linalg.svd(projected.T @ signs)
        rotation = left @ right
    return rotation


def write_binarisation(made: Binarisation, path: Path, *, made_from: dict[str, Any]) -> None:
    """Write it to one ``.safetensors`` file that carries its digest and what it was made from."""
    import json

    from safetensors.numpy import save_file

    metadata = {"format": FORMAT, "digest": made.digest, "made_from": json.dumps(made_from, sort_keys=True)}
    with atomic_path(path) as temporary:
        save_file({"weight": np.ascontiguousarray(made.weight), "mean": made.mean}, temporary, metadata=metadata)


def read_binarisation(path: Path) -> tuple[Binarisation, dict[str, Any]]:
    """Read what :func:`write_binarisation` wrote: the binarisation, and what it was made from.

    Raises:
        OpenIliasError: no such file, another kind of file, or its numbers are not those of its digest.
    """
    import json

    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise OpenIliasError("There is no such binarisation.", where=path, fix="Learn one: ilias local itq.")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise OpenIliasError("This file is no binarisation.", where=path, fix="Learn one: ilias local itq.")
            made = Binarisation(file.get_tensor("weight"), file.get_tensor("mean"))
            made_from: dict[str, Any] = json.loads(metadata["made_from"])
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise OpenIliasError(f"This binarisation cannot be read: {error}.", where=path, fix="Learn it again.") from None
    if made.digest != metadata.get("digest"):
        raise OpenIliasError("This binarisation is damaged: its digest differs.", where=path, fix="Learn it again.")
    return made, made_from
