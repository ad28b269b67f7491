"""Every page of the website, in a real browser: Debian's chromium under Playwright.

The site is the preview (tools/preview.py), since Quarto is on no package index. Where there is no
chromium the tests skip; CI installs it.
"""

import functools
import importlib.util
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from conftest import CHROMIUM

ROOT = Path(__file__).resolve().parent.parent
SIZES = {1280: 800, 390: 844}  # width: height of a laptop's window and of a phone
# pages on which the colours of both themes are judged: one of each kind
KINDS = """index.html book/playground.html book/course.html book/commands.html book/glossary.html
    nbs/easy/ch02_prediction.html nbs/medium/ch08_attention.html
    nbs/tough/ch19_trainer.html""".split()
GROUPS = ("", "book", "nbs/easy", "nbs/medium", "nbs/tough", "nbs/exercises")

pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason="needs chromium")


def tool(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    "The folder of the site, and the address at which it is served."
    folder = tmp_path_factory.mktemp("site") / "_site"
    tool("preview").render(folder)
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture
def page(browser):
    "A page that remembers what it complained about, and each address that it asked for."
    page = browser.new_page(reduced_motion="reduce")
    page.set_default_timeout(180_000)  # a busy machine
    page.said, page.asked = [], []
    page.on("console", lambda m: m.type == "error" and page.said.append(m.text))
    page.on("pageerror", lambda e: page.said.append(str(e)))
    page.on("request", lambda r: page.asked.append(r.url))
    yield page
    page.close()


WIDE = """() => {
  const wide = document.documentElement.scrollWidth - innerWidth;
  if (wide <= 0) return null;
  const sticks = [...document.querySelectorAll("body *")].filter(e => {
    const box = e.getBoundingClientRect();
    return box.right > innerWidth + 1 && box.width && getComputedStyle(e).position !== "fixed";
  });
  return `${wide} px too wide: ${sticks.slice(-1).map(e => e.outerHTML.slice(0, 150))}`;
}"""
NAMELESS = """() => [...document.querySelectorAll("main img, main svg[role=img]")]
  .filter(e => !(e.alt ?? e.getAttribute("aria-label")) && !e.closest("[aria-hidden=true]"))
  .map(e => e.outerHTML.slice(0, 150))"""


@pytest.mark.parametrize("group", GROUPS)
def test_no_page_complains_or_scrolls_sideways(site, page, group):
    folder, base = site
    pages = sorted((folder / group).glob("**/*.html" if group == "book" else "*.html"))
    pages = [p for p in pages if p.name != "print.html"]  # a chapter has been looked at before
    assert pages
    found = []
    for path in pages:
        name = path.relative_to(folder).as_posix()
        page.goto(f"{base}/{name}")
        for width, height in SIZES.items():
            page.set_viewport_size({"width": width, "height": height})
            for theme in ("light", "dark"):
                page.emulate_media(color_scheme=theme)
                if wide := page.evaluate(WIDE):
                    found.append(f"{name}, {width} px, {theme}: {wide}")
        found += [f"{name}: no description of {e}" for e in page.evaluate(NAMELESS)]
        found += [f"{name}: {line}" for line in page.said]
        page.said.clear()
    found += [url for url in page.asked if not url.startswith((base, "data:", "blob:"))]
    assert not found, "\n".join(found)


def test_the_check_before_publishing_finds_nothing(site):
    "What pages.yml runs on the render: links, weight, headings. Quarto adds robots.txt."
    check = tool("check_render")
    assert list(check.findings(site[0])) == ["robots.txt: is not there"]


@pytest.mark.parametrize("name", KINDS)
def test_axe_finds_nothing_serious(site, page, name):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe").Axe()
    found = []
    for theme, width in (("light", 1280), ("dark", 390)):
        page.emulate_media(color_scheme=theme)
        page.set_viewport_size({"width": width, "height": SIZES[width]})
        page.goto(f"{site[1]}/{name}")
        page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        for v in axe.run(page).response["violations"]:
            if v["impact"] in ("serious", "critical"):
                for node in v["nodes"][:4]:
                    found.append(f"{theme}: {v['id']}: {node['html'][:200]} {node['any'][:1]}")
    assert not found, "\n".join(found)


def test_the_keyboard_reaches_the_text_and_the_appendices(site, page):
    page.goto(f"{site[1]}/nbs/easy/ch02_prediction.html")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the text"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('main') !== null")
    appendix = page.locator("#quarto-sidebar").get_by_text("2a · Plots")
    assert not appendix.is_visible()
    page.get_by_role("button", name="Pages of Appendix 2a").press("Enter")
    appendix.wait_for(state="visible")


# habits of a reader


def test_a_chapter_is_ticked_off_in_this_browser_only(site, page):
    page.goto(f"{site[1]}/nbs/easy/ch02_prediction.html")
    box = page.get_by_label("I have finished this chapter")
    assert not box.is_checked()
    box.check()
    page.goto(f"{site[1]}/book/course.html")
    ticked = page.eval_on_selector_all("main a.is-finished", "all => all.map(a => a.href)")
    assert ticked and all(url.endswith("/nbs/easy/ch02_prediction.html") for url in ticked)
    page.goto(f"{site[1]}/nbs/easy/ch02_prediction.html")
    box.uncheck()
    page.reload()
    assert not box.is_checked()
    assert not [url for url in page.asked if not url.startswith(site[1])]


@pytest.mark.parametrize("chapter", ["easy/ch01_quickstart", "tough/ch27_scaling"])
def test_a_term_shows_its_definition(site, page, chapter):
    page.goto(f"{site[1]}/nbs/{chapter}.html")
    link = page.locator("main a[href*='glossary.html#']").first
    term = link.get_attribute("href").split("#")[1]
    link.focus()
    page.wait_for_selector("[role=tooltip]")
    said = page.inner_text("[role=tooltip]")
    page.keyboard.press("Escape")
    assert page.query_selector("[role=tooltip]") is None
    page.goto(f"{site[1]}/book/glossary.html")
    words = f"document.getElementById('{term}').closest('dt').nextElementSibling.innerText"
    assert said == page.evaluate(words).strip() and len(said) > 40


def test_the_notebook_comes_along(site, page):
    page.goto(f"{site[1]}/nbs/easy/ch02_prediction.html")
    with page.expect_download() as coming:
        page.get_by_text("Download the notebook").click()
    notebook = (ROOT / "nbs/easy/ch02_prediction.ipynb").read_bytes()
    assert Path(coming.value.path()).read_bytes() == notebook


def test_the_course_prints_as_one_page(site, page):
    page.goto(f"{site[1]}/book/course.html")
    page.get_by_text("all chapters on one page").click()
    page.wait_for_load_state()
    chapters = page.eval_on_selector_all("section.chapter", "all => all.map(e => e.id)")
    files = [p for p in (ROOT / "nbs").glob("*/ch*.ipynb") if p.parent.name != "exercises"]
    assert sorted(chapters) == sorted(p.stem for p in files)
    lost = """() => [...document.querySelectorAll("a[href^='#']")].map(a => a.hash.slice(1))
      .filter(id => id && !document.getElementById(decodeURIComponent(id)))"""
    assert page.evaluate(lost) == []
    assert not page.said


def test_the_search_finds_what_a_reader_types(site, page):
    page.goto(f"{site[1]}/index.html")
    count = "document.querySelectorAll(\"a[href*='ch09_model']\").length"
    before = page.evaluate(count)  # links that the page has anyway
    page.keyboard.press("/")
    page.locator("input[type=search], .aa-Input").first.fill("tied embeddings")
    page.wait_for_function(f"{count} > {before}")
    assert page.evaluate(count) > before
