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
from openilias.published.reranking import Reranked, reranked_by_method, reranked_by_model

__all__ = [
    "Cell",
    "Erratum",
    "ImageRow",
    "Reranked",
    "TextRow",
    "domains",
    "errata",
    "image_rows",
    "methods",
    "reranked_by_method",
    "reranked_by_model",
    "resolutions",
    "text_rows",
]
