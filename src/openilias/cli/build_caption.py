"""``ilias build caption``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from openilias.cli.options import Json, Overwrite, device_of, emit, refuse, say
from openilias.core.errors import OpenIliasError, first_few
from openilias.core.files import read_bytes

if TYPE_CHECKING:
    from openilias.build.caption import Estimate, Place, Question, Settings

app = typer.Typer(help="Text queries: ask a model, review, apply.", no_args_is_help=True)

_SETTINGS, _COST, _WORK = "What is asked for", "Cost", "Work"
SetDir = Annotated[Path, typer.Argument(help="Folder of the set, in the ILIAS layout.", metavar="SET")]
Name = Annotated[str | None, typer.Option("--model", help="Its name at the endpoint, such as gpt-4o.")]
Objects = Annotated[list[str] | None, typer.Option("--object", metavar="NAME", help="Only these; repeatable.")]
Temperature = Annotated[
    float | None,
    typer.Option(rich_help_panel=_SETTINGS, min=-1, max=2, help="Of the sampling; -1 leaves it to the model."),
]
Seed = Annotated[int, typer.Option(rich_help_panel=_SETTINGS, min=-1, help="Likewise; -1 sends none.")]
MaxTokens = Annotated[int, typer.Option(rich_help_panel=_SETTINGS, min=1, help="Of an answer.")]
PromptFile = Annotated[
    Path | None,
    typer.Option(
        "--prompt",
        rich_help_panel=_SETTINGS,
        metavar="FILE",
        exists=True,
        dir_okay=False,
        help="Another prompt than the paper's, in a text file.",
    ),
]
LimitField = Annotated[
    Literal["max_tokens", "max_completion_tokens"],
    typer.Option(rich_help_panel=_SETTINGS, help="Name of that limit; models that reason want the longer one."),
]
Detail = Annotated[
    Literal["auto", "low", "high"],
    typer.Option(rich_help_panel=_SETTINGS, help="At which the endpoint looks at the image."),
]
PriceInput = Annotated[
    float | None, typer.Option(rich_help_panel=_COST, min=0, help="Of a million tokens that are sent.")
]
PriceOutput = Annotated[
    float | None, typer.Option(rich_help_panel=_COST, min=0, help="Of a million tokens that are answered.")
]
Retry = Annotated[
    list[str] | None,
    typer.Option(rich_help_panel=_WORK, metavar="STATUS", help="Ask again for answers of this status; repeatable."),
]
_SHOWN = 10


def register(build: typer.Typer) -> None:
    """Add the commands to the group ``build``."""
    build.add_typer(app, name="caption")


@app.callback()
def _group() -> None:
    """Text queries: ask a model, review, apply."""


@app.command("estimate", epilog="Example: ilias build caption estimate my-set --price-input 2.5 --price-output 10")
def estimate_cost(
    root: SetDir,
    model: Name = None,
    objects: Objects = None,
    price_input: PriceInput = None,
    price_output: PriceOutput = None,
    prompt: PromptFile = None,
    temperature: Temperature = 0.0,
    seed: Seed = 0,
    max_tokens: MaxTokens = 300,
    limit_field: LimitField = "max_tokens",
    detail: Detail = "auto",
    retry: Retry = None,
    json: Json = None,
) -> None:
    """Estimate what asking costs: all objects, or with --model those that it was not asked about yet."""
    from openilias.build.caption import place_of, questions_of

    settings = _settings(model or "any", prompt, temperature, seed, max_tokens, limit_field, detail)
    place = place_of(root)
    questions = questions_of(place, objects)
    open_ones = _open(place, questions, settings, retry) if model else questions
    costs = _estimate(open_ones, settings, price_input, price_output)
    _say_categories(questions)
    emit(costs.as_json(), json)


@app.command(epilog="Example: ilias build caption ask my-set --endpoint https://HOST/v1 --model gpt-4o")
def ask(
    root: SetDir,
    endpoint: Annotated[
        str | None, typer.Option(metavar="URL", help="One that speaks as OpenAI's does, such as https://HOST/v1.")
    ] = None,
    model: Name = None,
    key_env: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Environment variable that holds the key; none if none is asked for. OPENAI_API_KEY."
        ),
    ] = None,
    local: Annotated[
        str | None,
        typer.Option(metavar="MODEL[@REVISION]", help="Instead: a model of the hub or a folder, that runs here."),
    ] = None,
    device: Annotated[str, typer.Option(help="Of --local: cpu, cuda, mps, or auto.")] = "cpu",
    objects: Objects = None,
    price_input: PriceInput = None,
    price_output: PriceOutput = None,
    yes: Annotated[bool, typer.Option("--yes", rich_help_panel=_COST, help="Agree to the estimated cost.")] = False,
    most_cost: Annotated[
        float | None, typer.Option(rich_help_panel=_COST, min=0, help="Agree, if it is at most this.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", rich_help_panel=_COST, help="Only say what would be asked, and its cost.")
    ] = False,
    prompt: PromptFile = None,
    temperature: Temperature = 0.0,
    seed: Seed = 0,
    max_tokens: MaxTokens = 300,
    limit_field: LimitField = "max_tokens",
    detail: Detail = "auto",
    retry: Retry = None,
    parallel: Annotated[int, typer.Option(rich_help_panel=_WORK, min=1, max=256, help="Requests at once.")] = 4,
    timeout: Annotated[float, typer.Option(rich_help_panel=_WORK, min=0.1, help="Seconds of a try.")] = 120.0,
    retries: Annotated[int, typer.Option(rich_help_panel=_WORK, min=0, max=100, help="Tries after the first.")] = 5,
    stop_after: Annotated[
        int, typer.Option(rich_help_panel=_WORK, min=1, help="Stop after so many answers in a row without a text.")
    ] = 5,
    json: Json = None,
) -> None:
    """Ask a model to describe each object; keep every answer, and make drafts of build/caption/captions.csv.

    Nothing is asked twice: killed or stopped, the same command goes on. What you edited or decided stays.
    """
    from openilias.build.caption import Endpoint, Local, ask_all, place_of, questions_of
    from openilias.data.http import Patience

    source: Endpoint | Local
    if local is not None:
        refuse(
            "is for endpoints, and --local is none",
            endpoint=endpoint, model=model, key_env=key_env, price_input=price_input, price_output=price_output,
        )  # fmt: skip
        source = Local(local, device if device == "cpu" else device_of(device))
        name = source.model
    else:
        if endpoint is None or model is None:
            raise typer.BadParameter("give --endpoint URL and --model NAME, or --local MODEL.")
        patience = Patience(retries=retries)
        source = Endpoint(endpoint, key_env or "OPENAI_API_KEY", parallel, timeout, patience)
        name = model
    settings = _settings(name, prompt, temperature, seed, max_tokens, limit_field, detail)
    place = place_of(root)
    questions = questions_of(place, objects)
    open_ones = _open(place, questions, settings, retry)
    costs = _estimate(open_ones, settings, price_input, price_output)
    _say_categories(questions)
    if dry_run:
        for question in open_ones:
            say(f"  {question.object}  {question.image}  {question.category or '-'}")
        emit(costs.as_json() | {"would_ask": [question.object for question in open_ones]}, json)
        return
    _agree(costs, yes, most_cost)
    asked = ask_all(root, source, settings, objects=objects, retry=_statuses(retry), stop_after=stop_after)
    statuses = ", ".join(f"{count} {status}" for status, count in asked.statuses.items()) or "none"
    say(f"{len(asked.asked)} asked, {asked.questions - len(asked.asked)} answered before; answers: {statuses}")
    if asked.usage:
        say("tokens: " + ", ".join(f"{count:,} {kind}" for kind, count in asked.usage.items()))
    if asked.bad:
        say(f"{len(asked.bad)} answers are no text; ask again with --retry STATUS, or write a text by hand:")
        _say_some(f"{one}  {status}: {error}" for one, status, error in asked.bad)
    if asked.kept:
        say(f"{len(asked.kept)} captions are yours and stay, though there is another answer: {_few(asked.kept)}")
    say(f"review them: ilias build caption review {root}")
    emit(asked.as_json() | {"estimate": costs.as_json()}, json)


@app.command(epilog="Example: ilias build caption review my-set")
def review(
    root: SetDir,
    out: Annotated[Path | None, typer.Option(metavar="FILE", dir_okay=False, help="Another page to write.")] = None,
    json: Json = None,
) -> None:
    """Write a page on which to correct, accept and reject texts; it makes the table for `take`."""
    from openilias.build.caption import read_captions, write_review

    page = write_review(root, out)
    captions = read_captions(root / "build" / "caption" / "captions.csv")
    counts = _counts(caption.status for caption in captions.values())
    say(", ".join(f"{count} {status}" for status, count in counts.items()) or "no captions")
    say(f"{page}")
    emit({"page": str(page), "status": counts}, json)


@app.command(epilog="Example: ilias build caption take my-set ~/Downloads/captions.csv")
def take(
    root: SetDir,
    table: Annotated[Path, typer.Argument(metavar="CSV", help="The table of the page, or an edited captions.csv.")],
    json: Json = None,
) -> None:
    """Take the texts and decisions of an edited table, after a check; all or nothing."""
    from openilias.build.caption import take_captions

    taken = take_captions(root, table)
    counts = _counts(caption.status for caption in taken.captions.values())
    say(f"{len(taken.changed)} changed; " + ", ".join(f"{count} {status}" for status, count in counts.items()))
    if taken.left:
        say(f"{len(taken.left)} objects are not in the table and stay as they were: {_few(taken.left)}")
    _say_twice(taken.twice)
    say(f"apply them: ilias build caption apply {root}")
    emit({"changed": list(taken.changed), "left": list(taken.left), "twice": list(taken.twice), "status": counts}, json)


@app.command(epilog="Example: ilias build caption apply my-set")
def apply(root: SetDir, overwrite: Overwrite = False, json: Json = None) -> None:
    """Write accepted texts as text queries of the set and take rejected ones out.

    Texts that you wrote or changed in the core by hand stay, unless --overwrite is given.
    """
    from openilias.build.caption import apply_captions

    done = apply_captions(root, overwrite=overwrite)
    say(f"{len(done.written)} texts written, {len(done.same)} as they were, {len(done.removed)} removed")
    if done.by_hand:
        say(f"{len(done.by_hand)} texts in the set are by hand, and stay (--overwrite replaces them):")
        _say_some(done.by_hand)
    _say_twice(done.twice)
    if done.drafts:
        say(f"{len(done.drafts)} drafts are not decided: ilias build caption review {root}")
    emit(done.as_json(), json)


def _settings(
    model: str,
    prompt: Path | None,
    temperature: float | None,
    seed: int,
    max_tokens: int,
    limit_field: str,
    detail: str,
) -> Settings:
    from pydantic import ValidationError

    from openilias.build.caption import PROMPT, Settings

    try:
        return Settings.model_validate(
            {
                "model": model,
                "prompt": PROMPT if prompt is None else _read(prompt),
                "temperature": None if temperature is None or temperature < 0 else temperature,
                "seed": None if seed < 0 else seed,
                "max_tokens": max_tokens,
                "limit_field": limit_field,
                "detail": detail,
            }
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise typer.BadParameter(f"{'.'.join(map(str, first['loc']))}: {first['msg']}.") from None


def _read(path: Path) -> str:
    try:
        return read_bytes(path, most=100_000).decode("utf-8-sig").strip()
    except (OSError, ValueError) as error:
        raise OpenIliasError(f"The prompt cannot be read: {error}.", where=path, fix="Save it as UTF-8.") from None


def _statuses(retry: list[str] | None) -> tuple[Any, ...]:
    from openilias.build.caption import STATUSES

    known = [status for status in STATUSES if status != "ok"]
    for status in retry or ():
        if status not in known:
            raise typer.BadParameter(f"'{status}' is none of {', '.join(known)}.", param_hint="--retry")
    return tuple(retry or ())


def _open(
    place: Place, questions: tuple[Question, ...], settings: Settings, retry: list[str] | None
) -> tuple[Question, ...]:
    from openilias.build.caption import open_questions

    return open_questions(place, questions, settings, _statuses(retry))


def _estimate(
    questions: tuple[Question, ...], settings: Settings, price_input: float | None, price_output: float | None
) -> Estimate:
    from openilias.build.caption import Prices, estimate

    if (price_input is None) != (price_output is None):
        raise typer.BadParameter("--price-input and --price-output belong together.")
    prices = None if price_input is None or price_output is None else Prices(price_input, price_output)
    costs = estimate(questions, settings, prices)
    for line in costs.lines():
        say(line)
    return costs


def _agree(costs: Estimate, yes: bool, most_cost: float | None) -> None:
    """Refuse to spend what nobody agreed to."""
    if costs.most_cost is None:
        if most_cost is not None:
            raise typer.BadParameter("--most-cost needs --price-input and --price-output.")
        return
    if most_cost is not None and costs.most_cost > most_cost:
        raise OpenIliasError(
            f"It may cost {costs.most_cost:.4g}, more than {most_cost:.4g}.",
            fix="Ask about fewer objects (--object), for shorter answers (--max-tokens), or allow more.",
        )
    if most_cost is None and not yes and costs.questions:
        raise OpenIliasError("Nobody agreed to this cost yet.", fix="Run it again with --yes, or --most-cost AMOUNT.")


def _say_categories(questions: tuple[Question, ...]) -> None:
    bare = [question.object for question in questions if question.category is None]
    if bare:
        say(f"{len(bare)} objects have no category in taxonomy.json, and are asked about without: {_few(bare)}")


def _say_twice(twice: tuple[str, ...]) -> None:
    if twice:
        say(f"{len(twice)} objects have the text of another one, which describes neither of them: {_few(twice)}")


def _say_some(lines: Iterable[str]) -> None:
    lines = list(lines)
    for line in lines[:_SHOWN]:
        say(f"  {line}")
    if len(lines) > _SHOWN:
        say(f"  ... and {len(lines) - _SHOWN} more; all are in --json FILE")


def _few(names: Iterable[str]) -> str:
    return first_few(list(names), most=5)


def _counts(statuses: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(statuses).items()))
