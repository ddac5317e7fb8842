"""The numbers of the ILIAS paper as data, with errata. Imports nothing; imported by ``report``."""

from openilias.published.adaptation import Cell, domains, methods, resolutions
from openilias.published.global_models import ImageRow, TextRow, image_rows, text_rows
from openilias.published.printed import Erratum, Printed, Value, errata, names, printed
from openilias.published.reranking import Reranked, reranked_by_method, reranked_by_model

__all__ = [
    "Cell",
    "Erratum",
    "ImageRow",
    "Printed",
    "Reranked",
    "TextRow",
    "Value",
    "domains",
    "errata",
    "image_rows",
    "methods",
    "names",
    "printed",
    "reranked_by_method",
    "reranked_by_model",
    "resolutions",
    "text_rows",
]
