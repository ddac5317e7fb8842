"""Publishing a set: everything is checked, then written file by file; killed or repeated, it goes on where it was."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from openilias.build.publish.browse import pages_of, write_page
from openilias.build.publish.checks import Checked, check_files, refuse_changes, verified
from openilias.build.publish.core_files import write_core_tar
from openilias.build.publish.croissant import croissant
from openilias.build.publish.datasheet import ANSWERS, Datasheet, licences_text, make_datasheet, read_answers
from openilias.build.publish.facts import Facts, facts_of, manifests_of
from openilias.build.publish.lists import write_lists
from openilias.build.publish.outputs import MARKERS, Done, Output
from openilias.build.publish.settings import ALGORITHM_VERSION, CheckSettings, PublishSettings
from openilias.build.publish.tables import ATTRIBUTION_PARTS, join_attribution, table_jobs, write_table
from openilias.core.errors import OpenIliasError, first_few
from openilias.core.executors import ordered_map, usable_cores
from openilias.core.files import is_temporary, is_there, owned, remove_temporaries, sha256_of, write_bytes
from openilias.core.findings import Finding, refuse
from openilias.core.fingerprints import fingerprint, fingerprint_lines
from openilias.core.manifests import State, claim, contents_of_folder, read_manifest, replacing, write_manifest
from openilias.core.progress import progress
from openilias.data.download import sized
from openilias.data.ilias import CHECKSUMS
from openilias.data.published_places import (
    ATTRIBUTION,
    BROWSE,
    CORE_TAR,
    CROISSANT,
    DATASHEET,
    LICENCES,
    ROWS,
    SHARDS,
    TAXONOMY,
    parse_checksums,
)

KIND = "published set"
MANIFEST = "published.json"
OURS = (
    r"ilias_core\.tar|image_ids|yfcc100m|rows|browse|taxonomy\.json|attribution\.csv\.gz|LICENSES\.md|DATASHEET\.md|"
    r"croissant\.json|checksums\.txt|\.publishing"
)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_SPARE = 1.02  # of the disk space that is asked for


@dataclass(frozen=True)
class Published:
    """The outcome.

    Attributes:
        folder: what is to be put on a server.
        facts: numbers of the set.
        files: path below the folder -> SHA-256, those of shards that lie elsewhere included.
        unanswered: keys of questions of the datasheet.
        findings: warnings.
        fresh: whether anything was written: False if all of it was there.
    """

    folder: Path
    facts: Facts
    files: dict[str, str]
    unanswered: tuple[str, ...]
    findings: tuple[Finding, ...]
    fresh: bool

    def as_json(self) -> dict[str, Any]:
        """Return what a program may want to know."""
        facts = self.facts
        counts = ("objects", "image_queries", "text_queries", "positives", "distractors", "shards")
        return {
            "folder": str(self.folder),
            "counts": {name: getattr(facts, name) for name in counts},
            "unknown_licences": facts.unknown_licences,
            "open": facts.decisions.open,
            "unanswered": list(self.unanswered),
            "files": self.files,
        }


def check(
    root: Path, settings: PublishSettings, checking: CheckSettings | None = None, *, workers: int | None = None
) -> Checked:
    """Look at everything that would be published, and write nothing but what was found, to ``build/publish``.

    Raises:
        OpenIliasError: there is no set.
    """
    count = workers or usable_cores()
    with _told_if_full(root):
        return verified(check_files(root, settings, workers=count), checking or CheckSettings(), workers=count)


def publish(
    root: Path,
    out: Path,
    settings: PublishSettings,
    checking: CheckSettings | None = None,
    *,
    datasheet: Path | None = None,
    workers: int | None = None,
    overwrite: bool = False,
    told: Callable[[Sequence[Finding]], object] = lambda findings: None,
) -> Published:
    """Publish a set: a folder laid out as the official portal, that ``ilias data download --source URL`` fetches.

    Nothing of ``SET/build`` gets there. The folder depends on the set and the settings alone, not on ``workers``.

    Args:
        root: the set.
        out: folder to make. A publishing that was cut off goes on in it.
        settings: what is published.
        checking: how it is looked at before.
        datasheet: answers of the makers; ``datasheet.yaml`` of the set by default, if there is one.
        workers: processes; all cores by default.
        overwrite: replace what was published from something else.
        told: given all findings before anything is written.

    Raises:
        OpenIliasError: there is an error among the findings, ``out`` is in the way, or the disk is full.
    """
    checking, count = checking or CheckSettings(), workers or usable_cores()
    if count < 1:
        raise OpenIliasError(f"There must be at least one worker, not {count}.", fix="Give --workers 1 or more.")
    _check_place(root, out)
    if settings.shards == "link":
        _check_links(root, out)
    with _told_if_full(out):
        return _publish(root, out, settings, checking, datasheet, count, overwrite=overwrite, told=told)


def _publish(
    root: Path,
    out: Path,
    settings: PublishSettings,
    checking: CheckSettings,
    datasheet: Path | None,
    count: int,
    *,
    overwrite: bool,
    told: Callable[[Sequence[Finding]], object],
) -> Published:
    brief = settings.model_dump(mode="json")
    _claim_early(out, brief, overwrite=overwrite)
    answers_file = datasheet or (root / ANSWERS if is_there(root / ANSWERS) else None)
    answers = read_answers(answers_file)
    checked = check_files(root, settings, workers=count)
    made_from = brief | _contents(checked, answers)
    state = claim(out, MANIFEST, kind=KIND, made_from=made_from, overwrite=overwrite, ours=OURS)
    if state == "same" and is_whole(out):
        refuse(checked.findings)
        return _outcome(out, checked, settings, answers, fresh=False)
    checked = verified(checked, checking, workers=count)
    told(checked.findings)
    refuse(checked.findings, hint="all are listed above")
    _check_room(out, checked, settings)
    with _made(out, state), owned(out):
        write_manifest(out / MANIFEST, kind=KIND, made_from=made_from, complete=False)
        remove_temporaries(out)
        sheet = _write(checked, settings, answers, Output(out), count)
        contents = contents_of_folder(out, ours=OURS)
        sums = sha256_of(out / CHECKSUMS)
        write_manifest(
            out / MANIFEST,
            kind=KIND,
            made_from=made_from,
            complete=True,
            contents=contents,
            checksums=sums,
            unanswered=list(sheet.unanswered),
        )
    return _outcome(out, checked, settings, answers, fresh=True)


def _check_place(root: Path, out: Path) -> None:
    source, target = root.resolve(), out.resolve()
    if source == target or source in target.parents or target in source.parents:
        what = "A set cannot be published over, into or around itself."
        raise OpenIliasError(what, where=out, fix="Give another --out.")


def _check_links(root: Path, out: Path) -> None:
    """Refuse links across disks before hours of work."""
    disk = _standing(out).stat().st_dev
    for tar in sorted((root / SHARDS).glob("*.tar")):
        if tar.exists() and tar.stat().st_dev != disk:
            what = "The published folder is on another disk than this shard, which cannot have a second name there."
            fix = "Give an --out on the same disk, --shards copy, or --shards leave."
            raise OpenIliasError(what, where=tar, fix=fix)


def _standing(path: Path) -> Path:
    """Return the folder that is there, of a path that may not be."""
    return next(folder for folder in (path, *path.absolute().parents) if folder.exists())


@contextmanager
def _told_if_full(where: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        what = f"A file cannot be written: {error.strerror}."
        fix = "Make room; then run the same command again: what is finished is kept."
        raise OpenIliasError(what, where=error.filename or where, fix=fix) from None


def _claim_early(out: Path, brief: dict[str, Any], *, overwrite: bool) -> None:
    """Refuse a folder of another set or version before hours of work; what else differs is seen later."""
    there = out / MANIFEST
    others = [path.name for path in out.iterdir() if not is_temporary(path.name)] if out.is_dir() else []
    if others and not there.is_file():
        what = f"The output folder exists and holds no {KIND}: {first_few(sorted(others))}."
        raise OpenIliasError(what, where=out, fix="Give another --out.")
    made_from = brief
    if there.is_file() and not overwrite:
        made_from = read_manifest(there, kind=KIND)["made_from"] | brief
    claim(out, MANIFEST, kind=KIND, made_from=made_from, overwrite=overwrite, ours=OURS)


def _contents(checked: Checked, answers: dict[str, str]) -> dict[str, Any]:
    """Return what identifies all that is published: contents, no places and no times."""
    benchmark, core = checked.benchmark, checked.core
    return {
        "algorithm_version": ALGORITHM_VERSION,
        "benchmark": benchmark.fingerprint,
        "annotations": benchmark.annotations,
        "core": core.fingerprint,
        "tars": fingerprint_lines(f"{one.name} {one.sha256}" for one in checked.shards),
        "rows": fingerprint_lines([core.rows_sha256, *(one.rows for one in checked.shards)]),
        "minis": fingerprint({one.name: one.fingerprint for one in checked.minis}),
        "decisions": fingerprint_lines(sha256_of(path) for path in checked.decisions.tables),
        "manifests": fingerprint_lines(map(repr, manifests_of(checked.root))),
        "answers": fingerprint(answers),
    }


def is_whole(out: Path) -> bool:
    """Tell whether a published folder is complete and still has all its files."""
    manifest = read_manifest(out / MANIFEST, kind=KIND)
    return bool(manifest.get("complete")) and manifest.get("contents") == contents_of_folder(out, ours=OURS)


def _check_room(out: Path, checked: Checked, settings: PublishSettings) -> None:
    shards = sum(shard.size for shard in checked.shards) if settings.shards == "copy" else 0
    need = int(_SPARE * (shards + checked.core.image_bytes))
    here = sum(path.stat().st_size for path in out.rglob("*") if path.is_file()) if out.is_dir() else 0
    free = shutil.disk_usage(_standing(out)).free + here
    if need > free:
        what = f"The disk is too small: {sized(need)} are needed, {sized(free)} are free."
        raise OpenIliasError(what, where=out, fix="Make room, give another --out, or --shards link or leave.")


@contextmanager
def _made(out: Path, state: State) -> Iterator[None]:
    """Make the folder; what a failure leaves is kept as soon as one of its files is done."""

    def begun() -> bool:
        return (out / MARKERS).is_dir() and any((out / MARKERS).iterdir())

    with replacing(out, state, begun=begun):
        try:
            yield
        except BaseException:
            if state != "same" and not begun():
                for path in out.iterdir():
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            raise


def _write(
    checked: Checked, settings: PublishSettings, answers: dict[str, str], output: Output, workers: int
) -> Datasheet:
    facts = facts_of(checked, settings)
    sheet = make_datasheet(facts, settings, answers)
    files = [output.write(CORE_TAR, lambda path: write_core_tar(path, checked.core)), *write_lists(checked, output)]
    summary = tuple(
        (name.replace("_", " "), getattr(facts, name))
        for name in ("objects", "image_queries", "text_queries", "positives", "distractors")
    )
    with ordered_map(workers, ahead=2) as run:
        jobs = table_jobs(checked, settings, output)
        with progress("rows", total=len(jobs), unit="tables") as step:
            for done in run(write_table, jobs):
                files.append(done)
                step()
        pages = pages_of(checked, settings, output, summary)
        with progress("pages", total=len(pages), unit="pages") as step:
            for done in run(write_page, pages):
                files.append(done)
                step()
    files.append(output.write(ATTRIBUTION, lambda path: join_attribution(jobs, path)))
    files.append(output.write_text(LICENCES, licences_text(facts, settings)))
    files.append(output.write_text(DATASHEET, sheet.text))
    shards = _write_shards(checked, settings, output)
    if settings.url_base is not None:
        listed = sorted([*files, *shards], key=lambda done: done.name)
        text = croissant(facts, settings, listed, description=answers.get("purpose"))
        files.append(output.write_text(CROISSANT, text))
    refuse_changes(checked, settings)
    _finish(output, settings, [*files, *shards])
    return sheet


def _write_shards(checked: Checked, settings: PublishSettings, output: Output) -> list[Done]:
    """Put the shards in their places, or only say what they are."""
    found = {shard.name: shard for shard in checked.shards}
    done = []
    with progress("shards", total=len(found), unit="shards") as step:
        for source in checked.benchmark.distractor_shards:
            shard = found[source.name]
            name = f"{SHARDS}/{shard.name}"
            if source.tar is None:
                raise AssertionError("refused before")
            if settings.shards == "leave":
                done.append(Done(name, shard.size, shard.sha256, {}))
            else:
                put = output.copy if settings.shards == "copy" else output.link
                done.append(put(name, source.tar, shard.sha256))
            step()
    return done


def _finish(output: Output, settings: PublishSettings, files: list[Done]) -> None:
    """Write the checksums, and remove what belongs to no file that is published and to the work."""
    order = {CORE_TAR: 0, SHARDS: 1}
    listed = sorted(files, key=lambda done: (order.get(done.name.partition("/")[0], 2), done.name))
    prefix = f"{settings.url_base}/" if settings.url_base else ""
    lines = (f"{done.sha256}  {prefix}{quote(done.name)}\n" for done in listed)
    write_bytes(output.path(CHECKSUMS), "".join(lines).encode())
    wanted = {done.name for done in files}
    for top in (ROWS, BROWSE, SHARDS, "image_ids"):
        for path in output.path(top).rglob("*") if output.path(top).is_dir() else ():
            if path.is_file() and path.relative_to(output.folder).as_posix() not in wanted:
                path.unlink()  # of a publishing that was cut off, of a set that has changed since
    for name in (TAXONOMY, CROISSANT):
        if name not in wanted:
            output.path(name).unlink(missing_ok=True)
    shutil.rmtree(output.folder / ATTRIBUTION_PARTS, ignore_errors=True)
    shutil.rmtree(output.folder / MARKERS, ignore_errors=True)


def _outcome(
    out: Path, checked: Checked, settings: PublishSettings, answers: dict[str, str], *, fresh: bool
) -> Published:
    facts = facts_of(checked, settings)
    base = settings.url_base or "."
    files = parse_checksums((out / CHECKSUMS).read_text(encoding="utf-8"), base, where=str(out / CHECKSUMS))
    unanswered = make_datasheet(facts, settings, answers).unanswered
    return Published(out, facts, files, unanswered, checked.findings, fresh)
