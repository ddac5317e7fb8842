"""How hard positives are to see: segments outside the object (clutter), and the share of the picture it fills.

Paper, "Bounding box analysis". ``docs/clutter.md`` is for users.
"""

from openilias.build.clutter.counts import count_outside
from openilias.build.clutter.measure import ClutterResult, ClutterSettings, measure_clutter
from openilias.build.clutter.segmenters import Felzenszwalb, Segmenter, SegmenterSpec

__all__ = [
    "ClutterResult",
    "ClutterSettings",
    "Felzenszwalb",
    "Segmenter",
    "SegmenterSpec",
    "count_outside",
    "measure_clutter",
]
