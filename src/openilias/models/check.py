"""The self-check of a backbone: needs no data and no network."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from openilias.core.errors import OpenIliasError
from openilias.models.backbone import Backbone

SIZES = ((500, 375), (375, 500), (333, 499), (640, 97), (64, 64))
"""(width, height) of the pictures tried: landscape, portrait, odd, extreme, tiny."""
TOLERANCE = 1e-5


@dataclass(frozen=True)
class CheckLine:
    """One thing that was tried."""

    name: str
    passed: bool
    detail: str


def check_backbone(backbone: Backbone, *, seed: int = 0) -> list[CheckLine]:
    """Describe made-up pictures of several shapes and look at what comes out.

    Checks the dimension, unit norm, finiteness, determinism, that a batch of one equals a batch of many, and that
    different pictures get different descriptors.
    """
    rng = np.random.default_rng(seed)
    lines = []
    for width, height in SIZES:
        pictures = [made_up_picture(rng, width, height) for _ in range(3)]
        try:
            lines += check_size(backbone, pictures, f"{width}x{height}")
        except OpenIliasError as error:
            lines.append(CheckLine(f"{width}x{height} runs", False, error.what))
    return lines


def check_size(backbone: Backbone, pictures: list[Image.Image], size: str) -> list[CheckLine]:
    """Describe pictures of one size in a batch, again, and one by one."""
    batch = np.stack([backbone.prepare(picture) for picture in pictures])
    many = backbone.encode_images(batch)
    again = backbone.encode_images(np.stack([backbone.prepare(picture) for picture in pictures]))
    single = np.concatenate([backbone.encode_images(batch[i : i + 1]) for i in range(len(batch))])
    norms = np.abs(np.linalg.norm(many, axis=1) - 1).max()
    apart = np.abs(many - single).max()
    untrained = backbone.weights_from.startswith("random")  # such networks may map all to one point
    alike = float((many @ many.T)[np.triu_indices(len(many), 1)].max())
    return [
        CheckLine(f"{size} dimension", many.shape == (len(pictures), backbone.dims), f"{many.shape[1]}"),
        CheckLine(f"{size} unit norm", bool(norms < TOLERANCE), f"off by {norms:.1e}"),
        CheckLine(f"{size} deterministic", bool((many == again).all()), "same bytes twice"),
        CheckLine(f"{size} batch of one", bool(apart < TOLERANCE), f"differs by {apart:.1e}"),
        CheckLine(f"{size} tells apart", alike < 1 - 1e-6 or untrained, f"largest cosine {alike:.4f}"),
    ]


def made_up_picture(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """Blobs of colour over a gradient, with fine texture: something for every kind of model to look at."""
    coarse = rng.integers(0, 256, (max(height // 32, 2), max(width // 32, 2), 3), dtype=np.uint8)
    base = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), np.int16)
    noise = rng.integers(-20, 21, (height, width, 3))
    return Image.fromarray(np.clip(base + noise, 0, 255).astype(np.uint8))
