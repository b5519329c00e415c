"""The built site: its files, and its pages in a real browser."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from bs4 import BeautifulSoup
from pypdf import PdfReader

from book.tools import browser, previews, site_extension
from book.tools import refresh as book
from tests.conftest import ROOT

REPOSITORY = "https://github.com/owner/ntps"
PAGES = browser.pages()
WRITTEN = [name for name in PAGES if not name.startswith("book/api/")]
API_EXAMPLE = "book/api/lab"
"""One page of the API; axe needs 20 seconds for each of these pages, which are all generated in the same way."""
CHAPTERS = book.chapters()
EXPLORERS = [
    f"notebooks/{name}" for name in ("03_score_and_bounds", "06_choosing_k_and_layer", "09_predicting_the_gain")
]


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the site, built from the committed notebooks with warnings as errors and a repository.

    ``NTPS_SITE`` names one that `make book` has just built in this way.
    """
    if built := os.environ.get("NTPS_SITE"):
        return Path(built).resolve()
    folder = tmp_path_factory.mktemp("site")
    book.prepare()
    command = [str(Path(sys.executable).with_name("jupyter-book")), "build", str(ROOT), "--path-output", str(folder)]
    flags = ["--warningiserror", "--nitpick", "--keep-going", "--quiet"]
    environment = {**os.environ, "NTPS_REPOSITORY": REPOSITORY}
    process = subprocess.run(command + flags, env=environment, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stdout[-3000:] + process.stderr[-3000:]
    return folder / "_build" / "html"


@pytest.mark.slow
def test_pages_and_images_exist_and_images_have_descriptions(site):
    for page in PAGES:
        html = (site / f"{page}.html").read_text()
        images = re.findall(r'<img[^>]*src="([^"]+)"[^>]*>', html)
        for image in images:
            assert (site / page).parent.joinpath(image).resolve().is_file(), (page, image)
        for tag in re.findall(r"<img[^>]*>", html):
            assert re.search(r'alt="[^"]+"', tag), (page, tag)


@pytest.mark.slow
def test_internal_links_and_anchors_exist(site):
    ids = {path: set(re.findall(r'\bid="([^"]+)"', path.read_text())) for path in site.rglob("*.html")}
    for page in PAGES:
        path = site / f"{page}.html"
        for href in re.findall(r'<a[^>]*href="([^"]+)"', path.read_text()):
            if re.match(r"[a-z]+:", href):
                continue
            file, _, anchor = href.partition("#")
            target = (path.parent / file).resolve() if file else path
            assert target.is_file(), (page, href)
            if anchor and target.suffix == ".html":
                assert anchor in ids[target], (page, href)


@pytest.mark.slow
def test_mathematics_needs_no_network(site):
    html = (site / "notebooks/03_score_and_bounds.html").read_text()
    (script,) = re.findall(r'<script[^>]*src="([^"]*mathjax[^"]*)"', html)
    assert (site / "notebooks" / script.partition("?")[0]).resolve().is_file()
    assert (site / "_static/mathjax/output/chtml/fonts").is_dir()


@pytest.mark.slow
def test_glued_values_are_on_the_pages(site):
    n_checked = 0
    for source in CHAPTERS:
        html = (site / f"notebooks/{source.stem}.html").read_text()
        assert "glue:text" not in html
        whole = [v for v in book.glued(source.with_suffix(".ipynb")).values() if isinstance(v, int)]
        n_checked += len(whole)
        assert all(f">{value}<" in html or f">{value:,}<" in html for value in whole), source.stem
    assert n_checked > 30


@pytest.mark.slow
@pytest.mark.parametrize("source", CHAPTERS, ids=lambda p: p.stem)
def test_launch_and_download_buttons_lead_to_the_plain_copy(site, source):
    copy = ROOT / "notebooks" / "plain" / f"{source.stem}.ipynb"
    html = unquote((site / f"notebooks/{source.stem}.html").read_text())
    (binder,) = set(re.findall(r'href="(https://mybinder.org/[^"]+)"', html))
    (colab,) = set(re.findall(r'href="(https://colab.research.google.com/[^"]+)"', html))
    assert binder.startswith("https://mybinder.org/v2/gh/owner/ntps/main?")
    assert colab.startswith("https://colab.research.google.com/github/owner/ntps/blob/main/")
    for address in (binder, colab):
        assert (ROOT / "notebooks" / address.partition("/notebooks/")[2]) == copy
    (download,) = re.findall(r'href="([^"]+_sources/[^"]+\.ipynb)"', html)
    assert (site / "notebooks" / download).resolve().read_bytes() == copy.read_bytes()


@pytest.mark.slow
def test_the_page_on_installation_names_the_source(site):
    html = (site / "book" / "install.html").read_text()
    assert f"git clone {REPOSITORY} &amp;&amp; cd {REPOSITORY.rpartition('/')[2]}" in re.sub(r"</?span[^>]*>", "", html)
    assert "how to get the source" not in html


def test_repository_is_read_from_the_environment(monkeypatch):
    for name in ("NTPS_REPOSITORY", "GITHUB_REPOSITORY"):
        monkeypatch.delenv(name, raising=False)
    assert site_extension.repository() is None
    monkeypatch.setenv("GITHUB_REPOSITORY", "someone/book")
    assert site_extension.repository() == "https://github.com/someone/book"


@pytest.mark.parametrize(
    ("machine", "print_"),
    [
        ("-0.00 (-0.01 to -0%)", "0.00 (-0.01 to 0%)"),
        ("3e+07", "3\u00a0×\u00a010⁷"),
        ("-1e-16", "-1\u00a0×\u00a010⁻¹⁶"),
        ("1.16e+03", "1,160"),
        ("2e-01", "0.2"),
        ("0.018000", "0.018"),
        ("0.000314", "0.000314"),
        ("0.0000314", "3.14\u00a0×\u00a010⁻⁵"),
        ("1234.567891", "1234.57"),
        ("-0.05, 2000, 0.500, v1.000000, 2026-11-28", "-0.05, 2000, 0.500, v1.000000, 2026-11-28"),
    ],
)
def test_numbers_become_readable(machine, print_):
    assert site_extension.readable(machine) == print_


def text_of(path: Path) -> str:
    """Return the text of a page without code and its printed output."""
    article = BeautifulSoup(path.read_text(), "html.parser").article
    for element in article.select("script, style, pre, code"):
        element.decompose()
    return article.get_text(" ")


@pytest.mark.slow
@pytest.mark.parametrize("name", WRITTEN)
def test_numbers_are_written_as_in_print(site, name):
    text = text_of(site / f"{name}.html")
    assert re.findall(r"(?<![\w.])[-−]0(?:\.0*)?(?![\w.])", text) == []
    assert re.findall(r"\d[\d.]*e[+-]\d\d", text) == []
    assert re.findall(r"\d\.\d{3,}000(?!\d)", text) == []


@pytest.mark.slow
def test_front_page_links_the_authors_code_and_no_pdf_that_is_not_there(site):
    html = (site / "book/intro.html").read_text()
    assert html.count('href="https://github.com/Yu-AngCheng/NTPS"') == 1
    assert (f'href="../{browser.PDF}"' in html) == (site / browser.PDF).is_file()


@pytest.mark.slow
def test_pages_describe_themselves(site):
    found = []
    for name in WRITTEN:
        head = BeautifulSoup((site / f"{name}.html").read_text(), "html.parser").head
        text = head.find("meta", attrs={"name": "description"})["content"]
        card = {tag["property"].removeprefix("og:"): tag["content"] for tag in head.select('meta[property^="og:"]')}
        assert 40 < len(text) <= 200, (name, text)
        assert not re.search(r"[\\{}$<>]", text), (name, text)
        assert card["description"] == text
        assert card["title"]
        assert card["url"] == f"https://owner.github.io/ntps/{name}.html"
        if "image" in card:
            assert (site / card["image"].removeprefix("https://owner.github.io/ntps/")).is_file()
        found.append(text)
    assert len(set(found)) == len(WRITTEN)


@pytest.mark.slow
@pytest.mark.parametrize("name", WRITTEN)
def test_errors_can_be_reported_and_links_are_encrypted(site, name):
    html = (site / f"{name}.html").read_text()
    assert unquote(html).count(f'href="{REPOSITORY}/issues/new?title=Error on the page {name}"') == 1
    assert re.findall(r'href="http://[^"]*"', html) == []


UNUSED_TERMS = {
    f"term-{name}"
    for name in (
        "cell",
        "autoregressive-subspace-V",
        "perception-subspace-U",
        "leave-one-dataset-out",
        "permutation-test",
        "tangent-kernel",
    )
}
"""Terms that may have no link: cells, and those that the text writes as a symbol or in other words."""


@pytest.mark.slow
def test_first_mentions_of_terms_and_letters_of_theorems_are_links(site):
    linked = set()
    for name in WRITTEN:
        page = BeautifulSoup((site / f"{name}.html").read_text(), "html.parser")
        terms = [link["href"].partition("#")[2] for link in page.select("a.term")]
        assert len(terms) == len(set(terms)), name
        assert not terms or name not in previews.WITHOUT_TERMS
        assert not page.select("h1 a.term, h2 a.term, a a, #quiz a.term, #quiz a.theorem")
        linked |= set(terms)
    entries = BeautifulSoup((site / "book/glossary.html").read_text(), "html.parser").select("dl.glossary dt")
    assert {"term-cell"} <= {entry["id"] for entry in entries} - linked <= UNUSED_TERMS
    chapter = BeautifulSoup((site / "notebooks/03_score_and_bounds.html").read_text(), "html.parser")
    assert {(link.text, link["href"]) for link in chapter.select("a.theorem")} >= {
        ("(c)", "#thm-metric"),
        ("(d)", "#thm-euclidean"),
    }


@pytest.mark.parametrize(
    ("name", "mentions", "others"),
    [
        ("probe", ["probe", "Probes"], ["probed"]),
        ("excess loss", ["excess loss"], ["excess"]),
        ("NTPS", ["NTPS"], ["ntps"]),
        ("ceiling, tr B", ["ceiling"], ["tr B"]),
        ("NTPS, metric-matched", ["metric-matched"], ["NTPS"]),
    ],
)
def test_terms_are_recognized(name, mentions, others):
    pattern = previews.term_pattern(name)
    assert all(re.fullmatch(pattern, text) for text in mentions)
    assert not any(re.fullmatch(pattern, text) for text in others)


@pytest.mark.slow
@pytest.mark.parametrize("page", EXPLORERS)
def test_interactive_figures_are_on_their_pages(site, page):
    html = (site / f"{page}.html").read_text()
    assert html.count('class="ntps-explorer') == 1
    assert "/*SETTINGS*/" not in html


# -- in a browser ------------------------------------------------------------------


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """One Chromium for this module. While Playwright is open, the event loop of its thread counts as running, and
    other modules that need an event loop, or a Chromium of their own, would fail in the same process."""
    try:
        with browser.chromium() as program:
            yield program
    except browser.BrowserError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def address(site) -> Iterator[str]:
    with browser.served(site) as url:
        yield url


# The theme animates colors; axe must measure them after the animation.
STILL = "() => Promise.all(document.getAnimations().map(a => a.finished.catch(() => null))).then(() => true)"


class Visit:
    """An open page, with a list of the errors in its console and of its failed requests."""

    def __init__(
        self, chromium: Any, address: str, name: str, query: str = "", width: int = 1280, scheme: str = "light"
    ) -> None:
        self.context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.page = self.context.new_page()
        self.errors: list[str] = []
        self.page.on("console", lambda m: self.errors.append(f"{m.type}: {m.text}") if m.type == "error" else None)
        self.page.on("pageerror", lambda error: self.errors.append(f"uncaught: {error}"))
        self.page.on("requestfailed", lambda r: self.errors.append(f"failed: {r.url}"))
        self.page.on("response", lambda r: self.errors.append(f"{r.status}: {r.url}") if r.status >= 400 else None)
        self.page.on(
            "request",
            lambda r: (
                None if r.url.startswith((address, "data:", "blob:")) else self.errors.append(f"external: {r.url}")
            ),
        )
        self.page.goto(f"{address}/{name}.html{query}")
        self.page.evaluate(browser.READY)
        self.page.evaluate(STILL)

    def __enter__(self) -> Visit:
        return self

    def __exit__(self, *_: object) -> None:
        self.context.close()


CONTRAST_ONLY = {"runOnly": {"type": "rule", "values": ["color-contrast"]}}
WITHOUT_CONTRAST = {"rules": {"color-contrast": {"enabled": False}}}


def serious(page: Any, options: dict[str, Any] | None = None) -> list[str]:
    """Return the serious and critical accessibility violations on a page."""
    # Without resultTypes, axe describes every element that passes, which takes long on long pages.
    options = {"resultTypes": ["violations"]} | (options or {})
    return [
        f"{violation['id']}: {violation['nodes'][0]['html'][:200]} ({len(violation['nodes'])} places)"
        for violation in Axe().run(page, options=options).response["violations"]
        if violation["impact"] in ("serious", "critical")
    ]


@pytest.mark.browser
@pytest.mark.parametrize("name", PAGES)
def test_pages_open_without_errors(chromium, address, name):
    """Formulas are rendered, images load, everybody can use the page, and no request goes to another machine."""
    with Visit(chromium, address, name) as visit:
        page = visit.page
        assert page.locator("article h1").count() == 1
        source = next(path for path in ROOT.glob(f"{name}.*") if path.suffix in (".py", ".md")).read_text()
        formulas = page.locator(".math").count()
        assert formulas > 0 or not re.search(r"\$[^$\n]+\$", source)
        assert page.locator(".math mjx-container").count() >= formulas
        assert page.locator("mjx-merror, .MathJax_Error").count() == 0
        images = page.evaluate(
            "() => [...document.querySelectorAll('article img')].map("
            "i => (i.loading = 'eager', i.decode().then(() => [i.naturalWidth, i.alt], () => [0, i.src])))"
            ".reduce(async (all, one) => [...await all, await one], Promise.resolve([]))"
        )
        assert all(width > 0 and alt for width, alt in images), images
        assert visit.errors == []
        if name in WRITTEN:
            cut = page.evaluate(
                "() => [...document.querySelectorAll('article pre')].filter(e => e.offsetParent)"
                ".filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.innerText.slice(0, 60))"
            )
            assert cut == []
            assert page.evaluate(CUT_TABLES) == []
        if name in WRITTEN or name == API_EXAMPLE:
            assert serious(page) == []


@pytest.mark.browser
@pytest.mark.parametrize("name", WRITTEN)
def test_dark_pages_have_enough_contrast(chromium, address, name):
    with Visit(chromium, address, name, scheme="dark") as visit:
        assert visit.page.evaluate("() => document.documentElement.dataset.theme") == "dark"
        assert serious(visit.page, CONTRAST_ONLY) == []


CUT_TABLES = """
() => [...document.querySelectorAll("article :is(.output, .pst-scrollable-table-container):has(table)")]
  .filter((e) => e.offsetParent && e.scrollWidth > e.clientWidth + 1)
  .map((e) => e.innerText.slice(0, 60))
"""
"""Tables whose last columns are hidden."""

SMALL = """
() => [...document.querySelectorAll("article *")]
  .filter((e) => [...e.childNodes].some((child) => child.nodeType === Node.TEXT_NODE && child.data.trim()))
  .filter((e) => e.offsetParent && !e.closest("mjx-container, svg") && parseFloat(getComputedStyle(e).fontSize) < 11)
  .map((e) => e.outerHTML.slice(0, 80))
"""


CUT = """
() => [...document.querySelectorAll("article mjx-container:not([display])")]
  .filter((e) => e.offsetParent && !e.closest(".pst-scrollable-table-container, table"))
  .filter((e) => e.getBoundingClientRect().right > e.closest("p, li, dd, section").getBoundingClientRect().right + 4)
  .map((e) => e.parentElement.className + e.textContent.slice(0, 60))
"""
"""Formulas in a line of text that go beyond it."""

HIDDEN = """
() => [...document.querySelectorAll("article mjx-container:is([display], .wide)")]
  .filter((e) => e.offsetParent)
  .filter((e) => {
    const cut = e.querySelector("mjx-math").getBoundingClientRect().width > e.clientWidth + 1;
    const hint = getComputedStyle(e, "::after").content.includes("Swipe");
    return cut !== hint || parseFloat(getComputedStyle(e).fontSize) < 12.8;
  })
  .map((e) => e.textContent.slice(0, 60))
"""
"""Formulas that are cut and do not say so, or the reverse, or that are smaller than four fifths of the text."""


@pytest.mark.browser
@pytest.mark.parametrize("name", PAGES)
def test_pages_fit_the_width_of_a_phone(chromium, address, name):
    with Visit(chromium, address, name, width=390) as visit:
        width = visit.page.evaluate("() => document.documentElement.scrollWidth")
        assert width <= 390
        # Figures keep a readable size; a box of the width of the phone scrolls them.
        figures = visit.page.evaluate(
            "() => [...document.querySelectorAll('figure:not(#fig-question) img, article .cell_output img')].map(i => {"
            "const box = i.closest('figure, .output'), s = getComputedStyle(box);"
            "return [i.getBoundingClientRect().width, box.getBoundingClientRect().right, s.overflowX]})"
        )
        assert all(wide >= 570 and right <= 390 and scrolls == "auto" for wide, right, scrolls in figures), figures
        assert visit.errors == []
        if name in WRITTEN:
            assert visit.page.evaluate(SMALL) == []
            assert visit.page.evaluate(CUT) == []
            assert visit.page.evaluate(HIDDEN) == []
            assert serious(visit.page, WITHOUT_CONTRAST) == []


HINTS = """
() => [...document.querySelectorAll("article mjx-container:not([display], .wide)")]
  .filter((e) => {
    const hint = getComputedStyle(e, "::after").content.includes("Swipe");
    return hint || e.style.fontSize !== (e.dataset.size ?? e.style.fontSize);
  })
  .length
"""
"""Formulas in a line of text that say how to scroll them, or that are smaller than they were."""


@pytest.mark.browser
def test_formulas_return_to_their_lines_when_the_page_becomes_wider(chromium, address):
    with Visit(chromium, address, "notebooks/01_linear_autoregression", width=390) as visit:
        wide = "() => document.querySelectorAll('article mjx-container.wide').length"
        visit.page.set_viewport_size({"width": 150, "height": 800})
        visit.page.wait_for_function(f"() => ({wide})() > 10")
        visit.page.set_viewport_size({"width": 390, "height": 800})
        visit.page.wait_for_function(f"() => ({wide})() === 0")
        assert visit.page.evaluate(HINTS) == 0
        assert visit.page.evaluate(HIDDEN) == []


@pytest.mark.browser
def test_keys_scroll_figures_on_narrow_screens_only(chromium, address):
    with Visit(chromium, address, "notebooks/09_predicting_the_gain", width=390) as visit:
        figure = visit.page.locator("#fig-gain-skill")
        figure.focus()
        figure.press("ArrowRight")
        visit.page.wait_for_function("() => document.querySelector('#fig-gain-skill').scrollLeft > 0")
        visit.page.set_viewport_size({"width": 1280, "height": 900})
        visit.page.wait_for_function("() => !document.querySelector('#fig-gain-skill').hasAttribute('tabindex')")


# Drawings scale their letters. An SVG file is measured in the place, and in the width, of its image.
LETTERS = """
async () => {
  for (const image of document.querySelectorAll("article img")) {
    const shown = getComputedStyle(image).content.match(/url\\("(.*)"\\)/)?.[1] || image.src;
    if (!shown.endsWith(".svg")) continue;
    const box = document.createElement("div");
    box.innerHTML = await (await fetch(shown)).text();
    Object.assign(box.style, {width: `${image.getBoundingClientRect().width}px`, overflow: "visible"});
    image.replaceWith(box);
  }
  return [...document.querySelectorAll("article svg text")].map((text) => {
    const m = text.getScreenCTM(), box = text.getBoundingClientRect();
    const size = parseFloat(getComputedStyle(text).fontSize) * Math.sqrt(Math.abs(m.a * m.d - m.b * m.c));
    return {text: text.textContent, size, left: box.left, right: box.right};
  });
}
"""


@pytest.mark.browser
@pytest.mark.parametrize("name", ["book/intro", *EXPLORERS])
def test_letters_of_drawings_can_be_read_on_a_phone(chromium, address, name):
    with Visit(chromium, address, name, width=390) as visit:
        letters = visit.page.evaluate(LETTERS)
        assert len(letters) > 5
        assert [letter for letter in letters if letter["size"] < 11] == []
        assert [letter for letter in letters if letter["left"] < 0 or letter["right"] > 390] == []


@pytest.mark.browser
def test_search_finds_pages(chromium, address):
    # A second goto() would abort a request of the first page, which counts as a failed request.
    with Visit(chromium, address, "search", query="?q=excess+loss") as visit:
        results = visit.page.locator("#search-results li")
        results.first.wait_for(timeout=20_000)
        visit.page.wait_for_function(
            "() => /finished|found/i.test(document.querySelector('#search-results').innerText)"
        )
        assert any("score_and_bounds" in (a or "") for a in visit.page.eval_on_selector_all(
            "#search-results li a", "links => links.map(a => a.href)"))  # fmt: skip
        assert visit.errors == []


@pytest.mark.browser
def test_search_for_the_reader_s_question_finds_the_tool_first(chromium, address):
    with Visit(chromium, address, "search", query="?q=will+lora+pay") as visit:
        first = visit.page.locator("#search-results li a").first
        first.wait_for(timeout=20_000)
        assert "notebooks/11_prescreen" in first.get_attribute("href")


@pytest.mark.browser
@pytest.mark.parametrize(
    ("name", "element", "text"),
    [
        ("notebooks/09_predicting_the_gain", "a.term[href$='#term-headroom']", "Finetuning can hardly gain more"),
        ("notebooks/03_score_and_bounds", "a.internal[href='#equation-eq-identity']", "(3.3)"),
        ("notebooks/03_score_and_bounds", "a.theorem[href='#thm-metric']", "Metric-matched score"),
        ("notebooks/03_score_and_bounds", "p > .math[class*='symbol-']", "directions"),
    ],
)
def test_previews_open_by_mouse_and_keys_and_close_with_escape(chromium, address, name, element, text):
    with Visit(chromium, address, name) as visit:
        page, tip = visit.page, visit.page.locator("#preview")
        mention = page.locator(element).first
        mention.scroll_into_view_if_needed()
        assert not tip.is_visible()
        mention.hover()
        tip.get_by_text(text).first.wait_for(state="visible", timeout=5_000)
        assert tip.locator("mjx-container").count() == tip.locator(".math").count()
        box, place = tip.bounding_box(), mention.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 1280
        assert min(abs(box["y"] - place["y"] - place["height"]), abs(box["y"] + box["height"] - place["y"])) < 12
        tip.hover()  # stays open under the mouse
        page.wait_for_timeout(400)
        assert tip.is_visible()
        page.keyboard.press("Escape")
        assert not tip.is_visible()
        focused = mention if element.startswith("a") else mention.locator("mjx-container")
        focused.focus()
        tip.get_by_text(text).first.wait_for(state="visible", timeout=5_000)
        assert focused.get_attribute("aria-describedby") == "preview"
        assert visit.errors == []  # axe requests style sheets once more
        assert serious(page) == []
        focused.blur()
        assert not tip.is_visible()
        assert focused.get_attribute("aria-describedby") is None


@pytest.mark.browser
def test_menu_opens_on_a_phone(chromium, address):
    with Visit(chromium, address, "book/intro", width=390) as visit:
        link = visit.page.locator("nav.bd-links a", has_text="Linear perception").first
        assert not link.is_visible()
        visit.page.locator("button.primary-toggle:visible").first.click()
        link.wait_for(state="visible", timeout=5_000)
        link.click()
        visit.page.wait_for_url("**/02_linear_perception.html")


# -- interactive figures -----------------------------------------------------------

POWERS = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")


@pytest.mark.browser
def test_subspace_explorer_follows_the_mouse_and_shows_correct_scores(chromium, address):
    with Visit(chromium, address, "notebooks/03_score_and_bounds") as visit:
        page, figure = visit.page, visit.page.locator(".ntps-explorer")

        def displayed() -> tuple[float, float, float]:
            text = figure.locator("output").inner_text()
            text = re.sub(r"\s×\s10([⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)", lambda m: "e" + m[1].translate(POWERS), text)
            numbers = re.findall(r"[\d.]+(?:e-?\d+)?", text)
            return float(numbers[0]), float(numbers[3]), float(numbers[4])

        def expected() -> tuple[float, float, float]:
            theta, phi = (float(figure.locator(f".{n}").input_value()) * np.pi / 180 for n in ("theta", "phi"))
            root = np.diag([1.0, 10 ** (-float(figure.locator(".kappa").input_value()) / 2)])
            v, u = (np.array([np.cos(a), np.sin(a)]) for a in (theta, phi))
            metric = (root @ v @ root @ u) ** 2 / np.sum((root @ v) ** 2) / np.sum((root @ u) ** 2)
            return float(v @ u) ** 2, metric, 1 - metric

        assert displayed() == pytest.approx(expected(), abs=6e-4)
        before = displayed()
        figure.scroll_into_view_if_needed()
        box = figure.locator("svg.plain").bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        page.mouse.move(x + 40, y)
        page.mouse.down()
        page.mouse.move(x + 5, y - 60, steps=4)
        page.mouse.up()
        assert float(figure.locator(".theta").input_value()) == pytest.approx(85, abs=1)
        assert displayed() == pytest.approx(expected(), abs=6e-4)
        assert displayed() != before
        page.mouse.move(x + 60, y)  # the button of the mouse is up
        assert float(figure.locator(".theta").input_value()) == pytest.approx(85, abs=1)
        figure.get_by_role("button", name="High NTPS, large loss").click()
        ntps, _, excess = displayed()
        assert (ntps > 0.9, excess > 0.9) == (True, True)
        assert visit.errors == []


@pytest.mark.browser
def test_sweep_explorer_selects_settings_by_mouse_and_keys(chromium, address):
    with Visit(chromium, address, "notebooks/06_choosing_k_and_layer") as visit:
        figure = visit.page.locator(".ntps-sweep")
        first, last = figure.locator("rect.cell").first, figure.locator("rect.cell").last
        for cell in (first, last):
            label = cell.get_attribute("aria-label")
            cell.click()
            text = figure.locator("output").inner_text()
            assert label.split(", ")[0] in text
            assert f"coefficient {label.rsplit(' ', 1)[1]}." in text
        before = figure.locator("output").inner_text()
        figure.locator("rect.cell[tabindex='0']").press("ArrowDown")
        assert figure.locator("output").inner_text() != before
        button = figure.get_by_role("button", pressed=False).and_(figure.locator("button")).first
        name = button.inner_text()
        button.click()
        assert figure.locator("output").inner_text().startswith(name)
        assert visit.errors == []


@pytest.mark.browser
def test_skip_explorer_skips_the_chosen_share_of_runs(chromium, address):
    with Visit(chromium, address, "notebooks/09_predicting_the_gain") as visit:
        figure = visit.page.locator(".ntps-skip")
        n = figure.locator("svg.points circle").count()
        for share in (0, 25, 100):
            figure.locator(".skip").fill(str(share))
            k = round(share * n / 100 + 1e-9)
            assert figure.locator("output").inner_text().startswith(f"{k} of {n} runs skipped")
            assert figure.locator("svg.points circle[fill='#fff']").count() == k
        assert "100% of the training time saved" in figure.locator("output").inner_text()
        figure.locator(".sets button").last.click()
        assert figure.locator(".sets button").last.get_attribute("aria-pressed") == "true"
        assert visit.errors == []


CONTRASTS = """
() => {
  const linear = (v) => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
  const luminance = (color) => {
    const [r, g, b] = color.match(/[\\d.]+/g).map((v) => linear(v / 255));
    return .2126 * r + .7152 * g + .0722 * b + .05;
  };
  const figure = document.querySelector(".ntps-explorer");
  const ground = luminance(getComputedStyle(figure).backgroundColor);
  return [...figure.querySelectorAll("svg text, svg line, svg circle, svg polygon")].map((e) => {
    const {fill, stroke} = getComputedStyle(e);
    const color = luminance(e.matches("text") || stroke === "none" ? fill : stroke);
    return [e.outerHTML.slice(0, 90), e.matches("text"), Math.max(color, ground) / Math.min(color, ground)];
  });
}
"""


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", EXPLORERS)
def test_interactive_figures_have_contrast_in_both_themes(chromium, address, name, scheme):
    with Visit(chromium, address, name, scheme=scheme) as visit:
        ground = visit.page.locator(".ntps-explorer").evaluate("e => getComputedStyle(e).backgroundColor")
        assert (ground == "rgb(255, 255, 255)") == (scheme == "light")
        marks = visit.page.evaluate(CONTRASTS)
        assert [mark for mark in marks if mark[1] and mark[2] < 4.5] == []
        # The lines of a grid may be faint, data may not.
        assert [mark for mark in marks if not mark[1] and "#ddd" not in mark[0] and mark[2] < 2.3] == []


@pytest.mark.browser
@pytest.mark.parametrize("name", EXPLORERS)
def test_pages_without_javascript_show_a_static_figure(chromium, address, name):
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{address}/{name}.html")
    assert "This figure needs JavaScript" in page.locator(".ntps-explorer").inner_text()
    assert page.locator("article figure img").count() > 0
    context.close()


@pytest.mark.browser
def test_citation_can_be_copied(chromium, address):
    with Visit(chromium, address, "book/intro") as visit:
        visit.context.grant_permissions(["clipboard-read", "clipboard-write"])
        block = visit.page.locator("#cite .highlight, #cite-this-book .highlight").first
        block.hover()
        block.locator("button.copybtn").click()
        copied = visit.page.evaluate("() => navigator.clipboard.readText()")
        assert copied.lstrip().startswith("@")
        assert "NTPS" in copied


# -- slides ------------------------------------------------------------------------

DECKS = [f"slides/session_{session}" for session in range(1, 5)]
STAND_OUT = """() => {
  const slide = Reveal.getCurrentSlide(), frame = slide.getBoundingClientRect(), place = slide.querySelector('.place');
  const bottom = place.getBoundingClientRect().top;
  return [...slide.querySelectorAll('.frame *')]
    .filter(e => !e.parentElement.closest('svg') && !e.closest('mjx-assistive-mml, style, script, figcaption'))
    .map(e => [e, e.getBoundingClientRect()])
    .filter(([, b]) => b.width > 0 && b.height > 0)
    .filter(([, b]) => b.left < frame.left || b.top < frame.top || b.right > frame.right - 40 || b.bottom > bottom)
    .map(([e, b]) => `${e.tagName} ${e.className}: ${[b.left, b.top, b.right, b.bottom].map(Math.round)}`)
}"""
FIGURES = """() => [...Reveal.getCurrentSlide().querySelectorAll('.frame > figure img')].map(i => {
  const scale = Math.min(i.clientWidth / i.naturalWidth, i.clientHeight / i.naturalHeight);
  return [i.alt, i.naturalWidth * scale];
})"""


def show(page: Any, slide: int) -> None:
    """Show a slide, counted from 0, with all its fragments."""
    page.evaluate("slide => { Reveal.slide(slide, 0, 99); }", slide)


@pytest.fixture
def deck_of(chromium, address):
    """Open a deck and wait until reveal.js is ready."""
    visits = []

    def open_deck(name: str, query: str = "") -> Visit:
        visits.append(Visit(chromium, address, name, query))
        visits[-1].page.wait_for_function("() => Reveal.isReady()")
        return visits[-1]

    yield open_deck
    for visit in visits:
        visit.context.close()


@pytest.mark.browser
@pytest.mark.parametrize("name", DECKS)
def test_slides_fit_their_frame_and_need_no_network(deck_of, name):
    visit = deck_of(name)
    page, n_figures = visit.page, 0
    n_slides = page.evaluate("() => Reveal.getTotalSlides()")
    assert 12 <= n_slides <= 18
    for slide in range(n_slides):
        show(page, slide)
        assert page.evaluate(STAND_OUT) == [], slide + 1
        for alt, width in page.evaluate(FIGURES):
            n_figures += 1
            assert alt, slide + 1
            assert width >= 850, (slide + 1, width)
    assert n_figures >= 3
    assert page.locator("mjx-merror").count() == 0
    assert page.evaluate("() => document.body.innerText.includes('\\\\(')") is False
    assert visit.errors == []


@pytest.mark.browser
@pytest.mark.parametrize("name", DECKS)
def test_everybody_can_use_the_slides(deck_of, name):
    """For printing, all slides are on one page, where all but one are hidden from screen readers."""
    page = deck_of(name, "?print-pdf").page
    page.wait_for_selector(".pdf-page", state="attached")
    for attribute in ("hidden", "aria-hidden"):
        page.locator("section").evaluate_all("(all, name) => all.forEach(s => s.removeAttribute(name))", attribute)
    assert serious(page) == []


@pytest.mark.browser
def test_answers_of_a_quiz_appear_on_the_next_key(deck_of):
    page = deck_of("slides/session_2").page
    page.evaluate("() => Reveal.slide(1)")
    answer = page.locator("section.present .answer")
    assert not answer.is_visible()
    page.keyboard.press("ArrowRight")
    answer.wait_for(state="visible", timeout=5_000)
    assert page.evaluate("() => Reveal.getIndices().h") == 1
    page.keyboard.press("ArrowRight")
    assert page.evaluate("() => Reveal.getIndices().h") == 2


@pytest.mark.browser
def test_keys_in_an_interactive_figure_do_not_turn_the_slide(deck_of):
    page = deck_of("slides/session_3").page
    slide = page.evaluate("() => Reveal.getIndices(document.querySelector('.ntps-explorer').closest('section')).h")
    show(page, slide)
    theta = page.locator(".ntps-explorer .theta").first
    before = float(theta.input_value())
    theta.press("ArrowRight")
    assert float(theta.input_value()) == before + 0.5
    figure = page.locator(".ntps-explorer svg.plain")
    box = figure.bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2 + 5, box["y"] + box["height"] / 2 - 60)
    assert float(theta.input_value()) == pytest.approx(85, abs=1)
    show(page, page.evaluate("() => Reveal.getIndices(document.querySelector('.ntps-sweep').closest('section')).h"))
    figure = page.locator(".ntps-sweep")
    before, slide = figure.locator("output").inner_text(), page.evaluate("() => Reveal.getIndices().h")
    figure.locator("rect.cell[tabindex='0']").press("ArrowDown")
    assert figure.locator("output").inner_text() != before
    assert page.evaluate("() => Reveal.getIndices().h") == slide


@pytest.mark.browser
def test_the_speaker_sees_the_notes_of_a_deck_opened_from_a_file(chromium, site):
    context = chromium.new_context(viewport={"width": 1280, "height": 720})
    page = context.new_page()
    page.goto((site / "slides" / "session_1.html").as_uri())
    page.wait_for_function("() => window.Reveal && Reveal.isReady()")
    with context.expect_page() as opened:
        page.keyboard.press("s")
    speaker = opened.value
    notes = speaker.locator(".speaker-controls-notes .value")
    notes.filter(has_text="Minutes 0 to 10: three tokens by hand").wait_for(timeout=20_000)
    assert speaker.locator(".pacing-title").is_visible()
    page.keyboard.press("End")
    notes.filter(has_text="Minutes 85 to 90: summary").wait_for(timeout=20_000)
    context.close()


@pytest.mark.browser
def test_pdf_is_a_book(chromium, site, tmp_path):
    """It has a title page, contents, an outline and page numbers, no API, and its links lead into it or to the web."""
    copy = tmp_path / "site"
    shutil.copytree(site, copy)
    assert "ntps.pdf" not in (copy / "book/intro.html").read_text()
    command = [sys.executable, "-m", "book.tools.browser", str(copy)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    n_sheets = int(output.split()[0])
    browser.link(copy, n_sheets)  # a second time changes nothing
    front = (copy / "book/intro.html").read_text()
    assert front.count(f'<a href="../ntps.pdf">The book as one PDF</a>: {n_sheets} pages') == 1
    for name in DECKS:
        deck = PdfReader(copy / f"{name}.pdf")
        assert len(deck.pages) == (site / f"{name}.html").read_text().count("<section")
        assert all(len(sheet.extract_text()) > 20 for sheet in deck.pages)
    pdf = PdfReader(copy / "ntps.pdf")
    texts = [page.extract_text() for page in pdf.pages]
    assert len(texts) == n_sheets > 100
    title = "Does next-token prediction learn what your task needs?"
    assert " ".join(texts[0].split()).startswith(title)
    assert "arXiv:2505.17169" in texts[0]
    assert "Edition" in texts[0]
    numbered = [i for i, text in enumerate(texts, 1) if str(i) in (text.splitlines()[0], text.splitlines()[-1])]
    assert numbered == list(range(2, n_sheets + 1))
    starts = {item.title: pdf.get_destination_page_number(item) for item in pdf.outline}
    assert len(starts) == len(PAGES) - sum(name.startswith("book/api") for name in PAGES)
    chapter = next(sheet for title, sheet in starts.items() if "The score and its bounds" in title)
    assert "excess loss" in texts[chapter] + texts[chapter + 1]
    assert re.search(rf"The score and its bounds\s+{chapter + 1}\b", texts[1])
    assert not any("Packages and public names" in text for text in [*starts, *texts])
    links = [link.get_object() for page in pdf.pages for link in page.get("/Annots", [])]
    outside = [str(link["/A"]["/URI"]) for link in links if "/A" in link]
    inside = {str(link["/Dest"]) for link in links if "/Dest" in link}
    assert all(address.startswith("https://") for address in outside), outside
    assert len(inside) > 100
    assert inside <= set(pdf.named_destinations)


def test_missing_site_or_browser_is_an_error(tmp_path, monkeypatch):
    with pytest.raises(browser.BrowserError, match="make book"):
        browser.export(tmp_path, tmp_path / "x.pdf")
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CHROMIUM", raising=False)
    with pytest.raises(browser.BrowserError, match="apt-get install chromium"):
        browser.find_chromium()
