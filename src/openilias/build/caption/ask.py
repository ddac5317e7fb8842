"""Asking a model about every object: each answer is kept as it comes, and nothing is asked twice."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from openilias.build.caption.answers import FAILED, Answer, Answers, Status, kept_answers, read_answers, working_on
from openilias.build.caption.captions import drafted, read_captions, write_captions
from openilias.build.caption.endpoint import Asker, BadRequestError, Endpoint, Tried, check_endpoint
from openilias.build.caption.judge import Judged, judge
from openilias.build.caption.local import Local
from openilias.build.caption.place import Place, place_of
from openilias.build.caption.questions import Question, Settings, image_bytes, messages_of, questions_of
from openilias.core.errors import OpenIliasError
from openilias.core.manifests import write_manifest
from openilias.core.progress import Step, progress
from openilias.data.http import RequestError

KIND = "caption answers"


@dataclass(frozen=True)
class Asked:
    """What became of the questions.

    Attributes:
        questions: how many objects there are to ask about.
        asked: objects about which a model was asked now.
        statuses: of the latest answers, by status.
        bad: object, status and reason of every answer that is no text.
        without_category: objects that the taxonomy assigns to nothing.
        kept: objects whose caption a person edited, though there is another answer.
        usage: tokens of the answers that came now, by kind.
        failures: tries that failed now.
    """

    questions: int
    asked: tuple[str, ...]
    statuses: dict[str, int]
    bad: tuple[tuple[str, str, str], ...]
    without_category: tuple[str, ...]
    kept: tuple[str, ...]
    usage: dict[str, int]
    failures: int

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "questions": self.questions,
            "asked": list(self.asked),
            "statuses": self.statuses,
            "bad": [{"object": name, "status": status, "error": error} for name, status, error in self.bad],
            "without_category": list(self.without_category),
            "kept": list(self.kept),
            "usage": self.usage,
            "failures": self.failures,
        }


def open_questions(
    place: Place, questions: Iterable[Question], settings: Settings, retry: Iterable[Status] = ()
) -> tuple[Question, ...]:
    """Return the questions that are left: without an answer, or with one of a status that is to be asked again."""
    return _open(questions, settings, read_answers(place.answers), retry)


def _open(
    questions: Iterable[Question], settings: Settings, latest: dict[str, Answer], retry: Iterable[Status]
) -> tuple[Question, ...]:
    again = {FAILED, *retry} - {"ok"}
    return tuple(
        question
        for question in questions
        if (known := latest.get(question.fingerprint(settings))) is None or known.status in again
    )


def ask_all(
    root: Path,
    source: Endpoint | Local,
    settings: Settings,
    *,
    objects: Iterable[str] | None = None,
    retry: Iterable[Status] = (),
    stop_after: int = 5,
) -> Asked:
    """Ask about every object of a set, keep the answers, and make drafts of captions from them.

    Args:
        root: the set.
        source: whom to ask.
        settings: what and how.
        objects: only about these.
        retry: statuses of answers that are asked for again; those to which no answer came are in any case.
        stop_after: answers in a row that are no text, after which something is wrong with all of them.

    Raises:
        OpenIliasError: the set or a file of this step is malformed, or the endpoint answers nothing; what was
            answered is kept.
    """
    place = place_of(root)
    questions = questions_of(place, objects)
    if isinstance(source, Endpoint) and open_questions(place, questions, settings, retry):
        check_endpoint(source)  # before anything is written
    with working_on(place.folder):
        before = read_captions(place.captions) if place.captions.is_file() else {}
        with kept_answers(place.answers) as answers:
            todo = _open(questions, settings, answers.latest, retry)
            _write_manifest(place, source, settings)
            run = _Run(place, source, settings, answers, stop_after)
            try:
                if todo:
                    with progress("captions", total=len(todo), unit="objects") as step:
                        run.ask(todo, step)
            finally:  # also of a run that is stopped
                pairs = [(question, answers.latest.get(question.fingerprint(settings))) for question in questions]
                now = drafted(before, pairs)
                write_captions(place.captions, now.captions.values())
    known = [answer for _, answer in pairs if answer is not None]
    usage: Counter[str] = Counter()
    for answer in run.came:
        usage.update(answer.usage)
    return Asked(
        questions=len(questions),
        asked=tuple(sorted(answer.object for answer in run.came)),
        statuses=dict(sorted(Counter(answer.status for answer in known).items())),
        bad=tuple((one.object, one.status, one.error or "") for one in known if one.status != "ok"),
        without_category=tuple(question.object for question in questions if question.category is None),
        kept=now.kept,
        usage=dict(usage),
        failures=sum(len(answer.failures) for answer in run.came),
    )


def _write_manifest(place: Place, source: Endpoint | Local, settings: Settings) -> None:
    versions = {}
    for package in ("openai", "transformers"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    write_manifest(
        place.manifest,
        kind=KIND,
        made_from=settings.model_dump(mode="json"),
        source={"endpoint": source.url} if isinstance(source, Endpoint) else {"local": source.record},
        asking=versions,
        note="Of the last run; every line of answers.jsonl says of itself what it was made from.",
    )


@dataclass
class _Run:
    """The asking of one command."""

    place: Place
    source: Endpoint | Local
    settings: Settings
    answers: Answers
    stop_after: int
    came: list[Answer] = field(default_factory=list)
    in_a_row: int = 0

    def ask(self, todo: tuple[Question, ...], step: Step) -> None:
        source = self.source
        if isinstance(source, Endpoint):
            _unwrapped(lambda: asyncio.run(self._endpoint(source, todo, step)))
            return
        for question in todo:
            begun, asked_at = time.monotonic(), _now()
            judged = source.answer(self._messages(question), self.settings)
            self._keep(question, judged, Tried([], judged.text or ""), asked_at, time.monotonic() - begun)
            step()

    def _messages(self, question: Question) -> list[dict[str, Any]]:
        return messages_of(question, self.settings, image_bytes(self.place, question.image))

    async def _endpoint(self, endpoint: Endpoint, todo: tuple[Question, ...], step: Step) -> None:
        left = iter(todo)
        async with Asker(endpoint, self.settings) as asker, asyncio.TaskGroup() as group:
            for _ in range(min(endpoint.parallel, len(todo))):
                group.create_task(self._work(asker, left, step))

    async def _work(self, asker: Asker, left: Iterable[Question], step: Step) -> None:
        for question in left:
            tried, begun, asked_at = Tried([]), time.monotonic(), _now()
            try:
                await asker.ask(question.object, self._messages(question), tried)
                judged = judge(tried.raw)
            except BadRequestError as error:
                tried.raw = error.raw
                judged = Judged("bad-request", error=str(error))
            except RequestError as error:
                judged = Judged(FAILED, error=error.what)
            self._keep(question, judged, tried, asked_at, time.monotonic() - begun)
            step()

    def _keep(self, question: Question, judged: Judged, tried: Tried, asked_at: str, seconds: float) -> None:
        settings = self.settings
        answer = Answer(
            object=question.object,
            image=question.image,
            sha256=question.sha256,
            category=question.category,
            request=question.fingerprint(settings),
            prompt=settings.prompt,
            model=settings.model,
            endpoint=self.source.url if isinstance(self.source, Endpoint) else None,
            temperature=settings.temperature,
            seed=settings.seed,
            max_tokens=settings.max_tokens,
            status=judged.status,
            text=judged.text,
            error=judged.error,
            raw=tried.raw,
            answered_by=judged.answered_by,
            system_fingerprint=judged.system_fingerprint,
            finish_reason=judged.finish_reason,
            usage=judged.usage,
            failures=tuple(tried.failures),
            asked_at=asked_at,
            seconds=round(seconds, 3),
        )
        self.answers.put(answer)
        self.came.append(answer)
        self.in_a_row = 0 if answer.status == "ok" else self.in_a_row + 1
        if self.in_a_row >= self.stop_after:
            raise OpenIliasError(
                f"{self.in_a_row} answers in a row are no text; the last one, of {answer.object}: {answer.error}.",
                where=answer.endpoint or answer.model,
                fix="Correct what is wrong, and run the same command again: what was answered is kept. "
                "Statuses other than 'failed' are asked again with --retry STATUS.",
            )


def _unwrapped(work: Callable[[], None]) -> None:
    """Do something; of errors that come in a group raise the first that is ours."""
    try:
        work()
    except BaseExceptionGroup as group:
        first: BaseException = group
        while isinstance(first, BaseExceptionGroup):
            first = next((one for one in first.exceptions if isinstance(one, OpenIliasError)), first.exceptions[0])
        raise first from None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
