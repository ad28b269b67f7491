"""Add to the rendered site what a reader takes along. Quarto runs this after a render.

python tools/after_render.py [_site]

It writes notebooks/<tier>/<name>.ipynb, the course as gpt2edu-course.zip, and print.html: all
chapters on one page, which the browser prints or saves as a PDF. It also takes the title block off
the home page, which has a first heading of its own. Only the standard library is used.
"""

import os
import re
import shutil
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TIERS = ("easy", "medium", "tough")
ALONG = ("README.md", "LICENSE", "constraints.txt")
EARLIEST = (1980, 1, 1, 0, 0, 0)  # the same bytes for the same course
WHOLE = "gpt2edu, the whole course"
NOT_SEARCHED = '<meta name="robots" content="noindex">'  # each chapter has a page of its own
PAGE_BREAKS = (
    "<style>.chapter { break-before: page; } #quarto-sidebar, nav, nav .breadcrumb"
    " { display: none !important; } @media screen"
    " { main.content { margin: auto; max-width: 60rem; padding: 1rem; } }</style>"
)


def number(path: Path) -> tuple[int, str]:
    found = re.match(r"ch0?(\d+)([a-z]?)_", path.stem)
    return int(found[1]), found[2]


def notebooks() -> list[Path]:
    "The chapters with their appendices, in the order in which they are read."
    found = [p for tier in TIERS for p in (ROOT / "nbs" / tier).glob("ch*.ipynb")]
    return sorted(found, key=number)


def take_along(site: Path):
    "Write the notebooks, one by one and as a zip."
    with zipfile.ZipFile(site / "gpt2edu-course.zip", "w", zipfile.ZIP_DEFLATED) as pack:
        for path in [*(ROOT / name for name in ALONG), *notebooks()]:
            name = str(path.relative_to(ROOT)).replace(os.sep, "/")
            about = zipfile.ZipInfo(f"gpt2edu/{name}", EARLIEST)
            about.compress_type = zipfile.ZIP_DEFLATED
            pack.writestr(about, path.read_bytes())
    for path in notebooks():
        copy = site / "notebooks" / path.relative_to(ROOT / "nbs")
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)


def moved(text: str, folder: str, name: str, names: set[str]) -> str:
    "Rewrite the addresses of a chapter for a page in the site's root that holds all chapters."
    text = re.sub(r'\b(id|for|aria-controls|aria-labelledby)="', rf'\1="{name}--', text)

    def address(found):
        key, quote, to = found.groups()
        if to.startswith("#"):
            return f"{key}={quote}#{name}--{to[1:]}{quote}"
        if not to or re.match(r"[a-z][a-z+.-]*:|/", to):
            return found[0]
        page = re.search(r"/?(ch\d+[a-z]?_\w+)\.html(?:#([\w-]+))?$", to)
        if page and page[1] in names:
            return f"{key}={quote}#{page[1]}{'--' + page[2] if page[2] else ''}{quote}"
        return f"{key}={quote}{os.path.normpath(f'{folder}/{to}')}{quote}"

    return re.sub(r"""\b(href|src)=(["'])(.*?)\2""", address, text)


def one_page(site: Path):
    "Write print.html out of the rendered chapters."
    pages = [site / p.relative_to(ROOT).with_suffix(".html") for p in notebooks()]
    names = {p.stem for p in pages}
    parts = []
    for page in pages:
        text = page.read_text(encoding="utf-8")
        main = re.search(r"(?s)<main\b[^>]*>(.*?)</main>", text)[1]
        main = re.sub(r"(?s)<script\b.*?</script>", "", main)
        main = re.sub(r"(</?h)([1-5])\b", lambda m: f"{m[1]}{int(m[2]) + 1}", main)
        folder = str(page.parent.relative_to(site)).replace(os.sep, "/")
        parts.append(f'<section class="chapter" id="{page.stem}">')
        parts.append(moved(main, folder, page.stem, names) + "</section>")
    head = re.search(r"(?s)^.*?</head>", pages[0].read_text(encoding="utf-8"))[0]
    folder = str(pages[0].parent.relative_to(site)).replace(os.sep, "/")
    head = re.sub(r"(?s)<title>.*?</title>", f"<title>{WHOLE}</title>", head)
    head = re.sub(r'(<meta name="description" content=")[^"]*', rf"\1{WHOLE}, to print", head)
    head = re.sub(r'<link rel="canonical"[^>]*>', "", head)
    head = moved(head, folder, "head", set()).replace(
        "</head>", f"{NOT_SEARCHED}{PAGE_BREAKS}</head>"
    )
    body = "\n".join([f"<h1>{WHOLE}</h1>", *parts])
    text = f'{head}<body class="fullcontent"><main class="content">{body}</main></body></html>\n'
    (site / "print.html").write_text(text, encoding="utf-8")


def one_heading(site: Path):
    "With title-block-style: none, Quarto leaves Pandoc's title block where the page has its own."
    home = site / "index.html"
    text = home.read_text(encoding="utf-8")
    block = r'(?s)<header id="title-block-header".*?</header>'
    home.write_text(re.sub(block, "", text), encoding="utf-8")


def own_words(text: str) -> str:
    "What a shared link shows: the page's own title and description. Of a notebook Quarto has none."
    for key, found in (
        ("title", re.search(r"<title>(.*?)</title>", text, re.S)),
        ("description", re.search(r'<meta name="description" content="([^"]*)"', text)),
    ):
        if found:
            tag = rf'(<meta (?:property|name)="(?:og|twitter):{key}" content=")[^"]*'
            text = re.sub(tag, lambda m, words=found[1]: m[1] + words.replace('"', "&quot;"), text)
    return text


def marked(text: str, place: str) -> str:
    "Mark where a page belongs in the bar at the top. Quarto marks the first entry on every page."

    def entry(found):
        to = os.path.normpath(f"{os.path.dirname(place)}/{found[1]}".lstrip("/"))
        if to == place:
            return f'<a class="nav-link active" href="{found[1]}" aria-current="page"'
        if to == "book/course.html" and place.startswith("nbs/"):
            return f'<a class="nav-link active" href="{found[1]}" aria-current="true"'
        return f'<a class="nav-link" href="{found[1]}"'

    links = r'<a class="nav-link(?: active)?" href="([^"]*)"(?: aria-current="\w+")?'
    return re.sub(links, entry, text)


def editable(text: str) -> str:
    "Let a notebook's page be edited where it is written: Quarto offers the notebook itself."
    notebook = r"https://github\.dev/([\w/-]+)/blob/main/nbs/([\w/]+)\.ipynb"
    return re.sub(notebook, r"https://github.com/\1/edit/main/book/\2.md", text)


def polish(site: Path):
    "Repair what Quarto writes into the head, the bar and the margin of each page."
    for page in site.rglob("*.html"):
        if "site_libs" not in page.parts:
            place = str(page.relative_to(site)).replace(os.sep, "/")
            text = page.read_text(encoding="utf-8")
            page.write_text(editable(marked(own_words(text), place)), encoding="utf-8")


def main():
    site = Path(
        sys.argv[1] if len(sys.argv) > 1 else os.environ.get("QUARTO_PROJECT_OUTPUT_DIR", "_site")
    )
    take_along(site)
    one_heading(site)
    polish(site)
    # `quarto preview` and `quarto render FILE` render some pages: then there is no whole course
    if os.environ.get("QUARTO_PROJECT_RENDER_ALL") or "QUARTO_PROJECT_OUTPUT_DIR" not in os.environ:
        one_page(site)


if __name__ == "__main__":
    main()
