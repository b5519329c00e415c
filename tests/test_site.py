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

from book.tools import browser
from book.tools import refresh as book
from book.tools import site_extension as site_extension
from tests.conftest import ROOT

pytestmark = pytest.mark.xdist_group("site")  # one process builds the site

REPOSITORY = "https://github.com/owner/ntps"
PAGES = browser.pages()
CHAPTERS = book.chapters()


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built from the committed notebooks with warnings as errors, as if it were to be published."""
    folder = tmp_path_factory.mktemp("site")
    book.prepare()
    command = [str(Path(sys.executable).with_name("jupyter-book")), "build", str(ROOT), "--path-output", str(folder)]
    flags = ["--warningiserror", "--nitpick", "--keep-going", "--quiet"]
    environment = {**os.environ, "NTPS_REPOSITORY": REPOSITORY}
    done = subprocess.run(command + flags, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return folder / "_build" / "html"


@pytest.mark.slow
def test_every_page_is_there_with_its_figures(site):
    for page in PAGES:
        html = (site / f"{page}.html").read_text()
        images = re.findall(r'<img[^>]*src="([^"]+)"[^>]*>', html)
        for image in images:
            assert (site / page).parent.joinpath(image).resolve().is_file(), (page, image)
        for tag in re.findall(r"<img[^>]*>", html):
            assert re.search(r'alt="[^"]+"', tag), (page, tag)


@pytest.mark.slow
def test_internal_links_and_anchors_lead_somewhere(site):
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
def test_no_page_needs_the_network_for_mathematics(site):
    html = (site / "notebooks/03_score_and_bounds.html").read_text()
    (script,) = re.findall(r'<script[^>]*src="([^"]*mathjax[^"]*)"', html)
    assert (site / "notebooks" / script.partition("?")[0]).resolve().is_file()
    assert (site / "_static/mathjax/output/chtml/fonts").is_dir()


@pytest.mark.slow
def test_glued_values_are_in_the_text(site):
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
def test_buttons_open_and_download_notebooks_that_exist(site, source):
    """Binder and Colab open the committed notebook, and the arrow downloads it."""
    html = unquote((site / f"notebooks/{source.stem}.html").read_text())
    (binder,) = set(re.findall(r'href="(https://mybinder.org/[^"]+)"', html))
    (colab,) = set(re.findall(r'href="(https://colab.research.google.com/[^"]+)"', html))
    assert binder.startswith("https://mybinder.org/v2/gh/owner/ntps/main?")
    assert colab.startswith("https://colab.research.google.com/github/owner/ntps/blob/main/")
    for address in (binder, colab):
        assert (ROOT / "notebooks" / address.partition("/notebooks/")[2]) == source.with_suffix(".ipynb")
    (there,) = re.findall(r'href="([^"]+_sources/[^"]+\.ipynb)"', html)
    assert (site / "notebooks" / there).resolve().read_bytes() == source.with_suffix(".ipynb").read_bytes()


def test_without_an_address_there_is_nothing_to_open(monkeypatch):
    for name in ("NTPS_REPOSITORY", "GITHUB_REPOSITORY"):
        monkeypatch.delenv(name, raising=False)
    assert site_extension.repository() is None
    monkeypatch.setenv("GITHUB_REPOSITORY", "someone/book")
    assert site_extension.repository() == "https://github.com/someone/book"


@pytest.mark.slow
@pytest.mark.parametrize("page", ["03_score_and_bounds", "06_choosing_k_and_layer", "09_predicting_the_gain"])
def test_the_interactive_figures_are_on_their_pages(site, page):
    html = (site / f"notebooks/{page}.html").read_text()
    assert html.count('class="ntps-explorer') == 1
    assert "/*SETTINGS*/" not in html


# -- in a browser ------------------------------------------------------------------


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    try:
        with browser.chromium() as found:
            yield found
    except browser.BrowserError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def address(site) -> Iterator[str]:
    with browser.served(site) as found:
        yield found


# The theme fades colors in; axe must not measure them half-way.
STILL = "() => Promise.all(document.getAnimations().map(a => a.finished.catch(() => null))).then(() => true)"


class Visit:
    """A page that remembers what its console said and which files did not come."""

    def __init__(self, chromium: Any, address: str, name: str, width: int = 1280, scheme: str = "light") -> None:
        self.context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.page = self.context.new_page()
        self.said: list[str] = []
        self.page.on("console", lambda m: self.said.append(f"{m.type}: {m.text}") if m.type == "error" else None)
        self.page.on("pageerror", lambda error: self.said.append(f"uncaught: {error}"))
        self.page.on("requestfailed", lambda r: self.said.append(f"no answer: {r.url}"))
        self.page.on("response", lambda r: self.said.append(f"{r.status}: {r.url}") if r.status >= 400 else None)
        self.page.on(
            "request",
            lambda r: None if r.url.startswith((address, "data:", "blob:")) else self.said.append(f"away: {r.url}"),
        )
        self.page.goto(f"{address}/{name}.html")
        self.page.evaluate(browser.READY)
        self.page.evaluate(STILL)

    def __enter__(self) -> Visit:
        return self

    def __exit__(self, *_: object) -> None:
        self.context.close()


def serious(page: Any) -> list[str]:
    found = Axe().run(page).response["violations"]
    return [
        f"{one['id']}: {one['nodes'][0]['html'][:200]} ({len(one['nodes'])} places)"
        for one in found
        if one["impact"] in ("serious", "critical")
    ]


@pytest.mark.browser
@pytest.mark.parametrize("name", PAGES)
def test_a_page_opens_without_an_error_in_the_console(chromium, address, name):
    """Mathematics rendered, every figure there, nothing asked of another machine."""
    with Visit(chromium, address, name) as visit:
        page = visit.page
        assert page.locator("article h1").count() == 1
        source = next(path for path in ROOT.glob(f"{name}.*") if path.suffix in (".py", ".md")).read_text()
        formulas = page.locator(".math").count()
        assert (formulas > 0) == bool(re.search(r"\$[^$\n]+\$", source))
        assert page.locator(".math mjx-container").count() >= formulas
        assert page.locator("mjx-merror, .MathJax_Error").count() == 0
        images = page.evaluate(
            "() => [...document.querySelectorAll('article img')].map("
            "i => (i.loading = 'eager', i.decode().then(() => [i.naturalWidth, i.alt], () => [0, i.src])))"
            ".reduce(async (all, one) => [...await all, await one], Promise.resolve([]))"
        )
        assert all(width > 0 and alt for width, alt in images), images
        assert visit.said == []


@pytest.mark.browser
@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 1280), ("light", 390)])
@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_no_serious_violation(chromium, address, name, scheme, width):
    with Visit(chromium, address, name, width=width, scheme=scheme) as visit:
        assert visit.page.evaluate("() => document.documentElement.dataset.theme") == scheme
        assert serious(visit.page) == []


@pytest.mark.browser
@pytest.mark.parametrize("name", PAGES)
def test_a_phone_shows_a_page_without_scrolling_sideways(chromium, address, name):
    with Visit(chromium, address, name, width=390) as visit:
        width = visit.page.evaluate("() => document.documentElement.scrollWidth")
        assert width <= 390
        # Figures keep letters that can be read; what sticks out is reached by scrolling a box that fits.
        figures = visit.page.evaluate(
            "() => [...document.querySelectorAll('article figure img, article .cell_output img')].map(i => {"
            "const box = i.closest('figure, .output'), s = getComputedStyle(box);"
            "return [i.getBoundingClientRect().width, box.getBoundingClientRect().right, s.overflowX]})"
        )
        assert all(shown >= 570 and right <= 390 and scrolls == "auto" for shown, right, scrolls in figures), figures
        assert visit.said == []


@pytest.mark.browser
def test_keys_scroll_a_figure_on_a_phone_and_pass_by_it_elsewhere(chromium, address):
    with Visit(chromium, address, "book/intro", width=390) as visit:
        figure = visit.page.locator("#fig-question")
        figure.focus()
        figure.press("ArrowRight")
        visit.page.wait_for_function("() => document.querySelector('#fig-question').scrollLeft > 0")
        visit.page.set_viewport_size({"width": 1280, "height": 900})
        visit.page.wait_for_function("() => !document.querySelector('#fig-question').hasAttribute('tabindex')")


@pytest.mark.browser
def test_search_finds_the_excess_loss(chromium, address):
    with Visit(chromium, address, "search") as visit:
        visit.page.goto(f"{address}/search.html?q=excess+loss")
        results = visit.page.locator("#search-results li")
        results.first.wait_for(timeout=20_000)
        visit.page.wait_for_function(
            "() => /finished|found/i.test(document.querySelector('#search-results').innerText)"
        )
        assert any("score_and_bounds" in (a or "") for a in visit.page.eval_on_selector_all(
            "#search-results li a", "links => links.map(a => a.href)"))  # fmt: skip
        assert visit.said == []


@pytest.mark.browser
def test_the_menu_opens_on_a_phone(chromium, address):
    with Visit(chromium, address, "book/intro", width=390) as visit:
        link = visit.page.locator("nav.bd-links a", has_text="Linear perception").first
        assert not link.is_visible()
        visit.page.locator("button.primary-toggle:visible").first.click()
        link.wait_for(state="visible", timeout=5_000)
        link.click()
        visit.page.wait_for_url("**/02_linear_perception.html")


# -- figures that answer -----------------------------------------------------------


@pytest.mark.browser
def test_a_drag_turns_the_subspace_and_the_numbers_are_right(chromium, address):
    with Visit(chromium, address, "notebooks/03_score_and_bounds") as visit:
        page, figure = visit.page, visit.page.locator(".ntps-explorer")

        def shown() -> tuple[float, float, float]:
            said = re.findall(r"[\d.]+(?:e[+-]\d+)?", figure.locator("output").inner_text())
            return float(said[0]), float(said[3]), float(said[4])

        def expected() -> tuple[float, float, float]:
            theta, phi = (float(figure.locator(f".{n}").input_value()) * np.pi / 180 for n in ("theta", "phi"))
            root = np.diag([1.0, 10 ** (-float(figure.locator(".kappa").input_value()) / 2)])
            v, u = (np.array([np.cos(a), np.sin(a)]) for a in (theta, phi))
            metric = (root @ v @ root @ u) ** 2 / np.sum((root @ v) ** 2) / np.sum((root @ u) ** 2)
            return float(v @ u) ** 2, metric, 1 - metric

        assert shown() == pytest.approx(expected(), abs=6e-4)
        before = shown()
        figure.scroll_into_view_if_needed()
        box = figure.locator("svg.plain").bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        page.mouse.move(x + 40, y)
        page.mouse.down()
        page.mouse.move(x + 5, y - 60, steps=4)
        page.mouse.up()
        assert float(figure.locator(".theta").input_value()) == pytest.approx(85, abs=1)
        assert shown() == pytest.approx(expected(), abs=6e-4)
        assert shown() != before
        page.mouse.move(x + 60, y)  # the button is up: nothing turns any more
        assert float(figure.locator(".theta").input_value()) == pytest.approx(85, abs=1)
        figure.get_by_role("button", name="High NTPS, large loss").click()
        ntps, _, excess = shown()
        assert (ntps > 0.9, excess > 0.9) == (True, True)
        assert visit.said == []


@pytest.mark.browser
def test_a_click_chooses_a_setting_and_keys_move_it(chromium, address):
    with Visit(chromium, address, "notebooks/06_choosing_k_and_layer") as visit:
        figure = visit.page.locator(".ntps-sweep")
        first, last = figure.locator("rect.cell").first, figure.locator("rect.cell").last
        for cell in (first, last):
            label = cell.get_attribute("aria-label")
            cell.click()
            said = figure.locator("output").inner_text()
            assert label.split(", ")[0] in said
            assert f"coefficient {label.rsplit(' ', 1)[1]}." in said
        before = figure.locator("output").inner_text()
        figure.locator("rect.cell[tabindex='0']").press("ArrowDown")
        assert figure.locator("output").inner_text() != before
        button = figure.get_by_role("button", pressed=False).and_(figure.locator("button")).first
        name = button.inner_text()
        button.click()
        assert figure.locator("output").inner_text().startswith(name)
        assert visit.said == []


@pytest.mark.browser
def test_a_slider_skips_runs(chromium, address):
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
        assert visit.said == []


@pytest.mark.browser
@pytest.mark.parametrize("name", ["03_score_and_bounds", "06_choosing_k_and_layer", "09_predicting_the_gain"])
def test_without_scripts_there_is_a_static_figure(chromium, address, name):
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{address}/notebooks/{name}.html")
    assert "This figure needs JavaScript" in page.locator(".ntps-explorer").inner_text()
    assert page.locator("article figure img").count() > 0
    context.close()


@pytest.mark.browser
def test_the_citation_can_be_copied(chromium, address):
    with Visit(chromium, address, "book/intro") as visit:
        visit.context.grant_permissions(["clipboard-read", "clipboard-write"])
        block = visit.page.locator("#cite .highlight, #cite-this-book .highlight").first
        block.hover()
        block.locator("button.copybtn").click()
        copied = visit.page.evaluate("() => navigator.clipboard.readText()")
        assert copied.lstrip().startswith("@")
        assert "NTPS" in copied


@pytest.mark.browser
def test_the_whole_book_becomes_one_pdf(chromium, site, tmp_path):
    command = [sys.executable, "-m", "book.tools.browser", str(tmp_path / "book.pdf"), str(site)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    n_sheets = int(said.split()[0])
    pdf = PdfReader(tmp_path / "book.pdf")
    assert len(pdf.pages) == n_sheets > 100
    assert len(pdf.outline) == len(PAGES)
    first = {item.title: pdf.get_destination_page_number(item) for item in pdf.outline}
    start = next(page for title, page in first.items() if "The score and its bounds" in title)
    assert "excess loss" in pdf.pages[start].extract_text() + pdf.pages[start + 1].extract_text()


def test_a_missing_site_or_browser_is_named(tmp_path, monkeypatch):
    with pytest.raises(browser.BrowserError, match="make book"):
        browser.export(tmp_path, tmp_path / "x.pdf")
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CHROMIUM", raising=False)
    with pytest.raises(browser.BrowserError, match="apt-get install chromium"):
        browser.find_chromium()
