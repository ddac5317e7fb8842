"""The report site in a browser, opened from disk: ``make test-browser`` installs what it takes."""

from __future__ import annotations

import json
import os
import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from openilias.build.publish.publishing import publish
from openilias.build.publish.settings import PublishSettings
from openilias.data import read_ilias
from publish_world import make_set
from site_world import make_site

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SIZES = {"desktop": (1366, 900), "phone": (390, 844)}

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium: make test-browser installs it")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, tiny_root: Path) -> Path:
    return make_site(tmp_path_factory.mktemp("site"), tiny_root)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: make test-browser")
    with sync_api.sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield made
        made.close()


class Tab:
    """A page of the site; whatever the browser complains of is gathered."""

    def __init__(self, browser: Any, site: Path, size: str, *, dark: bool = False) -> None:
        width, height = SIZES[size]
        scheme = "dark" if dark else "light"
        self.site, self.problems = site, []
        self.context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        self.page = self.context.new_page()
        self.page.on("console", lambda message: self.problems.append(message.text) if message.type == "error" else None)
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("requestfailed", lambda request: self.problems.append(f"{request.url} failed"))
        self.page.on(
            "request",
            lambda request: None if request.url.startswith(("file:", "data:")) else self.problems.append(request.url),
        )

    def go(self, route: str = "") -> Any:
        self.page.goto(f"file://{self.site}#/{route}")
        self.page.wait_for_selector("main h1")
        return self.page

    def first_column(self) -> list[str]:
        cells = self.page.locator("main tbody").first.locator("th").all_inner_texts()
        return [text.strip().split("\n")[0] for text in cells]

    def width_of(self, image: Any) -> int:
        """The width of a picture that was loaded."""
        image.scroll_into_view_if_needed()
        return int(image.evaluate("image => image.decode().then(() => image.naturalWidth)"))


@pytest.fixture
def tab(browser: Any, site: Path) -> Iterator[Tab]:
    made = Tab(browser, site, "desktop")
    yield made
    made.context.close()
    assert not made.problems


def test_the_leaderboard_sorts_and_filters(tab: Tab) -> None:
    page = tab.go()
    numbers = [float(text) for text in page.locator("main tbody").first.locator("td:nth-child(2)").all_inner_texts()]
    assert numbers == sorted(numbers, reverse=True)
    page.get_by_role("button", name="run").first.click()
    assert tab.first_column() == ["plain", "SP <b>", "αQE1"]
    page.get_by_role("button", name="run").first.click()
    assert tab.first_column() == ["αQE1", "SP <b>", "plain"]
    page.get_by_label("Filter this table").first.fill("pla")
    assert tab.first_column() == ["plain"]
    assert "1 of 3" in page.locator(".tools output").first.inner_text()


def test_a_query_and_what_each_run_found(tab: Tab, tiny_root: Path) -> None:
    query = read_ilias(tiny_root).image_queries[0]
    page = tab.go("queries")
    page.get_by_label("Filter this table").fill(query)
    page.get_by_role("link", name=query).click()
    page.wait_for_selector(".runrow .shot")
    assert page.locator("main h1").inner_text() == query
    assert page.locator(".runrow").count() == 3
    assert page.locator(".runrow .shot.positive").count() >= 3
    for image in page.locator(".runrow img").all()[:8]:
        assert tab.width_of(image) > 20
    page.go_back()
    page.wait_for_function("document.querySelector('main h1').textContent === 'Queries'")


def test_every_page_can_be_reached(tab: Tab) -> None:
    page = tab.go()
    titles = {"Figures": "Figures and tables", "About": "About this report"}
    for name in ("Categories", "Objects", "Queries", "Compare", "Figures", "About"):
        page.get_by_role("navigation").get_by_role("link", name=name).click()
        page.wait_for_function(
            "title => document.querySelector('main h1').textContent === title", arg=titles.get(name, name)
        )
        assert page.locator("#top [aria-current]").inner_text() == name
    page = tab.go("objects")
    page.locator("a.card").first.click()
    page.wait_for_selector(".shot.positive")
    page.wait_for_function("/rank|not found/.test(document.querySelector('.shot.positive').textContent)")
    page = tab.go("categories")
    page.locator("main tbody th a").first.click()
    page.wait_for_selector("text=By run")
    assert "There is no page" in tab.go("nothing").locator("main h1").inner_text()
    assert "There is no query" in tab.go("query/x").locator("main h1").inner_text()
    for route in ("%", "constructor", "__proto__", "object/%E0%A4%A"):
        assert "There is no" in tab.go(route).locator("main h1").inner_text()


def test_the_own_page_of_a_run(tab: Tab) -> None:
    page = tab.go("run/plain")
    assert float(page.locator(".tile.main b").inner_text()) > 0
    page.get_by_role("link", name="Full page").click()
    page.wait_for_selector("#gallery")
    assert tab.width_of(page.locator("#gallery img").first) > 20


def test_hovering_shows_the_query_and_a_search_finds_it(tab: Tab, tiny_root: Path) -> None:
    page = tab.go("compare")
    page.locator("circle.dot").first.hover()
    page.wait_for_selector("#tip:not([hidden]) .shot")
    assert "/query/" in page.locator("#tip b").first.inner_text()
    name = next(iter(read_ilias(tiny_root).relevance))
    page.get_by_label("Find a query").fill(name)
    page.keyboard.press("Enter")
    page.wait_for_function("name => document.querySelector('main h1').textContent === name", arg=name)
    assert page.locator("#tip").is_hidden()


def test_runs_are_compared(tab: Tab) -> None:
    page = tab.go("compare/plain/SP--b")
    assert "p" in page.locator(".tile").last.inner_text()
    page.get_by_label("second run").select_option(label="αQE1")
    page.wait_for_function("location.hash.includes('QE1')")
    assert page.get_by_label("second run").evaluate("select => select.selectedOptions[0].textContent") == "αQE1"


def test_figures_are_drawn_and_their_files_open(tab: Tab) -> None:
    page = tab.go("figures")
    for image in page.locator(".exhibit img").all():
        assert tab.width_of(image) > 100
    links = page.locator(".exhibit .files a").evaluate_all("all => all.map(link => link.getAttribute('href'))")
    assert len(links) > 30
    assert all((tab.site.parent / link).is_file() for link in links)


@pytest.mark.parametrize("size", sorted(SIZES))
@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_the_screen(browser: Any, site: Path, tiny_root: Path, tmp_path: Path, size: str, dark: bool) -> None:
    """Screenshots are kept in the folder of the variable ``OPENILIAS_SCREENSHOTS``."""
    folder = Path(os.environ.get("OPENILIAS_SCREENSHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    tab = Tab(browser, site, size, dark=dark)
    benchmark = read_ilias(tiny_root)
    first = quote(benchmark.image_queries[0], safe="")
    routes = {
        **{name: name for name in ("queries", "objects", "categories", "compare", "figures", "about")},
        "leaderboard": "",
        "run": "run/plain",
        "query": f"query/{first}",
        "object": f"object/{next(iter(benchmark.relevance))}",
    }
    for name, route in routes.items():
        page = tab.go(route)
        page.wait_for_timeout(150)
        page.screenshot(path=str(folder / f"{name}-{size}-{'dark' if dark else 'light'}.png"), full_page=True)
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= SIZES[size][0], f"{name} is wider than the screen: {width}"
    tab.context.close()
    assert not tab.problems


def test_a_large_report_opens_at_once(browser: Any, site: Path, tmp_path: Path) -> None:
    """1,232 queries by 30 runs: the pages are there within two seconds."""
    shutil.copytree(site.parent, tmp_path / "large")
    enlarge(tmp_path / "large" / "data" / "report.js", runs=30, objects=1000, queries=1232)
    tab = Tab(browser, tmp_path / "large" / "index.html", "desktop")
    for route in ("", "queries", "objects", "categories", "compare"):
        tab.page.goto("about:blank")
        started = time.perf_counter()
        tab.go(route)
        assert time.perf_counter() - started < 2, route
    assert tab.page.locator("main").inner_text()
    tab.context.close()
    assert not [problem for problem in tab.problems if "run-" not in problem]


def enlarge(path: Path, *, runs: int, objects: int, queries: int) -> None:
    """Repeat what a report holds until it is as large as ILIAS, with other numbers."""
    text = path.read_text(encoding="utf-8")
    data = json.loads(text.partition("=")[2][:-2])
    drawn = random.Random(0)
    some, name = data["objects"], "object_{:04d}".format
    data["objects"] = [
        some[n % len(some)] | {"name": name(n), "category": [f"c{n % 8}", f"m{n % 42}", "other"]}
        for n in range(objects)
    ]
    data["queries"] = [{"id": f"{name(n % objects)}/query/Q{n:04d}.jpg", "object": n % objects} for n in range(queries)]
    first = data["runs"][0]
    data["runs"] = [first | {"name": f"run {n}", "slug": f"run-{n}", "map": drawn.randrange(1000)} for n in range(runs)]
    data["ap"] = [[drawn.randrange(1001) for _ in range(queries)] for _ in range(runs)]
    data["pairs"] = []
    path.write_text(f"window.ILIAS={json.dumps(data)};\n", encoding="utf-8")


@pytest.mark.parametrize("size", SIZES)
def test_pages_of_a_published_set(
    browser: Any, tmp_path_factory: pytest.TempPathFactory, tiny_root: Path, size: str
) -> None:
    folder = tmp_path_factory.mktemp("published")
    settings = PublishSettings(name="tiny", version="1.0")
    publish(make_set(folder / "set", tiny_root), folder / "out", settings, workers=1)
    made = Tab(browser, folder / "out" / "browse" / "index.html", size, dark=size == "phone")
    page = made.page
    page.goto(f"file://{made.site}")
    page.locator("main li a").nth(2).click()
    page.wait_for_selector("main section:target h2")
    shots = page.locator("main section:target .shot img").all()
    assert len(shots) >= 3
    assert all(made.width_of(image) > 50 for image in shots)
    for name in ("All objects", "Distractors"):
        page.get_by_role("link", name=name).first.click()
    assert page.locator("main .shot").count() == 14
    for target in sorted((folder / "out" / "browse").iterdir()):
        page.goto(f"file://{target}")
        assert page.evaluate("document.documentElement.scrollWidth") <= SIZES[size][0]
    made.context.close()
    assert not made.problems
