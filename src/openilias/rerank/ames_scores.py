"""AMES on shortlists: batches of images against one query."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from openilias.core.errors import OpenIliasError
from openilias.models.local_features import LocalFeatures
from openilias.rerank.ames import Ames, Padding
from openilias.rerank.ames_files import binarisation_of, digest_of, read_ames
from openilias.rerank.similarities import Candidates, Comparer

PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}

_BATCHES = {"cpu": 16}


@dataclass(frozen=True, eq=False)
class AmesScores:
    """Compares a query with the images of a shortlist.

    Attributes:
        network: on its device.
        device: where it computes.
        batch: images at a time; by default what is fast on the device.
        precision: of the layers; float16 on GPUs only.
    """

    network: Ames
    device: str = "cpu"
    batch: int | None = None
    precision: str = "float32"

    @torch.inference_mode()
    def __call__(self, query: LocalFeatures, candidates: Candidates) -> npt.NDArray[np.float32]:
        """Return (M,) logits.

        Raises:
            OpenIliasError: descriptors of other dimensions, or bits for a network that takes numbers.
        """
        tokens = self._tokens(query.descriptors, image=False)[None]
        counts = np.diff(candidates.offsets)
        # Images of like numbers of descriptors go together: what is padded is computed for nothing.
        order = np.argsort(counts, kind="stable")
        scores = np.empty(len(counts), np.float32)
        kind = PRECISIONS[self.precision]
        with torch.autocast(self.device.partition(":")[0], dtype=kind, enabled=kind is not None):
            batch = self.batch or _BATCHES.get(self.device.partition(":")[0], 256)
            for start in range(0, len(order), batch):
                some = order[start : start + batch]
                scores[some] = self._compare(tokens, candidates, some).float().cpu().numpy()
        if not np.isfinite(scores).all():
            raise OpenIliasError("A similarity of AMES is not finite.", fix="Take --precision float32.")
        return scores

    def _compare(self, query: Tensor, candidates: Candidates, some: npt.NDArray[np.int64]) -> Tensor:
        counts = np.diff(candidates.offsets)[some]
        width = int(counts.max(initial=0))
        places = np.minimum(np.arange(width), np.maximum(counts[:, None] - 1, 0)) + candidates.offsets[some, None]
        padded = np.arange(width) >= counts[:, None]
        rows = candidates.descriptors[np.minimum(places, max(len(candidates.descriptors) - 1, 0))]
        tokens = self._tokens(rows.reshape(-1, rows.shape[-1]), image=True).view(len(some), width, self.network.dims)
        padding = Padding(None, torch.from_numpy(padded).to(self.device)) if padded.any() else Padding()
        scores: Tensor = self.network(query, tokens, padding)
        return scores

    def _tokens(self, descriptors: npt.NDArray[Any], *, image: bool) -> Tensor:
        network = self.network
        if descriptors.dtype == np.uint8:
            if not network.binary or 8 * descriptors.shape[1] != network.dims:
                raise OpenIliasError(
                    f"This network takes no descriptors of {8 * descriptors.shape[1]} bits.",
                    fix="Pack the stores with its own bits: ilias local pack --network FILE.",
                )
            bits = torch.from_numpy(np.unpackbits(descriptors, axis=1)).to(self.device)
            return network.from_signs(bits.float().mul_(2).sub_(1))
        if descriptors.shape[1] != network.local_dims:
            raise OpenIliasError(
                f"This network takes descriptors of {network.local_dims} dimensions, not {descriptors.shape[1]}.",
                fix="Give a network that was trained on descriptors of this model.",
            )
        return network.tokens_of(torch.from_numpy(descriptors.astype(np.float32)).to(self.device), image=image)


def open_ames(path: Path, device: str = "cpu", *, batch: int | None = None, precision: str = "float32") -> Comparer:
    """Read a network; return what compares by it.

    Raises:
        OpenIliasError: as :func:`openilias.rerank.ames_files.read_ames`; float16 on a CPU.
    """
    if precision == "float16" and device.partition(":")[0] == "cpu":
        raise OpenIliasError("float16 is for GPUs.", fix="Take --precision float32 or bfloat16, or another --device.")
    network = read_ames(path)
    bits = binarisation_of(network) if network.binary else None
    score = AmesScores(network.to(device), device, batch, precision)
    return Comparer(score, f"{digest_of(network)} {precision}", bits)
