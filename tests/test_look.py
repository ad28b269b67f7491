"""The website's look: contrast, diagrams, what a page makes of a notebook, the rendered site."""

import importlib.util
import json
import random
import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SITE = ROOT / "book" / "site"
NOTEBOOKS = sorted((ROOT / "nbs").glob("*/*.ipynb"))
CHAPTERS = [p for p in NOTEBOOKS if re.match(r"ch\d\d_", p.stem)]


def tool(name):
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.pop(0)
    return module


site, check_render, diagrams = tool("site"), tool("check_render"), tool("diagrams")


# colours


def luminance(colour):
    "Relative luminance, as WCAG 2.2 defines it."
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def contrast(a, b):
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def colours(theme):
    text = (SITE / f"{theme}.scss").read_text(encoding="utf-8")
    return dict(re.findall(r"^\$([\w-]+): (#[0-9a-f]{6});$", text, re.M))


RULE_NAMES = {  # in theme.css: what Bootstrap and Quarto call it
    "paper": "body-bg",
    "ink": "body-color",
    "muted": "text-muted",
    "link": "link-color",
    "hover": "link-hover-color",
    "line": "border-color",
    "inline": "code-bg",
    "inline-ink": "code-color",
    "code": "code-block-bg",
    "card": "card-bg",
    "note": "note",
    "on-button": "on-primary",
    "button": "primary",
    "keyword": "code-keyword",
    "string": "code-string",
    "number": "code-number",
    "comment": "code-comment",
    "function": "code-function",
    "type": "code-type",
    "aside": "sidebar-fg",
}
CODE = ("keyword", "string", "number", "comment", "function", "type")
PAIRS = {
    "text": ("body-color", "body-bg"),
    "quotes and breadcrumbs": ("text-muted", "body-bg"),
    "links": ("link-color", "body-bg"),
    "links under the pointer": ("link-hover-color", "body-bg"),
    "inline code": ("code-color", "code-bg"),
    "a link that is code": ("link-color", "code-bg"),
    "output": ("body-color", "code-block-bg"),
    "copy button": ("text-muted", "code-block-bg"),
    "exercise": ("body-color", "card-bg"),
    "inline code in an exercise": ("code-color", "code-bg"),
    "solution": ("note", "card-bg"),
    "claim": ("note", "body-bg"),
    "link in an exercise": ("link-color", "card-bg"),
    "button": ("on-primary", "primary"),
    "button under the pointer": ("on-primary", "link-hover-color"),
    "navbar": ("navbar-fg", "navbar-bg"),
    "chosen in the navbar": ("navbar-hl", "navbar-bg"),
    "sidebar": ("sidebar-fg", "sidebar-bg"),
    "this page in the sidebar": ("sidebar-hl", "sidebar-bg"),
    "footer": ("footer-fg", "footer-bg"),
} | {f"code, {name}": (f"code-{name}", "code-block-bg") for name in CODE}


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("what", PAIRS)
def test_text_stands_out_from_its_ground(theme, what):
    "Defect: inline code, quotes and breadcrumbs were under 4.5 to 1 in the stock themes."
    values = colours(theme)
    over, under = PAIRS[what]
    assert contrast(values[over], values[under]) >= 4.5


def test_the_contrast_is_the_one_of_wcag():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.005)  # WebAIM's example


def test_a_colour_is_the_same_for_quarto_and_in_the_rules():
    text = (SITE / "theme.css").read_text(encoding="utf-8")
    light, dark = re.findall(r"color-scheme: \w+;\n(.+?)\n}", text, re.S)
    for theme, block in (("light", light), ("dark", dark)):
        in_rules = dict(re.findall(r"--([\w-]+): (#\w+);", block))
        assert len(in_rules) == len(RULE_NAMES)
        for name, value in in_rules.items():
            assert colours(theme)[RULE_NAMES[name]] == value, name


def test_both_themes_set_the_same_and_the_rules_set_no_colour():
    assert colours("light").keys() == colours("dark").keys()
    rules = (SITE / "theme.css").read_text(encoding="utf-8").split("body {", 1)[1]
    assert not re.findall(r"#[0-9a-fA-F]{3,8}\b", re.sub(r"#quarto[\w-]*", "", rules))
    used = set(re.findall(r"var\(--((?!bs-|d-)[\w-]+)\)", rules))
    assert used <= RULE_NAMES.keys(), "a variable that no theme sets"


@pytest.mark.parametrize("values", [diagrams.LIGHT, diagrams.DARK], ids=["light", "dark"])
def test_a_drawing_can_be_read_on_its_own_ground(values):
    for name in ("ink", "muted", "mark", "warm"):
        assert contrast(values[name], values["ground"]) >= 4.5
        assert contrast(values[name], values["box"]) >= 4.5
    assert contrast(values["line"], values["ground"]) >= 3  # WCAG 1.4.11, for lines


# diagrams


def test_every_diagram_is_drawn_and_stands_in_a_chapter():
    drawn = {p.stem for p in (ROOT / "book" / "diagrams").glob("*.svg")}
    assert drawn == set(diagrams.FILES)
    texts = [p.read_text(encoding="utf-8") for p in (ROOT / "book").glob("*/*.md")]
    for name in drawn:
        (alt,) = re.findall(
            rf"^!\[(.+)\]\(../../book/diagrams/{name}\.svg\)$", "\n".join(texts), re.M
        )
        assert len(alt) > 80, f"{name}: say in words what the drawing shows"


@pytest.mark.parametrize("name", diagrams.FILES)
def test_a_drawing_keeps_inside_its_frame(name):
    drawing = diagrams.FILES[name]()
    for tag, attrs in re.findall(r"<(rect|text) ([^>]+)>", "".join(drawing.shapes)):
        a = {k: float(v) for k, v in re.findall(r'(x|y|width|height)="([\d.]+)"', attrs)}
        assert 0 <= a["x"] <= a["x"] + a.get("width", 0) <= diagrams.WIDTH, (tag, attrs)
        assert 0 <= a["y"] <= a["y"] + a.get("height", 0) <= drawing.height, (tag, attrs)


def test_the_map_links_every_module_to_its_chapter():
    svg = diagrams.library().svg()
    found = re.findall(r'<a href="\.\./(nbs/[\w/]+)\.html">', svg)  # Quarto leaves raw HTML alone
    links = [f"{page}.ipynb" for page in found]
    modules = [
        p for tier in diagrams.lists.TIERS for p in diagrams.lists.pages(tier) if "." in p.module
    ]
    assert sorted(links) == sorted(p.notebook for p in modules)
    assert links and all((ROOT / link).exists() for link in links)


# what a page makes of a notebook


def made(path):
    "Run the filter as Quarto does: in the notebook's folder, the notebook on standard input."
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "site.py"],
        input=path.read_bytes(),
        capture_output=True,
        cwd=path.parent,
    )
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


def text_of(nb, kinds=("raw", "markdown", "code")):
    return "\n".join("".join(c["source"]) for c in nb["cells"] if c["cell_type"] in kinds)


@pytest.mark.parametrize("path", [CHAPTERS[0], NOTEBOOKS[-1], ROOT / "nbs/exercises/core.ipynb"])
def test_the_filter_works_as_quarto_calls_it(path):
    assert made(path) == site.page(json.loads(path.read_text(encoding="utf-8")), path)


def test_a_notebook_that_is_not_in_the_folder_is_one_line(tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "site.py"],
        input=CHAPTERS[0].read_bytes(),
        capture_output=True,
        cwd=tmp_path,
    )
    assert done.returncode == 1 and done.stdout == b""
    assert done.stderr.decode().strip().count("\n") == 0 and b"no notebook of" in done.stderr


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_page_has_title_description_and_whole_cards(path):
    nb = site.page(json.loads(path.read_text(encoding="utf-8")), path)
    matter = "".join(nb["cells"][0]["source"])
    assert nb["cells"][0]["cell_type"] == "raw"
    assert re.search(r'^title: "(\d+[a-z]? · )?[A-Z].+"$', matter, re.M)
    number = site.number(path)
    assert (f'title: "{number} · ' in matter) == bool(number)
    assert re.search(r'^description: "[^"].+"$', matter, re.M)
    kinds = {k for c in nb["cells"] for o in c.get("outputs", []) for k in o.get("data", {})}
    assert not kinds & {"text/html", "application/javascript"}, "Quarto would load jQuery for it"
    prose = re.sub(r"(?ms)^```.*?^```$", "", text_of(nb, ("markdown",)))
    assert "On the website" not in prose  # it is the website
    manuscript = f"/edit/main/book/{path.parent.name}/{path.stem}.md"
    assert (f"[Edit this page]({site.REPOSITORY}{manuscript})" in prose) == bool(number)
    assert not re.search(r"^# ", prose, re.M), "a second first heading"
    assert "<img" not in prose and "colab-badge" not in prose
    written = re.split(
        r"^## Exercises", text_of(json.loads(path.read_text(encoding="utf-8"))), flags=re.M
    )
    numbered = re.findall(r"^(?:\*\*|### )\d+\. ", written[1], re.M) if written[1:] else []
    assert prose.count("::: {.exercise}\n\n### ") == len(numbered)
    opened = depth = 0
    for line in prose.splitlines():
        if re.match(r":::+ *\{", line):
            depth, opened = depth + 1, opened + 1
        elif re.match(r":::+ *$", line):
            depth -= 1
        assert depth in (0, 1), "a card in a card"
    assert depth == 0
    assert prose.count('<details class="solution">') == prose.count("</details>\n")
    for cell in (c for c in nb["cells"] if c["cell_type"] == "code"):
        code = "".join(cell["source"])
        assert "Solution" not in code.split("\ndef ")[0]
        if re.search(r"^#\| label: fig-", code, re.M):
            assert "#| code-fold: true" in code


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_figure_with_a_caption_is_seen_before_its_code(path):
    "Without a label it stands below its code, which is not folded then."
    for cell in made(path)["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "code" and "#| fig-cap:" in text:
            assert "#| label: fig-" in text and "#| code-fold:" in text, text[:120]


def test_a_fenced_block_stays_whole():
    text = "## One\n\n```bash\n## no heading\n**1. no exercise.**\n```\n\n### Two\n"
    assert site.parts(text) == ["", text[: text.index("### Two")], "### Two\n"]


def test_a_diagram_becomes_part_of_the_page():
    path = ROOT / "nbs" / "medium" / "ch09_model.ipynb"
    nb = site.page(json.loads(path.read_text(encoding="utf-8")), path)
    prose = text_of(nb, ("markdown",))
    assert prose.count('<svg role="img" aria-label="') == 3 and "book/diagrams" not in prose


# home, and what is published


def test_home_says_what_was_printed_and_has_one_first_heading():
    home = (ROOT / "index.qmd").read_text(encoding="utf-8")
    assert len(re.findall(r"^# ", home, re.M)) == 1 and "pytest" not in home
    log = (
        (ROOT / "benchmarks" / "logs" / "tiny_printed.txt").read_text(encoding="utf-8").splitlines()
    )
    (printed,) = re.findall(r"tiny_printed.txt -->\n\n```\n(.+?)\n```", home, re.S)
    assert len(printed.splitlines()) > 5
    assert all(line in log for line in printed.splitlines())


def test_pandocs_title_block_leaves_the_home_page(tmp_path):
    body = "<main><section><h1>Learn</h1></section></main>"
    block = '<header id="title-block-header" class="x">\n<h1>gpt2edu</h1>\n</header>\n'
    for given in (block + body, body):
        (tmp_path / "index.html").write_text(given, encoding="utf-8")
        tool("after_render").one_heading(tmp_path)
        assert (tmp_path / "index.html").read_text(encoding="utf-8").strip() == body


def test_every_page_has_a_description_of_its_own():
    paths = [*ROOT.glob("*.qmd"), *ROOT.glob("book/**/*.qmd")]
    texts = [p.read_text(encoding="utf-8") for p in paths]
    found = [re.search(r'^description: "(.+)"$', text, re.M) for text in texts]
    assert len(found) > 8 and all(found) and len({f[1] for f in found}) == len(found)


def test_from_home_everything_is_two_clicks_away():
    def links(page, text):
        found = re.findall(r"\]\(((?!http)[^)#\s]+)|href=\"((?!http)[^\"#]+)\"", text)
        return {(page.parent / (a or b)).resolve() for a, b in found}

    home = ROOT / "index.qmd"
    one = links(home, home.read_text(encoding="utf-8"))
    pages = {p for p in one if p.suffix == ".qmd"}
    two = one.union(*(links(p, p.read_text(encoding="utf-8")) for p in pages))
    chapters = [p for p in NOTEBOOKS if p.parent.name != "exercises"]
    assert set(chapters) <= two
    for name in ("course", "commands", "glossary", "playground", "design", "api/index"):
        assert ROOT / "book" / f"{name}.qmd" in one
    course = (ROOT / "book" / "course.qmd").read_text(encoding="utf-8")
    for path in chapters:
        place = f"{path.parent.name}/{path.stem}"
        assert f"/blob/main/book/{place}.md)" in course
        colab = "colab.research.google.com/github/gpt2edu/gpt2edu/blob/main/nbs"
        assert f"{colab}/{place}.ipynb)" in course


def test_the_card_has_the_size_that_is_asked_for():
    head = (SITE / "card.png").read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n" and struct.unpack(">II", head[16:]) == (1200, 630)


def test_one_site_url_and_every_action_pinned():
    files = [ROOT / "_quarto.yml", *(ROOT / ".github" / "workflows").glob("*.yml")]
    texts = [p.read_text(encoding="utf-8") for p in files]
    assert sum(text.count("gpt2edu.github.io") for text in texts) == 1
    actions = re.findall(r"uses: (\S+)(.*)", "\n".join(texts))
    assert len(actions) > 10
    for action, comment in actions:
        assert re.search(r"@[0-9a-f]{40}$", action) and re.match(r" # v[\d.]+$", comment), action


PAGE = '<html><head><meta name="description" content="x">{head}</head><body>{body}</body></html>'


HEAVY = random.Random(0).randbytes(2_000_000).hex()  # cannot be compressed to less than half


@pytest.fixture
def rendered(tmp_path):
    "A whole site of two pages, to be broken; it lies below /x/y/ on its host."
    for name, to in (("index", ""), ("404", "/x/y/")):
        body = f'<h1 id="top">{name}</h1><a href="{to}index.html#top">home</a>'
        body += f'<img src="{to}a.svg" alt="a">'
        (tmp_path / f"{name}.html").write_text(PAGE.format(head="", body=body), encoding="utf-8")
    (tmp_path / "a.svg").write_text("<svg/>", encoding="utf-8")
    (tmp_path / "sitemap.xml").write_text(
        "<loc>https://example.org/x/y/index.html</loc>", encoding="utf-8"
    )
    for name in ("robots.txt", "search.json"):
        (tmp_path / name).write_text("", encoding="utf-8")
    assert not list(check_render.findings(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    "head,body,message",
    [
        ("", "", "index.html: has 0 first headings, expected 1"),
        ("", "<h1>a</h1><h1>b</h1>", "index.html: has 2 first headings"),
        (
            "",
            '<h1>a</h1><a href="nothing.html">x</a>',
            "index.html: links to nothing: nothing",
        ),
        (
            "",
            '<h1>a</h1><a href="404.html#no">x</a>',
            "index.html: links to no anchor: 404",
        ),
        (
            "",
            '<h1>a</h1><a href="https://github.dev/x/y/blob/main/nbs/a.ipynb">x</a>',
            "index.html: offers to edit a notebook",
        ),
        ("", '<h1>a</h1><img src="a.svg">', "index.html: has an image without words: a.svg"),
        (
            "",
            '<h1>a</h1><script src="b.js"></script>',
            "index.html: loads a file that is not",
        ),
        (
            '<link rel="stylesheet" href="https://example.org/a.css">',
            "<h1>a</h1>",
            "index.html: loads from another host: https://example.org/a.css",
        ),
        (
            '<meta http-equiv="refresh" content="0;URL=\'book/index.html\'">',
            "<h1>a</h1>",
            "index.html: sends the reader to another page",
        ),
        (
            '<meta property="og:image" content="https://example.org/x/y/card.png">',
            "<h1>a</h1>",
            "index.html: shows a picture that is not there when it is shared: https",
        ),
        (
            '<meta property="og:image" content="https://example.org/x/y/a.svg">',
            "<h1>a</h1>",
            "index.html: shows a picture when it is shared that most places do not: https",
        ),
        (
            '<meta property="og:title" content="a"><meta property="og:description" content="">',
            "<h1>a</h1>",
            "index.html: shows no title or no description when it is shared",
        ),
        (f"<!--{HEAVY}-->", "<h1>a</h1>", "index.html: weighs 2,"),
    ],
)
def test_a_broken_render_is_found(rendered, head, body, message):
    (rendered / "index.html").write_text(PAGE.format(head=head, body=body), encoding="utf-8")
    assert [line for line in check_render.findings(rendered) if line.startswith(message)]


def test_a_page_outside_the_sitemap_or_without_description_is_found(rendered):
    (rendered / "new.html").write_text("<h1>new</h1>", encoding="utf-8")
    (rendered / "robots.txt").unlink()
    found = list(check_render.findings(rendered))
    assert "new.html: is not in the sitemap" in found and "new.html: has no description" in found
    assert "robots.txt: is not there" in found
