"""The text: no phrase that sounds translated, and no figure without a source."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted((ROOT / "book").rglob("*.md")) + sorted((ROOT / "book").glob("*.qmd"))
PAGES += [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "AGENTS.md")]
NAMES = [p.relative_to(ROOT).as_posix() for p in PAGES]
CHAPTERS = [name for name in NAMES if re.match(r"book/\w+/ch\d", name)]

# Defect: two readers found pages that sound translated; these expressions came back most often.
PHRASES = {  # and what to write in its place
    "before anything is spent": "before you pay for anything",
    "is no": "is not a",
    "a number that is none": "NaN",
    "so many": "this many, or the number itself",
    "whoever": "the person or the program by name",
    "gone on with": "resumed",
    "goes on with": "continues, resumes",
    "stands in": "is in",
    "is told": "gets, knows",
    "keeps the books": "records",
    "calls in vain": "waits for",
    "until their patience": "until the timeout",
    "what was there": "the old content by name",
    "all behind it": "everything after it",
    "does not suffice": "is not enough",
}
# ordinary English: "there is no run yet", "is no longer", "is no faster than"
ORDINARY = r"(?<!there )is no (?!longer|more |less |better|worse|faster|slower|larger|smaller)"


def pattern(phrase):
    if phrase == "is no":
        return re.compile(ORDINARY, re.I)
    return re.compile(r"\b" + r"\s+".join(phrase.split()) + r"\b", re.I)


def found_phrases(text):
    for phrase, better in PHRASES.items():
        for m in pattern(phrase).finditer(text):
            line = text.count("\n", 0, m.start()) + 1
            yield f"line {line}: {m[0]!r}; write {better!r}"


@pytest.mark.parametrize("name", NAMES)
def test_no_page_has_a_phrase_that_sounds_translated(name):
    "In prose, comments, docstrings and messages alike."
    found = list(found_phrases((ROOT / name).read_text(encoding="utf-8")))
    assert not found, "\n".join([name, *found])


def test_the_phrases_are_found_and_ordinary_english_is_not():
    for phrase in PHRASES:
        assert list(found_phrases(f"Here {phrase} it stays.")), phrase
    assert list(found_phrases("A line that\nstands\nin a file."))
    for text in (
        "There is no run yet.", "It is no longer true.", "bf16 is no faster here.",
        "He understands it.", "It stands for a word.", "the two are told apart",
    ):  # fmt: skip
        assert not list(found_phrases(text)), text


# Figures: what something measured or somebody reported, that is, a number with one of these
# units, or with decimals. `v2.13.0` and `10-20` are none.
UNIT = r"%|per cent|×|times|nats|bits|ms\b|s\b|seconds?\b|minutes?\b|hours?\b"
UNIT += r"|[kMGT]i?B\b|(?:mega|giga)bytes?\b|tokens/s|[MGT]?FLOP"
FIGURE = re.compile(rf"(?<![\w.,$-])(\$?)(\d[\d,]*(?:\.\d+)?)(?![\d.]*\d|[\w-])(?:\s?({UNIT}))?")
NUMBER = re.compile(r"\d[\d,_]*(?:\.\d+)?(?:e[+-]?\d+)?")


def paragraphs(text):
    "Give prose: line number and text of each paragraph or table row, without code and headers."
    text = re.sub(r"^---\n.*?\n---\n", lambda m: "\n" * m[0].count("\n"), text, flags=re.S)
    blank = lambda m: "\n" * m[0].count("\n")  # noqa: E731
    text = re.sub(r"^(```+).*?^\1\s*$", blank, text, flags=re.S | re.M)
    text = re.sub(r"^::: \{\.callout-note appearance.*?^:::$", blank, text, flags=re.S | re.M)
    line = 1
    for block in re.split(r"(\n(?:[ \t]*\n)+|\n(?=\|))", text):
        if block.strip():
            yield line, block
        line += block.count("\n")


SCALES = {
    "%": (1, 100),
    "per": (1, 100),
    "ms": (1, 1e3),
    "times": (1,),
    "s": (1, 1e-3),
    "h": (1, 1 / 60, 1 / 3600),
}
SCALES |= {"m": (1, 1 / 60), "k": (1, 1e-3), "M": (1, 1e-6), "G": (1, 1e-9), "T": (1, 1e-12)}


def figures(paragraph):
    "Give the numbers with a unit or a dollar sign: (text, number, decimals, unit)."
    plain = re.sub(r"`[^`]*`|\]\([^)]*\)|\$[^$\n]*[\\=^_][^$\n]*\$", "", paragraph)
    for m in FIGURE.finditer(plain):
        number = m[2].rstrip(",").replace(",", "")
        if m[1] or m[3] or "." in number:
            yield m[0].strip(), float(number), len(number.partition(".")[2]), m[3] or ""


def numbers_of_cells(name):
    "All numbers in the code cells and outputs of a chapter's notebook."
    path = ROOT / name.replace("book/", "nbs/", 1).replace(".md", ".ipynb")
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    parts = []
    for cell in cells:
        if cell["cell_type"] == "code":
            parts += cell["source"]
            for out in cell["outputs"]:
                parts += out.get("text", []) + out.get("data", {}).get("text/plain", [])
    return {float(n.replace(",", "").replace("_", "")) for n in NUMBER.findall("".join(parts))}


def is_known(number, decimals, unit, known):
    "Whether a cell holds the number itself, or one that rounds to it in this unit."
    scales = SCALES.get(unit, SCALES.get(unit[:3], SCALES.get(unit[:1], (1,))))
    scaled = [k * scale for k in known for scale in scales]
    if number < 10 and not decimals:  # a single digit rounds from too much
        return any(abs(k - number) < 1e-9 for k in scaled)
    return any(round(k, decimals) == number for k in scaled)


def has_source(paragraph):
    "A citation, a link to a page or a chapter (not to the glossary), or a stored record."
    paragraph = re.sub(r"\]\([^)]*glossary[^)]*\)", "", paragraph)
    return bool(re.search(r"\[@|\]\(|@\w+\d{4}|https?://|benchmarks/", paragraph))


def unsourced(name):
    "Give the figures that no cell computes, no record holds, and no source is named for."
    known = numbers_of_cells(name) if name in CHAPTERS else set()
    open_, cited = [], set()
    before = False  # whether the paragraph before a table names the source of its rows
    for line, paragraph in paragraphs((ROOT / name).read_text(encoding="utf-8")):
        is_row = paragraph.startswith("|")
        sourced = has_source(paragraph) or (is_row and before)
        before = before if is_row else sourced
        for text, *figure in figures(paragraph):
            if sourced:
                cited.add(figure[0])
            elif not is_known(*figure, known):
                open_.append((line, text, figure[0]))
    for line, text, number in open_:
        if number not in cited:  # a figure that is repeated needs its source once on a page
            yield line, text


INPUT = "an example's input, which nothing measured"
ARITHMETIC = "arithmetic on the page, by hand"
ALLOWED = {  # page: {figure: why it needs no source}
    "ch02_prediction": {"0.04": INPUT},
    "ch03_corpus": {"1.5": INPUT, "1.2": INPUT},
    "ch12_generate": {"74 kB": ARITHMETIC},
    "ch12a_int8": {"0.25": "the spacing of bf16 there", "0.5": "the spacing of bf16 there"},
    "ch14_device": {
        "12,000 tokens/s": INPUT,
        "110.1": ARITHMETIC,
        "1.101 times": ARITHMETIC,
        "0.101": ARITHMETIC,
        "1.625 ×": ARITHMETIC,
        "13 bits": "the definition of TF32",
        "84 ms": "`python -m benchmarks run --only freed-memory`, which the sentence names",
    },
    "ch14b_selftest": {"512 ×": INPUT, "40 times": ARITHMETIC},
    "ch18_hellaswag": {"19 times": "95 % of a normal distribution, in words"},
}


@pytest.mark.parametrize("name", CHAPTERS)
def test_every_figure_has_a_cell_a_record_or_a_source(name):
    """A number with a unit or with decimals is on the page's cells, or its paragraph cites it.

    What it cannot see: a figure that happens to be another number of the page, and figures in
    words. Of figures without a citation, changed by 15 to 60 per cent, it finds six in ten.
    The tables of is-my-loss-right.qmd are compared with the logs by test_loss_page.py.
    """
    allowed = ALLOWED.get(Path(name).stem, {})
    found = [f"line {line}: {text}" for line, text in unsourced(name) if text not in allowed]
    assert not found, "\n".join([name, *found])


def test_a_figure_without_a_source_is_found():
    def check(paragraph, *known):
        found = [f for f in figures(paragraph) if not is_known(*f[1:], set(known))]
        return [] if has_source(paragraph) else [f[0] for f in found]

    assert check("It took 84 ms, a gain of 9.7 %.") == ["84 ms", "9.7 %"]
    assert check("It took 84 ms, a gain of 9.7 %.", 0.0841, 0.0968) == []
    assert check("The price was $672 [@llmc].") == []
    assert check("The [MFU](../../book/glossary.qmd#mfu) is 41 %.") == ["41 %"]
    assert check("Take `--lr 0.5`, version 2.13.0, of 8 GPUs.") == []
    rows = "Intro.\n\n```python\nx = 1.5\n```\n\n| a |\n|---|\n| 2.5 GB |\n"
    assert [p.strip() for _, p in paragraphs(rows)] == ["Intro.", "| a |", "|---|", "| 2.5 GB |"]
