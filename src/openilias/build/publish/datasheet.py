"""The datasheet of a set: what is known of it is filled in, the rest is asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from openilias import __version__
from openilias.build.publish.facts import STEPS, Facts, LicenceCount, Manifest
from openilias.build.publish.markdown import link, plain, table
from openilias.build.publish.questions import KEYS, OPTIONAL, QUESTIONS
from openilias.build.publish.settings import PublishSettings
from openilias.core.errors import OpenIliasError, first_few
from openilias.core.files import read_bytes

ANSWERS = "datasheet.yaml"  # of a set
_MOST_BYTES = 2**20
_MOST_CAMERAS = 40


@dataclass(frozen=True)
class Datasheet:
    """The text, and the keys of the questions that nobody has answered."""

    text: str
    unanswered: tuple[str, ...]


def read_answers(path: Path | None) -> dict[str, str]:
    """Read ``key: text`` lines; none without a file.

    Raises:
        OpenIliasError: it is something else, or answers questions that there are not.
    """
    if path is None:
        return {}
    try:
        value = yaml.safe_load(read_bytes(path, most=_MOST_BYTES).decode("utf-8"))
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        told = str(error).split("\n", 1)[0]
        raise OpenIliasError(f"These answers cannot be read: {told}.", where=path, fix="Write 'key: text'.") from None
    value = {} if value is None else value
    if not isinstance(value, dict) or not all(isinstance(part, str) for pair in value.items() for part in pair):
        raise OpenIliasError("Answers must be 'key: text'.", where=path, fix="Put text with a colon in quotes.")
    unknown = sorted(value.keys() - set(KEYS))
    if unknown:
        told = f"There are no such questions: {first_few(unknown)}."
        raise OpenIliasError(told, where=path, fix=f"Answer some of: {', '.join(KEYS)}.")
    return {key: text.strip() for key, text in value.items() if text.strip()}


def make_datasheet(facts: Facts, settings: PublishSettings, answers: Mapping[str, str]) -> Datasheet:
    """Write the datasheet.

    Args:
        facts: what is known.
        settings: name, version, licence.
        answers: of the makers, by key; Markdown.
    """
    known = _known(facts, settings)
    unanswered = tuple(key for key in KEYS if key not in known and key not in answers and key not in OPTIONAL)
    lines = [
        f"# Datasheet of {plain(settings.name)} {plain(settings.version)}",
        "",
        "After T. Gebru et al., *Datasheets for Datasets*, Communications of the ACM 64(12), 2021. Numbers "
        "were counted when the set was published; the other answers are those of its makers.",
    ]
    if facts.decisions.open:
        lines += ["", "**Published with open decisions:**", ""]
        lines += [f"- {count:,} {what}" for what, count in sorted(facts.decisions.open.items())]
    for section, questions in QUESTIONS.items():
        lines += ["", f"## {section}"]
        for key, question in questions.items():
            given = [text for text in (known.get(key), answers.get(key)) if text]
            if given or key not in OPTIONAL:
                lines += ["", f"### {question}", "", "\n\n".join(given) or f"*Not answered.* (`{key}`)"]
    return Datasheet("\n".join(lines) + "\n", unanswered)


def licence_table(licences: tuple[LicenceCount, ...]) -> str:
    """Return the licences as a table."""
    rows = [(link(one.name, one.url), one.core, one.distractors) for one in licences]
    return table(("licence", "queries and positives", "distractors"), rows)


def _known(facts: Facts, settings: PublishSettings) -> dict[str, str]:
    return {
        "instances": "Objects: things of which there is one, or one design. Each has photographs and words that ask "
        "for it (queries) and photographs that show it (positives). Distractors are photographs without any of them.",
        "count": _counts(facts),
        "data": f"Images: JPEG, baseline, quality {settings.quality}, 4:4:4, at most {settings.longest} pixels on the "
        f"larger side, sRGB, without metadata; {_bytes(facts.core_bytes)} of objects and "
        f"{_bytes(facts.distractor_bytes)} of distractors. Texts: UTF-8. Boxes: integers, in pixels. One row per image "
        "in `rows/`: address, licence, author, camera, date, sizes, digests.",
        "labels": _labels(facts),
        "missing": _missing(facts),
        "relationships": "Of the same object: the part of an id before its first `/`.",
        "splits": _splits(facts),
        **({"errors": errors} if (errors := _errors(facts)) else {}),
        "self-contained": "All images are part of it; addresses in `rows/` say where they are from, and are not needed."
        + (" The shards of distractors are distributed apart from this folder." if settings.shards == "leave" else ""),
        **({"identifiable": people} if (people := _people(facts)) else {}),
        **({"mechanisms": cameras} if (cameras := _cameras(facts)) else {}),
        **({"timeframe": dates} if (dates := _dates(facts)) else {}),
        "processing": _processing(facts, settings),
        "raw": "Originals are not published: what was blurred or cropped cannot be undone with what is.",
        "software": f"openilias {__version__}, Apache-2.0.",
        "how": (f"From <{settings.url_base}/>. " if settings.url_base else "")
        + "`checksums.txt` has the SHA-256 of every file. `ilias data download --source URL` fetches and verifies it.",
        "licence": "Each image has its own; `rows/` and `attribution.csv.gz` name it, with the author.\n\n"
        + licence_table(facts.licences),
    }


def _counts(facts: Facts) -> str:
    coarse, mid, fine = facts.categories
    rows: list[tuple[str, int]] = [
        ("objects", facts.objects),
        ("image queries", facts.image_queries),
        ("text queries", facts.text_queries),
        ("positives", facts.positives),
        ("distractors", facts.distractors),
        ("shards of distractors", facts.shards),
    ]
    text = table(("", "number"), rows)
    if coarse:
        text += f"\n\nObjects are in {coarse} categories ({mid} at the second level, {fine} at the third):\n\n"
        text += table(("category", "objects"), [(plain(name), count) for name, count in facts.coarse])
    return text


def _labels(facts: Facts) -> str:
    return (
        "The object; its category at up to three levels (`taxonomy.json`). Boxes around each appearance of the object "
        f"in {facts.query_boxes:,} of {facts.image_queries:,} image queries and {facts.with_boxes:,} of "
        f"{facts.positives:,} positives. The share of the image inside them is stated of {facts.with_coverage:,} "
        f"positives, the number of segments outside of {facts.with_clutter:,}."
    )


def _missing(facts: Facts) -> str:
    parts = []
    if facts.unknown_licences:
        parts.append(f"The licence of {facts.unknown_licences:,} images is not known.")
    if facts.lacking:
        parts.append(f"Of {facts.lacking:,} images nothing is known but their bytes.")
    failed = {status: count for status, count in facts.statuses.items() if status != "stored"}
    if failed:
        told = ", ".join(f"{plain(status)}: {count:,}" for status, count in failed.items())
        parts.append(f"Images that were asked for and are not part of it, by the reason: {told}.")
    without = facts.positives - facts.with_boxes
    if without:
        parts.append(f"{without:,} positives have no boxes.")
    return " ".join(parts) or "None that is known."


def _splits(facts: Facts) -> str:
    text = "None: it is for testing. Nothing of it should be trained on."
    if facts.minis:
        told = ", ".join(f"`{name}` ({count:,})" for name, count in facts.minis)
        text += f" Lists of some of the distractors, for less work: {told}."
    return text


def _errors(facts: Facts) -> str:
    return "; ".join(f"{count:,} {what}" for what, count in sorted(facts.decisions.open.items()))


def _people(facts: Facts) -> str:
    if not facts.decisions.boxes:
        return ""
    rows = [(plain(kind), plain(status), count) for (kind, status), count in facts.decisions.boxes.items()]
    return (
        "Faces and licence plates in queries and positives were searched for and removed; `applied` were removed, "
        "`rejected` were none.\n\n" + table(("what", "decision", "boxes"), rows)
    )


def _cameras(facts: Facts) -> str:
    named = [(name, count) for name, count in facts.cameras if name]
    different, known = facts.distractor_cameras
    parts = []
    if named:
        shown = [(plain(name), count) for name, count in named[:_MOST_CAMERAS]]
        parts.append("Cameras of queries and positives:\n\n" + table(("camera", "images"), shown))
        rest = sum(count for _, count in named[_MOST_CAMERAS:])
        unknown = dict(facts.cameras).get("", 0)
        if rest:
            parts.append(f"{rest:,} more images are of {len(named) - _MOST_CAMERAS} other cameras.")
        if unknown:
            parts.append(f"The camera of {unknown:,} is not known.")
    if known:
        parts.append(f"Different cameras of the {known:,} distractors of which it is known: {different:,}.")
    return "\n\n".join(parts)


def _dates(facts: Facts) -> str:
    decisions, parts = facts.decisions, []
    cut_offs = {date: count for date, count in decisions.cut_offs.items() if date}
    if cut_offs:
        rows = [(plain(date), count) for date, count in cut_offs.items()]
        parts.append(
            "Objects were not public before a cut-off date: what is older cannot show them.\n\n"
            + table(("cut-off date", "objects"), rows)
        )
        parts.append(
            f"The date on which an object was first public is recorded of {decisions.dated:,} of "
            f"{sum(decisions.cut_offs.values()):,}, evidence of it of {decisions.with_evidence:,}. "
            f"Rejected objects: {decisions.objects.get('rejected', 0):,}."
        )
    years = [(year, count) for year, count in facts.distractor_years if year]
    if years:
        parts.append("Distractors by the year in which they were taken, as far as it is stated:\n\n"
                     + table(("year", "distractors"), years))  # fmt: skip
    late = sum(count for year, count in years if cut_offs and year > min(cut_offs)[:4])
    if late:
        parts.append(f"{late:,} state a year after the first cut-off date; clocks of cameras are often wrong.")
    return "\n\n".join(parts)


def _processing(facts: Facts, settings: PublishSettings) -> str:
    text = f"Every stored image was checked to be as described above. {facts.reencoded:,} images were encoded anew."
    if facts.decisions.captions:
        told = ", ".join(f"{count:,} {plain(status)}" for status, count in facts.decisions.captions.items())
        text += f" Texts that a model proposed and people judged: {told}."
    for manifest in sorted(facts.manifests, key=lambda one: (STEPS.index(one.step) if one.step else -1, one.kind)):
        text += f"\n\n{_settings(manifest)}"
    return text


def _settings(manifest: Manifest) -> str:
    title = f"**{plain(manifest.step or 'set')}** ({plain(manifest.kind)})"
    if not manifest.settings:
        return title
    rows = [(plain(name), plain(value)) for name, value in manifest.settings]
    more = f"\n\n{manifest.more} more settings are not shown." if manifest.more else ""
    return f"{title}:\n\n{table(('setting', 'value'), rows)}{more}"


def _bytes(count: int) -> str:
    for unit, size in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count / 1000:.0f} kB"


def licences_text(facts: Facts, settings: PublishSettings) -> str:
    """Write the list of licences that people read."""
    unknown = (
        f"\nThe licence of {facts.unknown_licences:,} images is not known; they were published in spite of that.\n"
        if facts.unknown_licences
        else ""
    )
    default = (
        f"\nImages of the objects whose makers state nothing else are under {plain(settings.licence)}.\n"
        if settings.licence
        else ""
    )
    return (
        f"# Licences of {plain(settings.name)} {plain(settings.version)}\n\n"
        "Each image has its own licence. Which, and whom to name, is in `attribution.csv.gz` (one line per image: "
        "id, licence, its text, author, page, file) and in `rows/*.parquet`.\n"
        f"{default}{unknown}\n{licence_table(facts.licences)}\n"
    )
