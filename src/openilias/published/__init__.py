"""The numbers of the ILIAS paper as data, with errata. Imports nothing; imported by ``report``."""

from openilias.published.adaptation import Cell, domains, methods, resolutions
from openilias.published.global_models import (
    Erratum,
    ImageRow,
    TextRow,
    errata,
    image_rows,
    text_rows,
)

__all__ = [
    "Cell",
    "Erratum",
    "ImageRow",
    "TextRow",
    "domains",
    "errata",
    "image_rows",
    "methods",
    "resolutions",
    "text_rows",
]
