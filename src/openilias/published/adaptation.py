"""Tables C, D and E of the paper: test resolution, ways to adapt, and what the adaptation is learned from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from openilias.published.printed import read_table

MODELS = {
    "DINOv2": "dinov2_vitl14",
    "OpenCLIP": "convnext_large_mlp.clip_laion2b_ft_soup_320",
    "SigLIP": "vit_large_patch16_siglip_384.webli",
}
"""The models of Tables D and E, as the zoo names them: their numbers are those of Table G."""
_METHODS = {"no adaptation": "none", "PCAw [26]": "pcaw", "Lw [52]": "lw", "ours": "ujcds"}
_DOMAINS = {
    "no adaptation": "none",
    "GLDv2 [80]": "gldv2",
    "Food2k [41]": "food2k",
    "Met [84]": "met",
    "iNaturalist [78]": "inat",
    "UnED [85]": "all",
}
_RESOLUTION_MODELS = (
    *("eva02_base_patch16_clip_224.merged2b", "vit_base_patch16_clip_224.metaclip_2pt5b"),
    *("convnext_base.clip_laion2b_augreg", "dinov2_vitb14"),
    *("vit_base_patch16_siglip_224.webli", "vit_base_patch16_siglip_512.webli"),
    *("eva02_large_patch14_clip_336.merged2b", "vit_large_patch14_clip_224.metaclip_2pt5b"),
    *("convnext_large_mlp.clip_laion2b_ft_soup_320", "dinov2_vitl14"),
    *("vit_large_patch16_siglip_256.webli", "vit_large_patch16_siglip_384.webli"),
)


@dataclass(frozen=True)
class Cell:
    """One number of a table.

    Attributes:
        setting: the row of Tables D and E, as an experiment names it; the test resolution of Table C.
        model: as the zoo names it.
        value: mAP@1k in percent; of Table C on mini-ILIAS, of the others with 100M distractors.
    """

    setting: str
    model: str
    value: float


@cache
def methods() -> tuple[Cell, ...]:
    """Return Table D: ``none``, ``pcaw``, ``lw`` and ``ujcds``."""
    return _by_model("table_d.csv", "model", _METHODS)


@cache
def domains() -> tuple[Cell, ...]:
    """Return Table E: ``none``, one domain of UnED, or ``all``."""
    return _by_model("table_e.csv", "dataset", _DOMAINS)


@cache
def resolutions() -> tuple[Cell, ...]:
    """Return Table C: models by test resolution, without adaptation."""
    rows = read_table("table_c.csv")
    sides = [name for name in rows[0] if name.isdigit()]
    return tuple(
        Cell(side, model, float(row[side]))
        for model, row in zip(_RESOLUTION_MODELS, rows, strict=True)
        for side in sides
    )


def _by_model(table: str, column: str, names: dict[str, str]) -> tuple[Cell, ...]:
    return tuple(
        Cell(names[row[column]], model, float(row[short]))
        for row in read_table(table)
        for short, model in MODELS.items()
    )
