"""A set of four pictures, one of which shows a face that ships with scikit-image."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from openilias.build.anonymise.pixels import encoded
from openilias.build.perceptual import hash_of_file
from openilias.build.stored import StoredImage, rows_file, write_rows
from openilias.images.boxes import Box

SIDE = 200
IMAGES = ("cup_001/pos/P001_00.jpg", "cup_001/pos/P001_01.jpg", "cup_001/query/Q001_00.jpg", "hat_002/pos/P002_00.jpg")
OBJECT = Box(10, 120, 60, 60)
FACE = Box(120, 40, 48, 48)


def faces() -> Any:
    """100 faces and 100 other pieces of photographs, 25 x 25, that ship with scikit-image."""
    import skimage

    return (np.load(Path(skimage.__file__).parent / "data/lfw_subset.npy") * 255).astype(np.uint8)


def scene(seed: int, *, face: int | None = None, at: Box = FACE, side: int = SIDE) -> Any:
    """A smooth picture with a textured object, and perhaps a face."""
    rng = np.random.default_rng(seed)
    low = Image.fromarray(rng.integers(60, 200, (4, 4, 3), np.uint8))
    picture = np.array(low.resize((side, side), Image.Resampling.BICUBIC))
    x, y, width, height = OBJECT
    picture[y : y + height, x : x + width] = rng.integers(0, 255, (6, 6, 3), np.uint8).repeat(10, 0).repeat(10, 1)
    if face is not None:
        grey = Image.fromarray(faces()[face]).resize((at.width, at.height), Image.Resampling.BICUBIC)
        picture[at.y : at.y + at.height, at.x : at.x + at.width] = np.asarray(grey)[..., None]
    return picture


def make_set(root: Path) -> Path:
    """Four images of two objects: a face in the first one, none in the others; a table of rows."""
    rows = []
    for number, item in enumerate(IMAGES):
        path = root / "ilias_core" / item
        path.parent.mkdir(parents=True, exist_ok=True)
        data = encoded(scene(number, face=3 if number == 0 else None))
        path.write_bytes(data)
        path.with_name(f"{path.stem}_bbox.txt").write_text("10 120 60 60\n")
        facts = {"width": SIDE, "height": SIDE, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        reencoded = None if number else False
        rows.append(StoredImage(item, "stored", hash=hash_of_file(data), reencoded=reencoded, author="ä", **facts))
    (root / "ilias_core/hat_002/query").mkdir()
    (root / "ilias_core/hat_002/query/T002.txt").write_text("a hat\n")
    write_rows(rows_file(root, "core"), [*rows, StoredImage("cup_001/pos/P001_09.jpg", "rejected")])
    return root
