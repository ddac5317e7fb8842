"""Text queries: what is asked, endpoints that fail in every way, the editing round trip, and texts of the set."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from conftest import Outcome, kill_when
from fake_endpoint import (
    FakeEndpoint,
    answers,
    breaks_off,
    completion,
    drips,
    drops,
    endless,
    repeats_the_key,
    says,
    sends,
    slow,
)
from openilias.build.caption import (
    PROMPT,
    Asked,
    Caption,
    Endpoint,
    Prices,
    Settings,
    apply_captions,
    ask_all,
    estimate,
    open_decisions,
    place_of,
    questions_of,
    read_answers,
    read_captions,
    take_captions,
    write_captions,
    write_review,
)
from openilias.build.caption import apply as applying
from openilias.build.caption.endpoint import Asker, check_endpoint
from openilias.build.caption.estimate import image_tokens
from openilias.build.caption.judge import judge, one_line
from openilias.build.caption.local import Local, local_messages
from openilias.build.caption.questions import image_bytes, messages_of
from openilias.core.errors import OpenIliasError
from openilias.data import read_ilias
from openilias.data.http import Patience

KEY = "sk-very-secret-0123456789"
OBJECTS = ("bag_003", "cup_001", "hat_002", "pen_004")
TREE = {
    "fashion": {"bags": {"duffel_bag": ["bag_003"]}, "other": {"other": ["hat_002"]}},
    "kitchen_ware": {"tea_cups": {"other": ["cup_001"]}},
    "other": {"other": {"other": ["pen_004"]}},
}
PATIENCE = Patience(retries=3, first_wait=0.01, longest_wait=0.05)
SETTINGS = Settings(model="fake")


def make_set(root: Path) -> Path:
    for number, name in enumerate(OBJECTS):
        digits = name[-3:]
        for item in (f"query/Q{digits}_01.jpg", f"query/Q{digits}_00.jpg", f"pos/P{digits}_00.jpg"):
            path = root / "ilias_core" / name / item
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng([number, *item.encode()]).integers(0, 255, (24, 32, 3), np.uint8)
            Image.fromarray(pixels).save(path)
    (root / "taxonomy.json").write_text(json.dumps(TREE))
    return root


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    return make_set(tmp_path / "set")


@pytest.fixture
def fake() -> Iterator[FakeEndpoint]:
    with FakeEndpoint() as endpoint:
        yield endpoint


def asking(root: Path, fake: FakeEndpoint, *, settings: Settings = SETTINGS, **options: Any) -> Asked:
    ways = {"parallel": 1, "timeout": 5.0, "patience": PATIENCE}
    ways |= {name: options.pop(name) for name in list(options) if name in (*ways, "key_env")}
    return ask_all(root, Endpoint(fake.base, **ways), settings, **options)


def lines(root: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (root / "build/caption/answers.jsonl").read_text().splitlines()]


def texts(root: Path) -> dict[str, str]:
    return {path.name: path.read_bytes().decode() for path in sorted((root / "ilias_core").glob("*/query/T*.txt"))}


def accept(root: Path, **changed: str) -> None:
    path = root / "build/caption/captions.csv"
    write_captions(
        path,
        (
            Caption(**(vars(caption) | {"status": "accepted", "text": changed.get(name, caption.text)}))
            for name, caption in read_captions(path).items()
        ),
    )


# What is asked


def test_the_prompt_is_that_of_the_paper() -> None:
    digest = "76828e1ba85eb660b5253cdb9dcde1372cd8b6dead2305da05a6a40be2ce6471"
    assert hashlib.sha256(PROMPT.encode()).hexdigest() == digest


def test_what_is_asked(root: Path, fake: FakeEndpoint) -> None:
    asked = asking(root, fake)
    assert asked.statuses == {"ok": 4}
    assert asked.without_category == ("pen_004",)
    assert [request.words for request in fake.requests] == [
        "Category: bags",
        "Category: tea cups",
        "Category: fashion",
        None,
    ]
    first = fake.requests[0]
    assert first.headers["authorization"] == f"Bearer {KEY}"
    system, user = first.body["messages"]
    assert system == {"role": "system", "content": PROMPT}
    assert [part["type"] for part in user["content"]] == ["image_url", "text"]
    assert {key: first.body[key] for key in ("model", "temperature", "seed", "max_tokens")} == {
        "model": "fake",
        "temperature": 0.0,
        "seed": 0,
        "max_tokens": 300,
    }
    kind, _, data = first.picture.partition(",")
    assert kind == "data:image/jpeg;base64"
    stored = (root / "ilias_core/bag_003/query/Q003_00.jpg").read_bytes()
    assert base64.b64decode(data) == stored
    kept = lines(root)[0]
    assert kept["sha256"] == hashlib.sha256(stored).hexdigest()
    assert (kept["object"], kept["image"], kept["category"]) == ("bag_003", "bag_003/query/Q003_00.jpg", "bags")
    assert (kept["answered_by"], kept["system_fingerprint"]) == ("fake-vlm-2026-01-01", "fp_fake")
    assert kept["prompt"] == PROMPT
    assert json.loads(kept["raw"])["choices"][0]["message"]["content"] == kept["text"]
    assert kept["usage"]["total_tokens"] == 420
    assert asked.usage["total_tokens"] == 4 * 420
    manifest = json.loads((root / "build/caption/manifest.json").read_text())
    assert manifest["made_from"]["prompt"] == PROMPT
    assert manifest["source"] == {"endpoint": fake.base}


def test_what_is_not_sent(root: Path, fake: FakeEndpoint) -> None:
    settings = Settings(
        model="x", temperature=None, seed=None, limit_field="max_completion_tokens", max_tokens=9, detail="low"
    )
    asking(root, fake, settings=settings, objects=["cup_001"])
    (request,) = fake.requests
    assert set(request.body) == {"model", "messages", "max_completion_tokens"}
    assert request.body["max_completion_tokens"] == 9
    assert request.body["messages"][1]["content"][0]["image_url"]["detail"] == "low"


def test_nothing_is_asked_twice(root: Path, fake: FakeEndpoint) -> None:
    asking(root, fake)
    before = (root / "build/caption/answers.jsonl").read_bytes()
    assert asking(root, fake).asked == ()
    assert len(fake.requests) == 4
    assert (root / "build/caption/answers.jsonl").read_bytes() == before
    # Another model, another category, another image are other questions.
    assert len(asking(root, fake, settings=Settings(model="other")).asked) == 4
    tree = json.loads(json.dumps(TREE).replace("tea_cups", "mugs"))
    (root / "taxonomy.json").write_text(json.dumps(tree))
    assert asking(root, fake).asked == ("cup_001",)
    shutil.copy(root / "ilias_core/bag_003/query/Q003_01.jpg", root / "ilias_core/bag_003/query/Q003_00.jpg")
    assert asking(root, fake).asked == ("bag_003",)


def test_objects_that_are_not_there(root: Path, fake: FakeEndpoint) -> None:
    with pytest.raises(OpenIliasError, match="No such objects"):
        asking(root, fake, objects=["cup_001", "../cup"])
    (root / "taxonomy.json").write_text('{"a": ["cup_001"]}')
    with pytest.raises(OpenIliasError, match="taxonomy must be"):
        asking(root, fake)
    (root / "taxonomy.json").unlink()
    assert len(asking(root, fake).without_category) == 4
    (root / "ilias_core/cup_001/query/Q001_00.jpg").write_bytes(b"no picture")
    with pytest.raises(OpenIliasError):
        asking(root, fake)
    assert len(fake.requests) == 4


# Endpoints that fail


def test_what_passes_is_tried_again(root: Path, fake: FakeEndpoint) -> None:
    fake.script = [says(429), drops, says(500), answers(), breaks_off, says(503, Retry_After="0"), answers()]
    asked = asking(root, fake)
    assert asked.statuses == {"ok": 4}
    assert asked.failures == 5
    assert len(fake.requests) == 9
    first = lines(root)[0]
    assert len(first["failures"]) == 3
    assert first["failures"][0].startswith("the answer is 429")


def test_retry_after_holds_for_all(root: Path, fake: FakeEndpoint) -> None:
    fake.script = [says(429, Retry_After="1"), slow(0.4)]
    asking(root, fake, parallel=2, objects=["bag_003", "cup_001", "hat_002"])
    first, second, *later = (request.at for request in fake.requests)
    assert second - first < 0.9  # was under way
    assert len(later) == 2
    assert min(later) - first >= 0.99


@pytest.mark.parametrize(
    ("never", "seconds", "error"),
    [(drips, 0.4, "within 0.4 s"), (endless, 3, "more than 4194304 bytes"), (slow(20), 0.4, "within 0.4 s")],
)
def test_answers_that_never_end(root: Path, fake: FakeEndpoint, never: Any, seconds: float, error: str) -> None:
    fake.script = [never] * 2
    begun = time.monotonic()
    asked = asking(root, fake, timeout=seconds, patience=Patience(retries=1, first_wait=0.01), objects=["cup_001"])
    assert time.monotonic() - begun < 4
    assert asked.statuses == {"failed": 1}
    assert error in asked.bad[0][2]
    fake.script.clear()
    assert asking(root, fake, objects=["cup_001"]).statuses == {"ok": 1}  # without --retry: no answer had come


def test_few_at_once(root: Path, fake: FakeEndpoint) -> None:
    fake.always = slow(0.15)
    asking(root, fake, parallel=3)
    assert fake.most_busy == 3


BAD = {
    "html": sends(b"<!doctype html><title>gateway</title>", "text/html"),
    "not-json": sends(b'{"choices": [{"mess'),
    "malformed": sends(b'{"choices": [{"text": "old style"}]}'),
    "no-choices": sends(b'{"choices": []}'),
    "empty": answers(" \n\u200b "),
    "refusal": answers(None, refusal="I cannot look at people."),
    "length": answers("A cup of", finish="length"),
    "filtered": answers("", finish="content_filter"),
    "too-long": answers("x" * 9000),
    "bad-request": says(400, "image too large"),
}
BAD["refusal"] = sends(json.dumps(completion(None, refusal="I cannot look at people.")).encode())


@pytest.mark.parametrize("status", BAD)
def test_answers_that_are_no_text(root: Path, fake: FakeEndpoint, status: str) -> None:
    fake.script = [BAD[status]]
    asked = asking(root, fake, objects=["bag_003", "cup_001"])
    assert asked.statuses == {status: 1, "ok": 1}
    assert asked.bad[0][:2] == ("bag_003", status)
    assert asked.bad[0][2]
    assert lines(root)[0]["raw"]
    caption = read_captions(root / "build/caption/captions.csv")["bag_003"]
    assert (caption.text, caption.status) == ("", "draft")
    assert asking(root, fake, objects=["bag_003"]).asked == ()
    assert asking(root, fake, objects=["bag_003"], retry=["failed"]).asked == ()
    assert asking(root, fake, objects=["bag_003"], retry=[status]).statuses == {"ok": 1}
    assert read_captions(root / "build/caption/captions.csv")["bag_003"].text.startswith("A thing")


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        ("", "not-json"),
        ("[" * 100_000, "not-json"),
        ("[]", "malformed"),
        ("null", "malformed"),
        ('{"choices": {"0": 1}}', "malformed"),
        ('{"choices": [null]}', "malformed"),
        ('{"choices": [{"message": {"content": 7}}]}', "malformed"),
        ('{"choices": [{"message": {"content": null}}]}', "empty"),
        ('{"error": {"message": "overloaded"}}', "no-choices"),
        ('{"choices": [{"message": {"content": [{"type": "text", "text": "In parts."}]}}], "usage": "much"}', "ok"),
        ('{"choices": [{"message": {"content": "\\ud800 half"}}], "usage": {"a": true, "b": -1, "c": 1e9}}', "ok"),
    ],
)
def test_judging(raw: str, status: str) -> None:
    assert judge(raw).status == status
    assert judge(raw).usage == {}


def test_half_a_letter_can_be_kept(root: Path, fake: FakeEndpoint) -> None:
    fake.always = sends(json.dumps(completion("A \ud800cup\0 of\u202e tea,\r\n \"blue\"; '=1+1'")).encode())
    asking(root, fake, objects=["cup_001"])
    asking(root, fake, objects=["cup_001"])
    assert len(fake.requests) == 1
    caption = read_captions(root / "build/caption/captions.csv")["cup_001"]
    assert caption.text == "A cup of tea, \"blue\"; '=1+1'"
    assert caption.untouched


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (repeats_the_key(401), "does not accept the key of OPENAI_API_KEY"),
        (repeats_the_key(403), "does not accept the key"),
        (says(404, "The model `fake` does not exist"), "no model 'fake'"),
        (says(402), "paid first"),
        (says(429, "You exceeded your quota", code="insufficient_quota"), "paid first"),
        (says(307, Location="http://127.0.0.1:9/v1"), "somewhere else"),
    ],
)
def test_what_stops_at_once(root: Path, fake: FakeEndpoint, answer: Any, message: str) -> None:
    fake.script = [answers()]
    fake.always = answer
    with pytest.raises(OpenIliasError, match=message) as caught:
        asking(root, fake)
    assert KEY not in str(caught.value)
    assert len(fake.requests) == 2
    assert len(lines(root)) == 1
    assert read_captions(root / "build/caption/captions.csv")["bag_003"].text  # what came is in the table
    fake.always = answers()
    assert asking(root, fake).asked == OBJECTS[1:]


def test_a_dead_server_is_not_asked_for_all(root: Path, fake: FakeEndpoint) -> None:
    fake.always = drops
    with pytest.raises(OpenIliasError, match="2 answers in a row are no text; the last one, of cup_001: the con"):
        asking(root, fake, stop_after=2, patience=Patience(retries=1, first_wait=0.01))
    assert len(fake.requests) == 4
    nowhere = Endpoint("http://127.0.0.1:9/v1", patience=Patience(retries=0), parallel=1)
    with pytest.raises(OpenIliasError, match="in a row"):
        ask_all(root, nowhere, SETTINGS, stop_after=3)
    fake.always = answers()
    assert asking(root, fake).statuses == {"ok": 4}


def test_failures_now_and_then_are_borne(root: Path, fake: FakeEndpoint) -> None:
    fake.script = [BAD["html"], answers(), BAD["empty"], answers()]
    assert asking(root, fake, stop_after=2).statuses == {"empty": 1, "html": 1, "ok": 2}


def test_the_key_stays_where_it_is(root: Path, fake: FakeEndpoint, ilias: Callable[..., Outcome]) -> None:
    def echo(handler: Any, request: Any) -> None:
        answers(f"A cup. {request.headers['authorization']}")(handler, request)

    said = ""
    for answer, code in ((echo, 0), (repeats_the_key(400), 0), (repeats_the_key(500), 0), (repeats_the_key(401), 2)):
        fake.always = answer
        done = ilias(
            "build", "caption", "ask", root, "--endpoint", fake.base, "--model", answer.__qualname__ + str(id(answer)),
            "--retries", 0, "--json", root / "result.json",
        )  # fmt: skip
        assert done.code == code, done.err
        said += done.out + done.err
    said += ilias("build", "caption", "review", root).out
    everything = said.encode() + b"".join(path.read_bytes() for path in root.rglob("*") if path.is_file())
    assert len(fake.requests) > 4
    assert KEY.encode() not in everything
    assert b"[key]" in everything
    assert base64.b64encode(KEY.encode()) not in everything


@pytest.mark.parametrize(
    ("value", "message"), [("", "holds no key"), (" \n", "holds no key"), ("a b", "no key"), ("sk-\u00e9", "no key")]
)
def test_keys_that_are_none(
    root: Path, fake: FakeEndpoint, monkeypatch: pytest.MonkeyPatch, value: str, message: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", value)
    with pytest.raises(OpenIliasError, match=message):
        asking(root, fake)
    assert not (root / "build").exists()
    assert asking(root, fake, key_env="none", objects=["cup_001"]).statuses == {"ok": 1}
    assert not fake.requests[0].headers["authorization"].endswith(value or "?")


@pytest.mark.parametrize("url", ["", "host/v1", "ftp://h/v1", "https://me:pw@h/v1", "https://h/v1?key=1", "http:///v1"])
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(OpenIliasError) as caught:
        Endpoint(url)
    assert "pw" not in str(caught.value)


def test_without_the_package(root: Path, fake: FakeEndpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(OpenIliasError, match="needs the package openai"):
        asking(root, fake)


# Cut off anywhere

_ASK = """
import sys
from pathlib import Path
from openilias.build.caption import Endpoint, Settings, ask_all
ask_all(Path(sys.argv[1]), Endpoint(sys.argv[2], parallel=2), Settings(model="fake"))
"""


def test_killed_it_goes_on(root: Path, fake: FakeEndpoint) -> None:
    fake.always = slow(0.2)
    path = root / "build/caption/answers.jsonl"
    kill_when(lambda: path.is_file() and path.stat().st_size > 0, _ASK, root, fake.base)
    there = path.read_bytes().count(b"\n")
    assert 0 < there < 4
    with path.open("ab") as file:
        file.write(b'{"object": "hat_0')
    before = len(fake.requests)
    fake.always = answers()
    asked = asking(root, fake)
    assert asked.statuses == {"ok": 4}
    assert len(fake.requests) - before == 4 - there
    assert sorted(line["object"] for line in lines(root)) == sorted(OBJECTS)


def test_answers_that_are_damaged(root: Path, fake: FakeEndpoint) -> None:
    asking(root, fake)
    path = root / "build/caption/answers.jsonl"
    good = path.read_bytes()
    for bad in (b"{}\n" + good, good.replace(b'"status": "ok"', b'"status": "fine"', 1), good + b"\xff\xfe\n"):
        path.write_bytes(bad)
        with pytest.raises(OpenIliasError, match="no answer as it is kept"):
            asking(root, fake)
        assert path.read_bytes() == bad
    assert len(fake.requests) == 4


def test_a_good_answer_is_not_lost(root: Path, fake: FakeEndpoint) -> None:
    asking(root, fake, objects=["cup_001"])
    path = root / "build/caption/answers.jsonl"
    line = json.loads(path.read_text())
    with path.open("a") as file:
        file.write(json.dumps(line | {"status": "failed", "text": None}) + "\n")
    assert read_answers(path)[line["request"]].status == "ok"


# Cost


@pytest.mark.parametrize(
    ("width", "height", "detail", "tokens"),
    [
        (500, 333, "auto", 255),
        (512, 512, "high", 255),
        (513, 512, "high", 425),
        (1024, 1024, "high", 765),
        (2048, 4096, "high", 1105),
        (4096, 8192, "low", 85),
        (1, 100_000, "auto", 85 + 170 * 4),
    ],
)
def test_tokens_of_images(width: int, height: int, detail: Any, tokens: int) -> None:
    assert image_tokens(width, height, detail) == tokens


def test_cost(root: Path) -> None:
    questions = questions_of(place_of(root))
    costs = estimate(questions, Settings(model="x", max_tokens=50), Prices(2.0, 10.0))
    letters = len(PROMPT)
    texts_of = [letters + 14, letters + 18, letters + 17, letters]
    assert costs.text_tokens == sum(-(-count // 4) + 8 for count in texts_of)
    assert costs.image_tokens == 4 * 255
    assert costs.cost == costs.most_cost == pytest.approx(((costs.text_tokens + 1020) * 2 + 200 * 10) / 1e6)
    for bad in (float("nan"), float("inf"), -1.0):
        with pytest.raises(OpenIliasError, match="price"):
            Prices(bad, 1.0)


def test_nobody_pays_without_agreeing(root: Path, fake: FakeEndpoint, ilias: Callable[..., Outcome]) -> None:
    ask = ("build", "caption", "ask", root, "--endpoint", fake.base, "--model", "fake")
    prices = ("--price-input", 2.5, "--price-output", 10)
    dry = ilias(*ask, *prices, "--dry-run")
    assert dry.code == 0
    assert "bag_003  bag_003/query/Q003_00.jpg  bags" in dry.out
    for more in ((), ("--most-cost", "0.001")):
        done = ilias(*ask, *prices, *more)
        assert done.code == 2
        assert done.err.startswith("error: ")
        assert "cost: about" in done.out
    assert ilias(*ask, "--price-input", 2.5).code == 2
    assert ilias(*ask, "--most-cost", 1).code == 2
    assert not fake.requests
    assert not (root / "build").exists()
    assert ilias(*ask, *prices, "--most-cost", 1).code == 0
    assert len(fake.requests) == 4
    again = ilias("build", "caption", "estimate", root, "--model", "fake")
    assert "nothing is left to ask" in again.out
    assert "4 questions" in ilias("build", "caption", "estimate", root).out


@pytest.mark.parametrize(
    "options",
    [
        ("--model", "x"),
        ("--endpoint", "http://h/v1"),
        ("--endpoint", "http://h/v1", "--model", "x", "--retry", "ok"),
        ("--endpoint", "http://h/v1", "--model", "x", "--temperature", "nan"),
        ("--endpoint", "http://h/v1", "--model", "", "--dry-run"),
        ("--local", "no/such", "--endpoint", "http://h/v1"),
        ("--local", "/no/such"),
        ("--endpoint", "http://h/v1", "--model", "x", "--parallel", 0),
    ],
)
def test_options_that_make_no_sense(root: Path, ilias: Callable[..., Outcome], options: tuple[Any, ...]) -> None:
    done = ilias("build", "caption", "ask", root, *options)
    assert done.code == 2, done.out
    assert "Traceback" not in done.err
    assert not (root / "build").exists()


# Editing


def test_what_a_person_did_stays(root: Path, fake: FakeEndpoint) -> None:
    asking(root, fake)
    path = root / "build/caption/captions.csv"
    before = read_captions(path)
    edited = before | {
        "bag_003": Caption(**(vars(before["bag_003"]) | {"text": "A bag that I saw."})),
        "hat_002": Caption(**(vars(before["hat_002"]) | {"status": "rejected"})),
    }
    write_captions(path, edited.values())
    fake.always = answers("Another text.")
    asked = asking(root, fake, settings=Settings(model="other"))
    after = read_captions(path)
    assert asked.kept == ("bag_003", "hat_002")
    assert {name: caption.text for name, caption in after.items()} == {
        "bag_003": "A bag that I saw.",
        "cup_001": "Another text.",
        "hat_002": before["hat_002"].text,
        "pen_004": "Another text.",
    }
    assert asking(root, fake).asked == ()  # the first model's answers are here, and are the drafts again
    assert read_captions(path)["cup_001"] == before["cup_001"]


def test_a_malformed_table_stops_before_anything_is_paid(root: Path, fake: FakeEndpoint) -> None:
    path = root / "build/caption/captions.csv"
    path.parent.mkdir(parents=True)
    path.write_text("object,text\n")
    with pytest.raises(OpenIliasError, match="lacks category, status"):
        asking(root, fake)
    assert not fake.requests
    assert path.read_text() == "object,text\n"


HEADER = "object,category,status,text,image,model,raw\n"


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (b"", "columns must be"),
        (b"object;category;status;text;image;model;raw\n", "lacks object"),
        ((HEADER.replace("raw", "text")).encode(), "lacks raw"),
        ((HEADER.strip() + ",extra\n").encode(), "has others"),
        ((HEADER + "cup_001,,accepted,A cup\n").encode(), "Expected 7 columns, found 4"),
        ((HEADER + "cup_001,,agreed,A cup,,,\n").encode(), "A status is one of"),
        ((HEADER + "cup_001,,accepted, ,,,\n").encode(), "is accepted, and there is none"),
        ((HEADER + 'cup_001,,accepted,"A\ncup",,,\n').encode(), "has line breaks"),
        ((HEADER + 'cup_001,,accepted,"A\u2028cup",,,\n').encode(), "has line breaks"),
        ((HEADER + "cup_001,,accepted,A\u202ecup,,,\n").encode(), "cannot be printed"),
        ((HEADER + f"cup_001,,draft,{'x' * 8001},,,\n").encode(), "more than 8000"),
        ((HEADER + f"cup_001,,draft,{'x' * 140_000},,,\n").encode(), "no line of CSV"),
        ((HEADER + "cup_001,,draft,A,,,\ncup_001,,draft,B,,,\n").encode(), "stand twice: cup_001"),
        ((HEADER + "cup_009,,draft,A,,,\n").encode(), "1 objects without a query image"),
        ((HEADER + "../x,,draft,A,,,\n").encode(), "name of an object"),
        ((HEADER + "cup_001,,draft,caf\u00e9,,,\n").encode("latin-1"), "cannot be read"),
        ((HEADER + 'cup_001,,draft,"A,,,\n').encode(), "no line of CSV"),
    ],
)
def test_tables_that_are_refused(root: Path, fake: FakeEndpoint, tmp_path: Path, table: bytes, message: str) -> None:
    asking(root, fake)
    before = (root / "build/caption/captions.csv").read_bytes()
    edited = tmp_path / "edited.csv"
    edited.write_bytes(table)
    with pytest.raises(OpenIliasError, match=message):
        take_captions(root, edited)
    assert (root / "build/caption/captions.csv").read_bytes() == before
    with pytest.raises(OpenIliasError):
        take_captions(root, tmp_path / "none.csv")


def test_what_is_taken(root: Path, fake: FakeEndpoint, tmp_path: Path) -> None:
    asking(root, fake, objects=OBJECTS[:3])
    before = read_captions(root / "build/caption/captions.csv")
    edited = tmp_path / "edited.csv"
    # As a spreadsheet leaves it: a mark at the start, CRLF, columns in another order, spaces, what the model said lost.
    edited.write_bytes(
        "\ufefftext,Object,status,category,image,model,raw\r\n"
        " A  caf\u00e9 cup ,cup_001,accepted,,,,#NAME?\r\n"
        "A pen by hand.,pen_004,accepted,,,,\r\n\r\n".encode()
    )
    taken = take_captions(root, edited)
    assert taken.changed == ("cup_001", "pen_004")
    assert taken.left == ("bag_003", "hat_002")
    after = read_captions(root / "build/caption/captions.csv")
    assert after["cup_001"].text == "A caf\u00e9 cup"
    assert (after["cup_001"].raw, after["cup_001"].model) == (before["cup_001"].raw, "fake")
    assert after["bag_003"] == before["bag_003"]
    assert after["pen_004"] == Caption("pen_004", status="accepted", text="A pen by hand.")


HOSTILE = "</script><script>alert(1)</script> <img src=x onerror=alert(1)> \"quoted\", 'and' & {{ 7*7 }}"


def test_the_page_is_inert(root: Path, fake: FakeEndpoint) -> None:
    fake.script = [answers(HOSTILE), sends(b"<html>"), answers("</textarea><script>x")]
    asking(root, fake)
    page = write_review(root).read_text()
    assert page.count("<script") == 2
    assert page.count("</script>") == 2
    assert "<img src=x" not in page
    assert "{{ 7*7 }}" in page
    assert page.count("<textarea ") == page.count("</textarea>") == 4
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    assert "html: a web page came" in page
    data = json.loads(page.split('id="data">')[1].split("</script>")[0])
    assert data["rows"][0][3] == HOSTILE
    assert page.count("data:image/jpeg;base64,") == 4


@pytest.mark.skipif(shutil.which("node") is None, reason="there is no node")
def test_the_page_makes_a_table_that_is_taken(root: Path, fake: FakeEndpoint, tmp_path: Path) -> None:
    fake.script = [answers(HOSTILE), answers('Two\nlines, "so"'), answers("=1+1")]
    asking(root, fake)
    page = write_review(root).read_text()
    script = page.rsplit("<script>", 1)[1].split("</script>")[0]
    data = page.split('id="data">')[1].split("</script>")[0]
    code = f"""
    const heard = {{}};
    const nothing = {{addEventListener() {{}}, textContent: "", dataset: {{}}, value: ""}};
    globalThis.document = {{
      getElementById: () => ({{textContent: {json.dumps(data)}}}), querySelector: () => nothing,
      querySelectorAll: () => [], addEventListener: (name, act) => heard[name] = act,
    }};
    globalThis.addEventListener = () => {{}};
    {script}
    heard.input({{target: {{tagName: "TEXTAREA", dataset: {{number: "1"}}, value: "  A \\n \\"blue\\", cup "}}}});
    for (const n of [0, 1]) heard.change({{target: {{name: "s" + n, value: "accepted"}}}});
    process.stdout.write(table());
    """
    done = subprocess.run(["node", "-"], input=code, capture_output=True, text=True, check=True)
    edited = tmp_path / "edited.csv"
    edited.write_text(done.stdout)
    before = read_captions(root / "build/caption/captions.csv")
    after = take_captions(root, edited).captions
    assert after["bag_003"].text == HOSTILE
    assert after["cup_001"].text == 'A "blue", cup'
    assert after["hat_002"].text == "=1+1"
    assert ",'=1+1," in done.stdout
    assert {name: caption.raw for name, caption in after.items()} == {n: c.raw for n, c in before.items()}
    assert [caption.status for caption in after.values()] == ["accepted", "accepted", "draft", "draft"]


# The texts of the set


def test_texts_of_the_set(root: Path, fake: FakeEndpoint) -> None:
    asking(root, fake)
    assert open_decisions(root).drafts == OBJECTS
    accept(root, cup_001="A caf\u00e9 cup.")
    assert open_decisions(root).unapplied == OBJECTS
    done = apply_captions(root)
    assert len(done.written) == 4
    assert texts(root)["T001.txt"] == "A caf\u00e9 cup.\n"
    assert not open_decisions(root).any
    made = read_ilias(root)
    assert made.text_queries == tuple(f"{name}/query/T{name[-3:]}.txt" for name in OBJECTS)
    assert (root / "image_ids/text_query_ids.txt").read_text() == "".join(f"{item}\n" for item in made.text_queries)
    again = apply_captions(root)
    assert (again.written, len(again.same)) == ((), 4)
    # A text that is decided anew follows; a rejected one goes.
    captions = read_captions(root / "build/caption/captions.csv")
    for name, change in (("cup_001", {"text": "A cup."}), ("hat_002", {"status": "rejected"})):
        captions[name] = Caption(**(vars(captions[name]) | change))
    write_captions(root / "build/caption/captions.csv", captions.values())
    done = apply_captions(root)
    assert done.written == ("cup_001/query/T001.txt",)
    assert done.removed == ("hat_002/query/T002.txt",)
    assert texts(root)["T001.txt"] == "A cup.\n"
    assert len(read_ilias(root).text_queries) == 3


def test_texts_by_hand_stay(root: Path, fake: FakeEndpoint) -> None:
    by_hand = root / "ilias_core/cup_001/query/T001.txt"
    by_hand.write_text("By the collector.\n")
    asking(root, fake)
    accept(root)
    assert apply_captions(root).by_hand == ("cup_001/query/T001.txt",)
    assert by_hand.read_text() == "By the collector.\n"
    assert len(read_ilias(root).text_queries) == 4
    changed = root / "ilias_core/hat_002/query/T002.txt"
    changed.write_text("Corrected in place.\n")
    captions = read_captions(root / "build/caption/captions.csv")
    captions["hat_002"] = Caption(**(vars(captions["hat_002"]) | {"status": "rejected"}))
    write_captions(root / "build/caption/captions.csv", captions.values())
    assert apply_captions(root).by_hand == ("cup_001/query/T001.txt", "hat_002/query/T002.txt")
    assert changed.read_text() == "Corrected in place.\n"
    done = apply_captions(root, overwrite=True)
    assert (done.by_hand, done.removed) == ((), ("hat_002/query/T002.txt",))
    assert by_hand.read_text().startswith("A thing")
    assert not changed.exists()


def test_a_list_that_is_there_keeps_the_rest(root: Path, fake: FakeEndpoint) -> None:
    (root / "ilias_core/pen_004/query/T004_b.txt").write_text("A pen.\n")
    (root / "image_ids").mkdir()
    (root / "image_ids/text_query_ids.txt").write_text("pen_004/query/T004_b.txt,more\n")
    asking(root, fake, objects=["cup_001"])
    accept(root)
    apply_captions(root)
    listed = (root / "image_ids/text_query_ids.txt").read_text()
    assert listed == "cup_001/query/T001.txt\npen_004/query/T004_b.txt,more\n"


def cut_at(place: int, monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    """Apply until so many files are written."""
    count = 0

    def cut(target: Path, data: bytes) -> None:
        nonlocal count
        if count == place:
            raise KeyboardInterrupt
        count += 1
        write(target, data)

    write = applying.write_bytes
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(applying, "write_bytes", cut)
        apply_captions(root)


@pytest.mark.parametrize("place", range(5))
@pytest.mark.parametrize("first", [True, False])
def test_cut_off_while_applying(
    root: Path, fake: FakeEndpoint, monkeypatch: pytest.MonkeyPatch, place: int, first: bool
) -> None:
    asking(root, fake)
    accept(root)
    if not first:
        apply_captions(root)
    accept(root, **{name: f"Text {number}." for number, name in enumerate(OBJECTS)})
    if place < 4 or first:
        cut_at(place, monkeypatch, root)
        assert len(open_decisions(root).unapplied) == 4 - place
    else:
        apply_captions(root)  # the list is as it was, and not written
    done = apply_captions(root)
    assert done.by_hand == ()
    assert list(texts(root).values()) == ["Text 0.\n", "Text 1.\n", "Text 2.\n", "Text 3.\n"]
    assert all(len(digests) == 1 for digests in applying.read_applied(root / "build/caption/applied.json").values())
    assert not open_decisions(root).any
    assert len((root / "image_ids/text_query_ids.txt").read_text().splitlines()) == 4


def test_cut_off_and_decided_anew(root: Path, fake: FakeEndpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    asking(root, fake)
    accept(root)
    apply_captions(root)
    accept(root, **{name: f"Text {number}." for number, name in enumerate(OBJECTS)})
    cut_at(2, monkeypatch, root)
    accept(root, **{name: f"Better {number}." for number, name in enumerate(OBJECTS)})
    assert apply_captions(root).by_hand == ()  # neither what was written nor what was not
    assert list(texts(root).values()) == [f"Better {number}.\n" for number in range(4)]


def test_a_list_that_is_no_text(root: Path, fake: FakeEndpoint) -> None:
    asking(root, fake)
    accept(root)
    (root / "image_ids").mkdir()
    (root / "image_ids/text_query_ids.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(OpenIliasError, match="cannot be read"):
        apply_captions(root)
    assert texts(root) == {}


def test_objects_that_are_gone(root: Path, fake: FakeEndpoint) -> None:
    asking(root, fake)
    accept(root)
    shutil.rmtree(root / "ilias_core/cup_001")
    with pytest.raises(OpenIliasError, match="1 objects without a query image"):
        apply_captions(root)
    assert texts(root) == {}
    assert "cup_001" in open_decisions(root).unapplied


def test_names_without_a_number(root: Path, fake: FakeEndpoint) -> None:
    assert applying.text_id("a/query/Q012_03.jpg") == "a/query/T012.txt"
    assert applying.text_id("a/query/Q7.jpg") == "a/query/T7.txt"
    with pytest.raises(OpenIliasError, match="gives no number"):
        applying.text_id("a/query/Q_03.jpg")


@pytest.mark.parametrize("content", ["[]", '{"../T1.txt": []}', '{"a/query/T1.txt": ["x"]}', "{"])
def test_a_damaged_record(root: Path, fake: FakeEndpoint, content: str) -> None:
    asking(root, fake)
    accept(root)
    (root / "build/caption/applied.json").write_text(content)
    with pytest.raises(OpenIliasError):
        apply_captions(root)
    assert texts(root) == {}


def test_the_whole_round(root: Path, fake: FakeEndpoint, ilias: Callable[..., Outcome], tmp_path: Path) -> None:
    fake.script = [sends(b"<html>"), answers("A plain cup.\n\nWith a handle.")]
    ask = ("build", "caption", "ask", root, "--endpoint", fake.base, "--model", "fake", "--parallel", 1)
    done = ilias(*ask, "--json", tmp_path / "asked.json")
    assert done.code == 0, done.err
    assert "bag_003  html: a web page came" in done.out
    assert json.loads((tmp_path / "asked.json").read_text())["statuses"] == {"html": 1, "ok": 3}
    assert ilias(*ask, "--retry", "html").code == 0
    assert "4 draft" in ilias("build", "caption", "review", root).out
    edited = tmp_path / "edited.csv"
    with (root / "build/caption/captions.csv").open(newline="") as file, edited.open("w", newline="") as out:
        rows = list(csv.DictReader(file))
        writer = csv.DictWriter(out, rows[0])
        writer.writeheader()
        writer.writerows(row | {"status": "rejected" if row["object"] == "pen_004" else "accepted"} for row in rows)
    taken = ilias("build", "caption", "take", root, edited)
    assert taken.code == 0, taken.err
    assert "4 changed; 3 accepted, 1 rejected" in taken.out
    applied = ilias("build", "caption", "apply", root, "--json", tmp_path / "applied.json")
    assert "3 texts written" in applied.out
    assert texts(root)["T001.txt"] == "A plain cup. With a handle.\n"
    assert len(read_ilias(root).text_queries) == 3
    assert ilias("data", "verify", root, "--workers", 1).code == 0
    edited.write_text("nonsense")
    refused = ilias("build", "caption", "take", root, edited)
    assert refused.code == 2
    assert refused.err.startswith("error: The columns must be")


def test_same_texts_are_told(root: Path, fake: FakeEndpoint) -> None:
    fake.always = answers("A thing.")
    asking(root, fake)
    accept(root, cup_001="a THING.", pen_004="A pen.")
    assert apply_captions(root).twice == ("bag_003", "cup_001", "hat_002")


# Models that run here


def test_messages_for_local_models(root: Path) -> None:
    place = place_of(root)
    (question,) = questions_of(place, ["cup_001"])
    system, user = local_messages(messages_of(question, SETTINGS, image_bytes(place, question.image)))
    assert system == {"role": "system", "content": [{"type": "text", "text": PROMPT}]}
    assert user["content"][0]["type"] == "image"
    assert user["content"][0]["url"].startswith("data:image/jpeg;base64,")
    assert user["content"][1] == {"type": "text", "text": "Category: tea cups"}


def tiny_model(folder: Path) -> Path:
    """A LLaVA of a few thousand random weights that knows ten words."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
        PreTrainedTokenizerFast,
    )

    words = "<pad> <s> </s> <unk> <image> a red cup of tea".split()
    tokenizer = Tokenizer(models.WordLevel({word: at for at, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    LlavaProcessor(
        CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}),
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, additional_special_tokens=["<image>"], **special),
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template="{% for m in messages %}{{ m['role'] }}: {% for p in m['content'] %}"
        "{% if p['type'] == 'image' %}<image> {% else %}{{ p['text'] }} {% endif %}{% endfor %}{% endfor %}",
    ).save_pretrained(folder)
    tower = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(0)
    LlavaForConditionalGeneration(
        LlavaConfig(
            vision_config=CLIPVisionConfig(**tower, image_size=28, patch_size=14, projection_dim=16).to_dict(),
            text_config=LlamaConfig(
                **tower, vocab_size=len(words), num_key_value_heads=2, pad_token_id=0, bos_token_id=1, eos_token_id=2
            ).to_dict(),
            image_token_index=4,
            vision_feature_layer=-1,
        )
    ).save_pretrained(folder)
    return folder


def test_a_model_that_runs_here(root: Path, ilias: Callable[..., Outcome], tmp_path: Path) -> None:
    folder = tiny_model(tmp_path / "tiny")
    ask = ("build", "caption", "ask", root, "--local", folder, "--temperature", 2, "--max-tokens", 30)
    done = ilias(*ask, "--stop-after", 99)
    assert done.code == 0, done.err
    kept = lines(root)
    assert [line["object"] for line in kept] == list(OBJECTS)
    assert all(line["model"].startswith("tiny ") and len(line["model"]) == 5 + 64 for line in kept)
    assert all(line["endpoint"] is None and line["usage"]["completion_tokens"] for line in kept)
    assert {line["status"] for line in kept} <= {"ok", "length", "empty"}
    assert any(
        line["status"] == "ok" and set(line["text"].split()) <= {"a", "red", "cup", "of", "tea"} for line in kept
    )
    assert "0 asked, 4 answered before" in ilias(*ask).out
    manifest = json.loads((root / "build/caption/manifest.json").read_text())
    assert manifest["source"]["local"]["class"] == "LlavaForConditionalGeneration"
    (folder / "chat_template.jinja").unlink()
    assert "no chat template" in ilias(*ask).err
    assert len(lines(root)) == 4


def test_another_prompt(root: Path, fake: FakeEndpoint, ilias: Callable[..., Outcome], tmp_path: Path) -> None:
    prompt = tmp_path / "prompt.txt"
    prompt.write_text("Describe the beetle.\n")
    ask = ("build", "caption", "ask", root, "--endpoint", fake.base, "--model", "fake", "--object", "cup_001")
    assert ilias(*ask, "--prompt", prompt).code == 0
    assert fake.requests[0].body["messages"][0]["content"] == "Describe the beetle."
    assert lines(root)[0]["prompt"] == "Describe the beetle."
    for bad in (b"\xff", b" \n"):
        prompt.write_bytes(bad)
        assert ilias(*ask, "--prompt", prompt).code == 2
    assert len(fake.requests) == 1


def test_one_line() -> None:
    assert one_line(" a\r\n\tb\u00a0\u2028c\u200b\x07 ") == "a b c"


@pytest.mark.parametrize("text", ["=HYPERLINK(1)", "+1", "-1 cup", "@a", "'=1", "''-x", "'a cup'", "a=b"])
def test_texts_that_a_spreadsheet_would_compute(tmp_path: Path, text: str) -> None:
    table = tmp_path / "captions.csv"
    written = Caption("=cup", status="accepted", text=text, raw=f"\t{text}", model="@m")
    write_captions(table, [written])
    assert not re.search(r"(^|[,\n])[\"]?[=+\-@\t\r]", table.read_text())
    assert read_captions(table) == {"=cup": written}


def test_a_key_is_found_however_its_letters_are_written(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = "sk-a/b+<c>"
    monkeypatch.setenv("OPENAI_API_KEY", key)
    asker = Asker(Endpoint("http://127.0.0.1/v1"), SETTINGS)
    for way in (
        key,
        "sk-a\\/b+<c>",
        "sk-a/b\\u002B\\u003cc\\u003E",
        "sk-a%2Fb%2b%3Cc%3e",
        "sk-a/b+&lt;c&gt;",
        "sk-a&#47;b+<c>",
    ):
        assert asker.hidden(f"Your key {way}!") == "Your key [key]!"
    assert asker.hidden("sk-a/b+<d>") == "sk-a/b+<d>"


@pytest.mark.parametrize(
    ("url", "warned"),
    [("http://api.example.org/v1", True), ("http://8.8.8.8/v1", True), ("https://api.example.org/v1", False)]
    + [(f"http://{host}:8000/v1", False) for host in ("localhost", "127.0.0.1", "[::1]", "10.0.0.5", "gpu1")],
)
def test_a_key_that_others_can_read_on_the_way(
    root: Path, capsys: pytest.CaptureFixture[str], url: str, warned: bool
) -> None:
    check_endpoint(Endpoint(url))
    assert ("is no https" in capsys.readouterr().err) == warned


@pytest.mark.parametrize(
    ("temperature", "sampling"),
    [(None, {}), (0.0, {"do_sample": False}), (0.5, {"do_sample": True, "temperature": 0.5})],
)
def test_a_model_that_runs_here_samples_as_it_is_told(temperature: float | None, sampling: dict[str, Any]) -> None:
    import torch
    from transformers import BatchEncoding

    told: dict[str, Any] = {}

    def generate(**options: Any) -> torch.Tensor:
        told.update(options)
        return torch.tensor([[1, 2, 3]])

    inputs = BatchEncoding({"input_ids": torch.tensor([[1, 2]])})
    local = object.__new__(Local)
    local._network = SimpleNamespace(generate=generate, generation_config=SimpleNamespace(eos_token_id=3))
    local._processor = SimpleNamespace(
        apply_chat_template=lambda *_, **__: inputs, batch_decode=lambda *_, **__: ["A cup."]
    )
    local._device, local.record = "cpu", {"model": "m", "revision": None, "weights": "w"}
    assert local.answer([], Settings(model="m", temperature=temperature)).text == "A cup."
    assert {name: told[name] for name in told if name in ("do_sample", "temperature")} == sampling
