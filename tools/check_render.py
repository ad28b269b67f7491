"""Check the rendered website: what a reader's browser would ask for, and what it would find.

Why: the render with Quarto is looked at in one place only, the workflow that publishes it. This
says in one line each what is wrong there: a page without a title of its own or a description, two
first headings, nothing to show where its address is shared, a file that another host serves, a
link or an anchor that leads nowhere, an image without words, a page heavier than 1.5 MB, a page
that the sitemap does not know.

python tools/check_render.py _site    one line per finding; exit code 1 if there is any

Only the standard library is used: the machine that renders has Python and nothing else.
"""

import functools
import gzip
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

WHOLE = "print.html"  # the whole course on one page, heavier than a page may be
HEAVY = 1_500_000  # bytes of a page with all that it loads, as a server sends them
TEXT = {".html", ".css", ".js", ".svg", ".json"}  # a server compresses these
LOADS = {"script": "src", "img": "src", "link": "href", "source": "src", "iframe": "src"}
SHARED = {"og:title", "og:description", "twitter:title", "twitter:description"}
NOT_LOADED = {"canonical", "prev", "next", "alternate", "search"}  # what a <link> only mentions


class Page(HTMLParser):
    "What a page links to, loads and says of itself."

    def __init__(self, text: str):
        super().__init__()
        self.links, self.loads, self.ids, self.silent = [], [], set(), []
        self.card = ""  # the address of the picture that a shared link shows
        self.shared = []  # the sentences that it shows
        self.h1, self.description, self.redirect, self.noindex = 0, "", False, False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        a = {k: v or "" for k, v in attrs}
        self.ids.add(a.get("id"))
        self.h1 += tag == "h1"
        if tag == "a" and "href" in a:
            self.links.append(a["href"])
        if LOADS.get(tag) in a and not NOT_LOADED & set(a.get("rel", "").split()):
            self.loads.append(a[LOADS[tag]])
        if tag == "img" and not a.get("alt") and a.get("role") != "presentation":
            self.silent.append(a.get("src", "")[:60])
        if tag == "meta" and a.get("name") == "description":
            self.description = a.get("content", "")
        self.noindex |= tag == "meta" and "noindex" in a.get("content", "")
        if tag == "meta" and a.get("property") == "og:image":
            self.card = a.get("content", "")
        if tag == "meta" and a.get("property", a.get("name")) in SHARED:
            self.shared.append(a.get("content", ""))
        self.redirect |= tag == "meta" and a.get("http-equiv", "").lower() == "refresh"


def home(site: Path, sitemap: str) -> str:
    "The path below which the site lies on its host, such as /gpt2edu/: 404.html begins links so."
    for place in re.findall(r"<loc>([^<]+)</loc>", sitemap):
        path = urlsplit(place).path
        for at in (i for i, letter in enumerate(path) if letter == "/"):
            if (site / path[at + 1 :]).is_file():
                return path[: at + 1]
    return "/"


def target(site: Path, page: Path, link: str, root: str) -> Path:
    "The file that a link of the site leads to."
    path = unquote(urlsplit(link).path)
    if not path:
        return page
    to = site / path.removeprefix(root).lstrip("/") if path.startswith("/") else page.parent / path
    to = to.resolve()
    return to / "index.html" if to.is_dir() else to


@functools.cache
def sent(file: Path) -> int:
    "The bytes that a server sends for a file."
    content = file.read_bytes()
    return len(gzip.compress(content, 6)) if file.suffix in TEXT else len(content)


def of_text(page: Page):
    "What is wrong with a page by itself."
    if page.redirect:
        yield "sends the reader to another page"
    if page.h1 != 1:
        yield f"has {page.h1} first headings, expected 1"
    if not page.description:
        yield "has no description"
    if not all(page.shared):
        yield "shows no title or no description when it is shared"
    if page.card.endswith(".svg"):
        yield f"shows a picture when it is shared that most places do not: {page.card}"
    yield from (f"has an image without words: {src}" for src in page.silent)


def of_loads(site: Path, path: Path, page: Page, root: str):
    "What is wrong with what a page loads."
    weight = sent(path)
    for link in sorted(set(page.loads) - {""}):
        if urlsplit(link).netloc:
            yield f"loads from another host: {link}"
        elif urlsplit(link).scheme != "data":
            file = target(site, path, link, root)
            if file.exists():
                weight += sent(file)
            else:
                yield f"loads a file that is not there: {link}"
    if page.card and not target(site, path, urlsplit(page.card).path, root).exists():
        yield f"shows a picture that is not there when it is shared: {page.card}"
    if weight > HEAVY and path.name != WHOLE:
        yield f"weighs {weight:,} bytes, at most {HEAVY:,}"


def of_links(site: Path, path: Path, page: Page, root: str, pages: dict[Path, Page]):
    "What is wrong with where a page leads."
    for link in page.links:
        parts = urlsplit(link)
        if parts.netloc == "github.dev":
            yield f"offers to edit a notebook, which is made from its manuscript: {link}"
        if parts.scheme or parts.netloc:
            continue
        to = target(site, path, link, root)
        if not to.exists():
            yield f"links to nothing: {link}"
        elif parts.fragment and to in pages and unquote(parts.fragment) not in pages[to].ids:
            yield f"links to no anchor: {link}"


def findings(site: Path):
    sent.cache_clear()
    site = site.resolve()
    files = [p for p in sorted(site.rglob("*.html")) if "site_libs" not in p.parts]
    pages = {p: Page(p.read_text(encoding="utf-8")) for p in files}
    sitemap = site / "sitemap.xml"
    known = sitemap.read_text(encoding="utf-8") if sitemap.exists() else ""
    root = home(site, known)
    for name in ("index.html", "404.html", "robots.txt", "sitemap.xml", "search.json"):
        if not (site / name).exists():
            yield f"{name}: is not there"
    for path, page in pages.items():
        name = path.relative_to(site).as_posix()
        for found in (
            *of_text(page),
            *of_loads(site, path, page, root),
            *of_links(site, path, page, root, pages),
        ):
            yield f"{name}: {found}"
        if name not in known and name != "404.html" and not page.noindex:
            yield f"{name}: is not in the sitemap"


def main():
    site = Path(sys.argv[1] if len(sys.argv) > 1 else "_site")
    if not site.is_dir():
        sys.exit(f"{site}: no such folder; render the site first (quarto render)")
    found = list(findings(site))
    print("\n".join(found) or f"{site}: every page is whole")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
