"""The check of the site's sources finds each kind of fault, and finds none in the site as it is."""

import ast
import importlib.util
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def tool(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


check_site, site = tool("check_site"), tool("site")

PAGE = ROOT / "nbs" / "easy" / "ch02_prediction.ipynb"


@pytest.mark.parametrize(
    "fault,message",
    [
        ("[x](../easy/ch99_nothing.ipynb)", "broken link ../easy/ch99_nothing.ipynb"),
        (
            "[x](../../book/glossary.qmd#no-such-term)",
            "no anchor #no-such-term in book/glossary.qmd",
        ),
        ("[x](#sec-nowhere)", "no anchor #sec-nowhere"),
        ("Somebody said so [@nobody1900nothing].", "nobody1900nothing"),
        ("See @fig-nowhere.", "@fig-nowhere"),
        ("## Again {#sec-loss}", "Duplicate cross-reference label"),
    ],
)
def test_each_kind_of_fault_is_found(fault, message):
    texts = check_site.pages()
    before = [*check_site.broken_links(texts), *check_site.panache(PAGE, texts[PAGE])]
    texts[PAGE] += f"\n{fault}\n"
    after = [*check_site.broken_links(texts), *check_site.panache(PAGE, texts[PAGE])]
    assert [line for line in after if message in line and line not in before]


def test_code_is_not_taken_for_prose():
    text = "Text.\n\n```{code-cell} ipython3\nx[0], y[nothing]  # [a](b.ipynb)\n```\n\n"
    text += "And `z[a](b)`.\n"
    assert not list(check_site.broken_links({PAGE: text}))
    assert not check_site.panache(PAGE, text)


def test_no_code_in_a_table_holds_a_bar():
    "Pandoc keeps a backslash before it, others split the cell; write <code> and &#124;."
    for page, text in check_site.pages().items():
        for row in re.findall(r"^\|.*", re.sub(r"(?ms)^```.*?^```$", "", text), re.M):
            assert not [code for code in re.findall("`[^`]+`", row) if "|" in code], (page, row)


def test_every_glossary_term_is_unique_and_in_order():
    text = (ROOT / "book" / "glossary.qmd").read_text(encoding="utf-8")
    terms = re.findall(r"^\[(.+?)\]\{#([\w-]+)\}$", text, re.M)
    key = [name.lower().replace("-", "").replace(" ", "") for name, _ in terms]
    assert key == sorted(key) and len(key) > 50
    assert len({anchor for _, anchor in terms}) == len(terms)
    letters = {name[0].upper(): anchor for name, anchor in reversed(terms)}
    first = " · ".join(f"[{letter}](#{letters[letter]})" for letter in sorted(letters))
    assert f"\n\n{first}\n\n" in text, "the line of letters leads to the first term of each"


def glossary():
    text = (ROOT / "book" / "glossary.qmd").read_text(encoding="utf-8")
    return {anchor: name for name, anchor in re.findall(r"^\[(.+?)\]\{#([\w-]+)\}$", text, re.M)}


def test_the_first_use_of_a_term_is_linked_and_nothing_but_prose():
    apart = (
        "## The loss\n\n**1. A loss.**\n\n```\nloss\n```\n\n| loss |\n\n> loss\n\n::: {.loss}\n\n"
        "`loss`, $loss$, [`x[0]` of the loss](#x), ![loss](a.svg), lossless, no-loss.\n"
    )
    prose = "The learning-rate rises; two losses of a GPT-2 in nats, no loss. An access token."
    cells = [site.markdown(apart), site.markdown(prose), site.markdown("A loss. One token.")]
    site.defined(cells)
    to = "(../../book/glossary.qmd#"
    assert site.source(cells[0]) == apart
    assert site.source(cells[1]) == (
        f"The [learning-rate]{to}learning-rate) rises; two [losses]{to}loss) of a GPT-2 in "
        f"[nats]{to}nat), no loss. An access token."
    )
    assert site.source(cells[2]) == f"A loss. One [token]{to}token)."


def test_a_term_that_the_manuscript_links_is_left_to_it():
    text = "The loss. A [loss](../../book/glossary.qmd#loss) is a number."
    cells = [site.markdown(text)]
    site.defined(cells)
    assert site.source(cells[0]) == text


def test_words_that_are_left_to_the_writer_are_in_the_glossary():
    assert site.EVERYDAY <= {name.lower() for name in glossary().values()}


@pytest.mark.parametrize(
    "path", sorted((ROOT / "nbs").glob("*/ch[0-9][0-9]_*.ipynb")), ids=lambda p: p.stem
)
def test_every_chapter_defines_its_terms(path):
    "Defect: chapters 1 and 27 linked no term, so none showed its definition."
    nb = site.page(json.loads(path.read_text(encoding="utf-8")), path)
    prose = [c for c in nb["cells"] if c["cell_type"] == "markdown"]
    text = "\n".join(site.source(c) for c in prose)
    linked = re.findall(r"\]\(../../book/glossary\.qmd#([\w-]+)\)", text)
    assert set(linked) <= glossary().keys() and len(set(linked)) >= 10
    site.defined(prose)
    assert "\n".join(site.source(c) for c in prose) == text, "a term was left without a link"


def test_the_reference_has_every_name_with_its_section():
    "Each exported name has an entry, linked to its section of a chapter or to its appendix."
    text = "".join(p.read_text(encoding="utf-8") for p in (ROOT / "book/api").glob("*.qmd"))
    entries = re.findall(r"(?m)^### `(\w+)` \{#([\w-]+)\}$", text)
    files = [p for p in (ROOT / "gpt2edu").rglob("*.py") if p.parent.name != "exercises"]
    names = []
    for file in files:
        found = re.search(r"(?s)^__all__ = (\[.*?\])", file.read_text(encoding="utf-8"), re.M)
        names += ast.literal_eval(found[1]) if found and file.name != "__init__.py" else []
    assert sorted(name for name, _ in entries) == sorted(names)
    assert len({anchor for _, anchor in entries}) == len(entries)
    built = re.findall(r"\[Built in (?:chapter|appendix) (\w+)\]\(\S+?ipynb(#sec-[\w-]+)?\)", text)
    assert len(built) == len(entries)
    assert not [number for number, anchor in built if number.isdigit() and not anchor]
