"""The check of the site's sources finds each kind of fault, and finds none in the site as it is."""

import ast
import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
spec = importlib.util.spec_from_file_location("check_site", ROOT / "tools" / "check_site.py")
check_site = importlib.util.module_from_spec(spec)
spec.loader.exec_module(check_site)

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
