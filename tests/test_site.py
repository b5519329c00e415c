"""The built site: its files, and its pages in a real browser."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from pypdf import PdfReader

from book.tools import browser, site_extension
from book.tools import refresh as book
from tests.conftest import ROOT

REPOSITORY = "https://github.com/owner/ntps"
PAGES = browser.pages()
WRITTEN = [name for name in PAGES if not name.startswith("book/api/")]
API_EXAMPLE = "book/api/lab"
"""One page of the API; axe needs 20 seconds for each of these pages, which are all generated in the same way."""
CHAPTERS = book.chapters()


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the site, built from the committed notebooks with warnings as errors and a repository."""
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


def test_repository_is_read_from_the_environment(monkeypatch):
    for name in ("NTPS_REPOSITORY", "GITHUB_REPOSITORY"):
        monkeypatch.delenv(name, raising=False)
    assert site_extension.repository() is None
    monkeypatch.setenv("GITHUB_REPOSITORY", "someone/book")
    assert site_extension.repository() == "https://github.com/someone/book"


@pytest.mark.slow
@pytest.mark.parametrize("page", ["03_score_and_bounds", "06_choosing_k_and_layer", "09_predicting_the_gain"])
def test_interactive_figures_are_on_their_pages(site, page):
    html = (site / f"notebooks/{page}.html").read_text()
    assert html.count('class="ntps-explorer') == 1
    assert "/*SETTINGS*/" not in html


# -- in a browser ------------------------------------------------------------------


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
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
        if name in WRITTEN or name == API_EXAMPLE:
            assert serious(page) == []


@pytest.mark.browser
@pytest.mark.parametrize("name", WRITTEN)
def test_dark_pages_have_enough_contrast(chromium, address, name):
    with Visit(chromium, address, name, scheme="dark") as visit:
        assert visit.page.evaluate("() => document.documentElement.dataset.theme") == "dark"
        assert serious(visit.page, CONTRAST_ONLY) == []


@pytest.mark.browser
@pytest.mark.parametrize("name", PAGES)
def test_pages_fit_the_width_of_a_phone(chromium, address, name):
    with Visit(chromium, address, name, width=390) as visit:
        width = visit.page.evaluate("() => document.documentElement.scrollWidth")
        assert width <= 390
        # Figures keep a readable size; a box of the width of the phone scrolls them.
        figures = visit.page.evaluate(
            "() => [...document.querySelectorAll('article figure img, article .cell_output img')].map(i => {"
            "const box = i.closest('figure, .output'), s = getComputedStyle(box);"
            "return [i.getBoundingClientRect().width, box.getBoundingClientRect().right, s.overflowX]})"
        )
        assert all(wide >= 570 and right <= 390 and scrolls == "auto" for wide, right, scrolls in figures), figures
        assert visit.errors == []
        if name in WRITTEN:
            assert serious(visit.page, WITHOUT_CONTRAST) == []


@pytest.mark.browser
def test_keys_scroll_figures_on_narrow_screens_only(chromium, address):
    with Visit(chromium, address, "book/intro", width=390) as visit:
        figure = visit.page.locator("#fig-question")
        figure.focus()
        figure.press("ArrowRight")
        visit.page.wait_for_function("() => document.querySelector('#fig-question').scrollLeft > 0")
        visit.page.set_viewport_size({"width": 1280, "height": 900})
        visit.page.wait_for_function("() => !document.querySelector('#fig-question').hasAttribute('tabindex')")


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
def test_menu_opens_on_a_phone(chromium, address):
    with Visit(chromium, address, "book/intro", width=390) as visit:
        link = visit.page.locator("nav.bd-links a", has_text="Linear perception").first
        assert not link.is_visible()
        visit.page.locator("button.primary-toggle:visible").first.click()
        link.wait_for(state="visible", timeout=5_000)
        link.click()
        visit.page.wait_for_url("**/02_linear_perception.html")


# -- interactive figures -----------------------------------------------------------


@pytest.mark.browser
def test_subspace_explorer_follows_the_mouse_and_shows_correct_scores(chromium, address):
    with Visit(chromium, address, "notebooks/03_score_and_bounds") as visit:
        page, figure = visit.page, visit.page.locator(".ntps-explorer")

        def displayed() -> tuple[float, float, float]:
            numbers = re.findall(r"[\d.]+(?:e[+-]\d+)?", figure.locator("output").inner_text())
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


@pytest.mark.browser
@pytest.mark.parametrize("name", ["03_score_and_bounds", "06_choosing_k_and_layer", "09_predicting_the_gain"])
def test_pages_without_javascript_show_a_static_figure(chromium, address, name):
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{address}/notebooks/{name}.html")
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
    assert answer.evaluate("e => getComputedStyle(e).visibility") == "hidden"
    page.keyboard.press("ArrowRight")
    assert answer.evaluate("e => getComputedStyle(e).visibility") == "visible"
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
def test_pdf_contains_all_pages_with_an_outline(chromium, site, tmp_path):
    command = [sys.executable, "-m", "book.tools.browser", str(tmp_path / "book.pdf"), str(site)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    n_sheets = int(output.split()[0])
    for name in DECKS:
        deck = PdfReader(tmp_path / f"book_{Path(name).name}.pdf")
        assert len(deck.pages) == (site / f"{name}.html").read_text().count("<section")
        assert all(len(sheet.extract_text()) > 20 for sheet in deck.pages)
    pdf = PdfReader(tmp_path / "book.pdf")
    assert len(pdf.pages) == n_sheets > 100
    assert len(pdf.outline) == len(PAGES)
    first_sheets = {item.title: pdf.get_destination_page_number(item) for item in pdf.outline}
    start = next(sheet for title, sheet in first_sheets.items() if "The score and its bounds" in title)
    assert "excess loss" in pdf.pages[start].extract_text() + pdf.pages[start + 1].extract_text()


def test_missing_site_or_browser_is_an_error(tmp_path, monkeypatch):
    with pytest.raises(browser.BrowserError, match="make book"):
        browser.export(tmp_path, tmp_path / "x.pdf")
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CHROMIUM", raising=False)
    with pytest.raises(browser.BrowserError, match="apt-get install chromium"):
        browser.find_chromium()
