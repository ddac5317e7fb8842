"""The page of the zoo, ``docs/zoo.md``: every record, with the published numbers beside it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from openilias.models.record import Record, find_record, records
from openilias.published import Erratum, ImageRow, TextRow, errata, image_rows, text_rows

_INTRODUCTION = """# The zoo

A record for every model of Tables G and H of the paper, and for {others} others. A name goes wherever a model is asked
for; the paper's own names, in small print where they differ, do too:

    ilias models list --family siglip --max-params 400 --sort gflops
    ilias models show {example}
    ilias extract my-ilias --model {example} --partition positives --out stores/positives

Any other model of timm, torchvision, open_clip or transformers goes by the name of its library, without a record.

- **train px**, **test px**: longer side of the images. The rule for testing (section 4 of the paper): below 299 pixels
  in training: 384; below 512: 512; from 512 on: 724.{exceptions}
- **dims**, **M params**, **GFLOPs** are measured: the length of a descriptor, the parameters of the image tower in
  millions, and 10^9 multiply-adds to describe one picture of 500 x 375 pixels at test resolution.
- **pooled**: what the descriptor is made of, before a projection if the model has one.
- **mAP** is the paper's mAP@1k in percent: image-to-image with 100M distractors, with 5M and 100M after linear
  adaptation (†), and text-to-image with 100M; with 5M it stands beside the text towers. Nothing else here is a result.
  ‡: the paper prints another value in its Table G or H, see the [errata](#errata-of-tables-g-and-h).
- **weights**: `hub` and `url` are fetched when they are needed, `file` is given with `--weights FILE`, `fit` is fitted
  on your own images; *on request*: not published, ask the authors.
"""
_HEADER = (
    "model",
    "year",
    "kind",
    "train px",
    "test px",
    "dims",
    "M params",
    "GFLOPs",
    "pooled",
    "i2i 100M",
    "i2i 5M †",
    "i2i 100M †",
    "t2i 100M",
    "licence",
    "weights",
)
_FOR_RETRIEVAL = ("gldv2", "sop", "uned")
_PRINTED = {"map1k_5m": "5M, without adaptation", "train_res": "train res", "test_res": "test res"}
_SPECIAL = re.compile(r"[&<>*`~|\[\]\\]|\b_|_\b")
Row = TypeVar("Row", ImageRow, TextRow)


def zoo_page() -> str:
    """Return the page in Markdown."""
    images, texts = _by_record(image_rows()), _by_record(text_rows())
    everything = list(records().values())
    known = [record for record in everything if record.name in images]
    others = [record for record in everything if record.name not in images]
    exceptions = "".join(f" `{r.name}` is tested at {r.model.test}." for r in known if r.model.test is not None)
    example = "vit_large_patch16_siglip_384.webli"
    parts = [_INTRODUCTION.format(others=len(others), example=example, exceptions=exceptions)]
    marked = _marked()
    for title, chosen in _groups(known, others):
        ordered = sorted(chosen, key=_rank(images))
        rows = [_row(record, images.get(record.name), texts.get(record.name), marked) for record in ordered]
        parts.append(f"## {title}\n\n{_table(_HEADER, rows)}")
    parts.append("## Text towers\n\n" + _text_towers(everything, texts))
    parts.append("## Notes\n\n" + _notes(everything))
    parts.append("## Publications\n\n" + _citations(everything))
    parts.append("## Errata of Tables G and H\n\n" + _errata())
    return "\n".join(parts)


def _groups(known: Sequence[Record], others: Sequence[Record]) -> list[tuple[str, list[Record]]]:
    def where(chosen: Sequence[Record], condition: Callable[[Record], bool]) -> list[Record]:
        return [record for record in chosen if condition(record)]

    def retrieval(record: Record) -> bool:
        return record.training == "dist" or record.dataset in _FOR_RETRIEVAL

    local = where(others, lambda record: record.model.weights in ("fit", "file"))
    later = [record for record in others if record not in local]
    return [
        ("Image-text models of the paper", where(known, lambda record: record.training == "vla")),
        ("Self-supervised models of the paper", where(known, lambda record: record.training == "ssl")),
        ("Models of the paper that were trained for retrieval, or by distillation", where(known, retrieval)),
        (
            "Supervised models of the paper",
            where(known, lambda record: record.training.startswith("sup") and not retrieval(record)),
        ),
        ("Image-text models beyond the paper", where(later, lambda record: record.training == "vla")),
        ("Image models beyond the paper", where(later, lambda record: record.training != "vla")),
        ("Without a download from a hub", local),
    ]


def _by_record(rows: Iterable[Row]) -> dict[str, Row]:
    found = {}
    for row in rows:
        record = find_record(row.checkpoint)
        if record is not None:
            found[record.name] = row
    return found


def _rank(images: Mapping[str, ImageRow]) -> Callable[[Record], tuple[float, int, int]]:
    """Best first where there is a number, then the newest and the largest."""

    def rank(record: Record) -> tuple[float, int, int]:
        row = images.get(record.name)
        return (-row.map_100m_adapted if row else 0.0), -record.year, -record.parameters

    return rank


def _marked() -> frozenset[tuple[str, str]]:
    """Return (name of the record, column) of what the paper prints otherwise."""
    found = ((find_record(one.row), one.column) for one in _of_the_zoo() if one.row != "*")
    return frozenset((record.name, column) for record, column in found if record is not None)


def _row(record: Record, image: ImageRow | None, text: TextRow | None, marked: frozenset[tuple[str, str]]) -> list[str]:
    def value(number: int, column: str) -> str:
        return f"{number} ‡" if (record.name, column) in marked else f"{number}"

    name = f"`{record.name}`" + "".join(f"<br><small>{_plain(other)}</small>" for other in record.also)
    spec = record.model
    return [
        name,
        str(record.year),
        _plain(record.kind),
        value(spec.train_resolution, "train_res"),
        value(spec.test_resolution, "test_res"),
        value(record.dims, "dims"),
        f"{record.parameters / 1e6:.1f}" if record.parameters else "",
        f"{record.gflops:.1f}" if record.gflops else "",
        record.descriptor,
        f"{image.map_100m:.1f}" if image else "",
        f"{image.map_5m_adapted:.1f}" if image else "",
        f"{image.map_100m_adapted:.1f}" if image else "",
        f"{text.map_100m:.1f}" if text else "",
        _plain(spec.licence or "not stated"),
        "on request" if record.available == "on request" else spec.weights,
    ]


def _text_towers(everything: Iterable[Record], texts: Mapping[str, TextRow]) -> str:
    rows = []
    for record in everything:
        if record.text_parameters is not None:
            # Without a tower of its own the architecture describes texts itself.
            tower, row = record.model.text or record.model, texts.get(record.name)
            rows.append(
                [
                    f"`{record.name}`",
                    f"`{tower.architecture}`",
                    f"`{tower.tag}`",
                    f"{record.text_parameters / 1e6:.1f}",
                    str(record.context),
                    f"`{record.tokenizer}`" if "/" in str(record.tokenizer) else str(record.tokenizer),
                    f"{row.map_5m:.1f}" if row else "",
                    f"{row.map_100m:.1f}" if row else "",
                ]
            )
    header = (
        "model",
        "in open_clip",
        "tag",
        "M params",
        "longest text, tokens",
        "tokenizer",
        "t2i 5M",
        "t2i 100M",
    )
    return (
        "Texts are described by the tower that was trained with the images; models that are not in this table describe"
        " images only. A tokenizer that is not built in is fetched once, or read from `--tokenizer FOLDER`.\n\n"
        + _table(header, rows)
    )


def _notes(everything: Iterable[Record]) -> str:
    names: dict[str, list[str]] = {}
    for record in everything:
        if record.note:
            names.setdefault(record.note, []).append(f"`{record.name}`")
    return "".join(f"- {', '.join(models)}: {_plain(note)}\n" for note, models in names.items())


def _citations(everything: Iterable[Record]) -> str:
    families: dict[str, dict[str, None]] = {}
    for record in everything:
        families.setdefault(record.family, {}).update(dict.fromkeys(record.citation.split("; ")))
    return "".join(
        f"- **{_plain(family)}**: {_plain('; '.join(citations))}.\n" for family, citations in families.items()
    )


def _of_the_zoo() -> list[Erratum]:
    return [one for one in errata() if one.table in ("G", "H")]


def _errata() -> str:
    rows = [
        [
            one.table,
            "all rows" if one.row == "*" else f"`{one.row}`",
            _PRINTED.get(one.column, one.column),
            one.printed,
            one.right,
            _plain(one.why),
        ]
        for one in _of_the_zoo()
    ]
    return _table(("table", "row", "column", "printed", "right", "why"), rows)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def _plain(text: str) -> str:
    """Return text that Markdown takes as it is, within tables too."""
    return _SPECIAL.sub(lambda found: f"&#{ord(found.group())};", text)
