"""Draw the course's diagrams: book/diagrams/*.svg, the map in book/design.qmd, the curve at home.

A drawing is at most 460 units wide, so that its letters can be read on a phone. Its colours are
variables: alone, as Jupyter shows it, it follows the system's light or dark and has a ground of
its own; inside a page of the website it takes the page's colours (book/site/theme.css).

python tools/diagrams.py            write them
python tools/diagrams.py --check    change nothing; exit code 1 if one is out of step
"""

import html
import json
import re
import sys
from pathlib import Path

import lists

ROOT = Path(__file__).resolve().parent.parent
LOG = ROOT / "benchmarks" / "logs" / "tiny_avx512_seed1337.jsonl"
WIDTH = 460

LIGHT = {
    "ink": "#1d2129",
    "muted": "#57606a",
    "line": "#57606a",
    "box": "#f5f7f9",
    "mark": "#0b5fa5",
    "warm": "#8a4b00",
    "ground": "#ffffff",
}
DARK = {
    "ink": "#dfe3e8",
    "muted": "#9ea8b4",
    "line": "#9ea8b4",
    "box": "#1c2027",
    "mark": "#79b8f2",
    "warm": "#f0b472",
    "ground": "#14171c",
}
FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif'
MONO = 'ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace'


def colours(values: dict) -> str:
    return "".join(f"--d-{k}:{v};" for k, v in values.items())


STYLE = (
    f".drawn{{{colours(LIGHT)}font:14px {FONT}}}"
    f"@media (prefers-color-scheme:dark){{.drawn{{{colours(DARK)}}}}}"
    ".drawn text{fill:var(--d-ink)}.drawn .m{fill:var(--d-muted)}"
    ".drawn .k{fill:var(--d-mark)}.drawn .w{fill:var(--d-warm)}"
    f".drawn .c{{font:13px {MONO}}}.drawn .b{{font-weight:600}}"
    ".drawn rect{fill:var(--d-box);stroke:var(--d-line)}"
    ".drawn .ground{fill:var(--d-ground);stroke:none}"
    ".drawn .mark{stroke:var(--d-mark);stroke-width:2}"
    ".drawn .warm{stroke:var(--d-warm);stroke-width:2}"
    ".drawn path{fill:none;stroke:var(--d-line);stroke-width:1.5}"
    ".drawn .kp{stroke:var(--d-mark);stroke-width:3}.drawn .wp{stroke:var(--d-warm);stroke-width:2}"
    ".drawn .dash{stroke-dasharray:5 4}.drawn .tip{fill:var(--d-line);stroke:none}"
    ".drawn .wp.tip{fill:var(--d-warm);stroke:none}.drawn .kp.tip{fill:var(--d-mark);stroke:none}"
)


class Drawing:
    "Shapes of one drawing, in the order in which they are painted."

    def __init__(self, height: int, style: str = ""):
        self.height, self.style, self.shapes = height, style, []

    def text(self, x, y, words, kind="", anchor="middle"):
        where = f'x="{x:g}" y="{y:g}" text-anchor="{anchor}" class="{kind}"'
        self.shapes.append(f"<text {where}>{html.escape(str(words))}</text>")

    def box(self, x, y, w, h, words="", below="", kind="", font="b"):
        "A box with a line of text, and a second one below it."
        size = f'x="{x:g}" y="{y:g}" width="{w:g}" height="{h:g}" rx="5"'
        self.shapes.append(f'<rect {size} class="{kind}"/>')
        middle = y + h / 2 + 5
        if words:
            self.text(x + w / 2, middle - (9 if below else 0), words, font)
        if below:
            self.text(x + w / 2, middle + 9, below, "m c")

    def path(self, d, kind=""):
        self.shapes.append(f'<path d="{d}" class="{kind}"/>')

    def plus(self, x, y, words="+", size=28):
        "The sign of an addition, in a circle."
        place = f'x="{x - size / 2:g}" y="{y - size / 2:g}" width="{size}" height="{size}"'
        self.shapes.append(f'<rect {place} rx="{size / 2:g}" class="mark"/>')
        self.text(x, y + 5, words, "b")

    def arrow(self, x1, y1, x2, y2, kind=""):
        "A straight arrow, upright or level."
        self.path(f"M{x1:g} {y1:g}L{x2:g} {y2:g}", kind)
        self.tip(x2, y2, (x2 > x1) - (x2 < x1), (y2 > y1) - (y2 < y1), kind)

    def tip(self, x, y, dx, dy, kind=""):
        back, side = 8, 4.5
        a = (x - dx * back - dy * side, y - dy * back - dx * side)
        b = (x - dx * back + dy * side, y - dy * back + dx * side)
        self.path(f"M{x:g} {y:g}L{a[0]:g} {a[1]:g}L{b[0]:g} {b[1]:g}Z", f"tip {kind}")

    def svg(self) -> str:
        size = f'viewBox="0 0 {WIDTH} {self.height}" width="{WIDTH}" height="{self.height}"'
        head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} class="drawn">'
        ground = f'<rect width="{WIDTH}" height="{self.height}" class="ground"/>'
        return "\n".join(
            [head, f"<style>{STYLE}{self.style}</style>", ground, *self.shapes, "</svg>\n"]
        )


# the diagrams


def batch() -> Drawing:
    "Text becomes tokens, tokens a shard, a shard a batch; the ids are those of the stored model."
    from gpt2edu.text.tokenizer import get_tokenizer

    folder = ROOT / "gpt2edu" / "stored" / "tiny"
    tokenizer = get_tokenizer(folder / "tokenizer.json")
    text = "One day, Mia and Tom were in the"
    ids = tokenizer.encode(text)
    pieces = [tokenizer.decode([i]) for i in ids]
    d = Drawing(470)
    d.text(20, 28, "text", "m", "start")
    d.box(20, 38, 420, 34, text, font="c")
    d.arrow(230, 72, 230, 104)
    d.text(242, 93, "tokenizer, chapter 4", "k", "start")
    d.text(20, 124, f"{len(ids)} tokens and their ids", "m", "start")
    width = 420 / len(ids)
    for i, (piece, token) in enumerate(zip(pieces, ids, strict=True)):
        d.box(20 + i * width, 134, width, 50)
        d.text(20 + (i + 0.5) * width, 155, piece.strip(), "c" if len(piece) < 6 else "c s")
        d.text(20 + (i + 0.5) * width, 174, token, "m c")
    d.arrow(230, 184, 230, 216)
    d.text(242, 205, "end to end, chapter 5", "k", "start")
    d.text(20, 236, "a shard: one long row of uint16", "m", "start")
    for i in range(28):
        d.box(20 + i * 15, 246, 15, 24)
    d.arrow(230, 270, 230, 302)
    d.text(242, 291, "loader, chapter 6", "k", "start")
    d.text(20, 322, "a batch: B rows of T ids, and the same rows one id later", "m", "start")
    for x, name in ((20, "inputs x"), (250, "targets y")):
        for row in range(4):
            for column in range(8):
                marked = "mark" if row == 1 and column == (4 if x > 100 else 5) else ""
                d.box(x + column * 23.75, 334 + row * 22, 23.75, 22, kind=marked)
        d.text(x + 95, 446, f"{name}: (B, T)", "b")
    d.style = ".drawn .s{font-size:11px}"
    return d


def attention() -> Drawing:
    "The steps of self-attention, each with the shape of its result."
    d = Drawing(640)
    d.box(130, 14, 200, 44, "x, normalised", "(B, T, C)", "mark")
    d.arrow(230, 58, 230, 84)
    d.box(110, 86, 240, 30, "c_attn: one matrix product")
    for x, name in ((10, "q"), (162, "k"), (314, "v")):
        d.path(f"M230 116V128H{x + 68}V136")
        d.tip(x + 68, 142, 0, 1)
        d.box(x, 144, 136, 44, name, "(B, nh, T, hs)", "mark")
    d.text(250, 220, "hs = C / nh", "m", "start")
    d.path("M78 188V228H150V240M230 188V240")
    d.tip(150, 244, 0, 1)
    d.tip(230, 244, 0, 1)
    d.box(90, 246, 210, 44, "q kᵀ / √hs", "(B, nh, T, T)")
    d.arrow(195, 290, 195, 316)
    d.box(90, 318, 210, 44, "hide the future", "(B, nh, T, T)")
    d.arrow(195, 362, 195, 388)
    d.box(90, 390, 210, 44, "softmax: rows sum to 1", "(B, nh, T, T)")
    d.arrow(195, 434, 195, 460)
    d.path("M382 188V484H306")
    d.tip(300, 484, -1, 0)
    d.box(90, 462, 210, 44, "weights × v", "(B, nh, T, hs)")
    d.arrow(195, 506, 195, 532)
    d.box(75, 534, 240, 30, "heads side by side, c_proj")
    d.arrow(195, 564, 195, 588)
    d.box(90, 590, 210, 40, "added to the stream", "(B, T, C)", "mark")
    return d


def block() -> Drawing:
    "One block: two branches, each of which reads a normalised copy and adds its result."
    d = Drawing(470)
    d.text(120, 24, "x  (B, T, C)", "b")
    d.path("M120 32V440", "kp")
    d.tip(120, 446, 0, 1, "kp")
    for y, norm, part, what in (
        (60, "ln_1", "attn", "every token looks back"),
        (250, "ln_2", "mlp", "C → 4C → GELU → C"),
    ):
        d.path(f"M120 {y}H226")
        d.tip(232, y, 1, 0)
        d.box(234, y - 18, 150, 36, norm)
        d.arrow(309, y + 18, 309, y + 48)
        d.box(234, y + 50, 150, 48, part)
        d.text(309, y + 117, what, "m")
        d.path(f"M384 {y + 74}H420V{y + 138}H142")
        d.tip(136, y + 138, -1, 0)
        d.shapes.append(
            f'<rect x="106" y="{y + 124}" width="28" height="28" rx="14" class="mark"/>'
        )
        d.text(120, y + 143, "+", "b")
    d.text(106, 150, "the stream", "k", "end")
    d.text(106, 168, "passes by", "k", "end")
    d.text(120, 464, "x  (B, T, C)", "b")
    return d


def stream() -> Drawing:
    "The residual stream: every block reads it and adds to it."
    d = Drawing(520)
    d.box(40, 450, 180, 50, "wte[ids] + wpe", "(B, T, C)")
    d.arrow(130, 450, 130, 100, "kp")
    for i, name in enumerate(("block 0", "block 1", "…", "block n_layer − 1")):
        y = 395 - i * 85
        if name == "…":
            d.text(330, y + 4, "…", "b")
            continue
        d.path(f"M130 {y + 16}H238")
        d.tip(244, y + 16, 1, 0)
        d.text(187, y + 33, "reads", "m")
        d.box(246, y - 26, 180, 52, name, "attention, MLP")
        d.path(f"M246 {y - 14}H152", "wp")
        d.tip(146, y - 14, -1, 0, "wp")
        d.text(192, y - 20, "adds", "w")
        d.plus(130, y - 14, size=24)
    d.box(40, 56, 180, 40, "ln_f, then lm_head")
    d.arrow(130, 56, 130, 34)
    d.text(130, 24, "logits (B, T, V)", "b")
    d.text(112, 290, "(B, T, C)", "m c", "end")
    d.text(246, 72, "lm_head is wte again:", "m", "start")
    d.text(246, 90, "one matrix, tied", "m", "start")
    return d


def backward() -> Drawing:
    "The gradient on its way back through half a block."
    d = Drawing(400)
    d.text(110, 22, "forward", "k")
    d.text(340, 22, "backward", "w")
    for x, kind in ((110, "kp"), (340, "wp")):
        low, high = (350, 50)
        d.arrow(x, *((low, x, high) if kind == "kp" else (high, x, low)), kind)
    d.text(110, 370, "x", "b")
    d.text(340, 370, "∂loss/∂x: both parts, added", "b")
    d.text(340, 44, "∂loss/∂out", "b")
    d.text(110, 44, "out = x + f(ln(x))", "b")
    for x, kind, words in (
        (110, "", ("+", "f", "ln")),
        (340, "wp", ("", "fᵀ", "lnᵀ")),
    ):
        d.path(f"M{x} 310H{x + 50}V110H{x + 12}", kind)
        if kind:
            d.tip(x + 2, 310, -1, 0, kind)
        else:
            d.tip(x + 14, 110, -1, 0)
        d.box(x + 14, 160, 72, 34, words[1], kind="warm" if kind else "")
        d.box(x + 14, 240, 72, 34, words[2], kind="warm" if kind else "")
        d.plus(x, 110, "" if kind else "+")
    d.text(322, 115, "copied to", "w", "end")
    d.text(322, 133, "both ways", "w", "end")
    d.text(322, 220, "straight down", "w", "end")
    d.text(322, 238, "the stream,", "w", "end")
    d.text(322, 256, "unchanged", "w", "end")
    d.text(230, 394, "fᵀ and lnᵀ: times the transposed matrix of derivatives", "m")
    return d


def step() -> Drawing:
    "What one step of training does, in order."
    d = Drawing(540)
    rows = (
        ("set the learning rate", "warm-up, then decay", ""),
        ("a micro-batch", "x, y: (B, T) ids", ""),
        ("forward: the loss", "mean over B · T tokens", ""),
        ("backward: gradients are added", "to those of earlier micro-batches", ""),
        ("mean gradient of all ranks", "its own on a single rank", "warm"),
        ("clip", "if its norm is above grad_clip", "warm"),
        ("optimiser step", "every weight moves once", "mark"),
        ("forget the gradients", "or they would be added again", ""),
    )
    for i, (words, below, kind) in enumerate(rows):
        y = 12 + i * 66
        d.box(50, y, 280, 48, words, below, kind)
        if i:
            d.arrow(190, y - 18, 190, y - 1)
    d.path("M330 234H376V102H338")
    d.tip(332, 102, -1, 0)
    d.text(384, 154, "once per", "m", "start")
    d.text(384, 172, "micro-", "m", "start")
    d.text(384, 190, "batch", "m", "start")
    d.path("M50 498H18V36H42")
    d.tip(48, 36, 1, 0)
    return d


def ddp() -> Drawing:
    "Two ranks: the same weights, different data, one mean gradient, the same weights again."
    d = Drawing(440)
    for x, rank in ((20, 0), (250, 1)):
        d.text(x + 95, 24, f"rank {rank}", "b")
        d.box(x, 36, 190, 46, "the same weights", "as on every rank", "mark")
        d.arrow(x + 95, 82, x + 95, 106)
        d.box(x, 108, 190, 46, f"batch {rank}", "rows of its own")
        d.arrow(x + 95, 154, x + 95, 178)
        d.box(x, 180, 190, 46, f"gradient {rank}", "of its own loss")
        d.arrow(x + 95, 226, x + 95, 256)
        d.arrow(x + 95, 296, x + 95, 326)
        d.box(x, 328, 190, 46, "the same step", "mean gradient")
        d.arrow(x + 95, 374, x + 95, 396)
        d.text(x + 95, 416, "the same weights", "k")
    d.box(20, 258, 420, 38, "all-reduce: (gradient 0 + gradient 1) / 2", kind="warm")
    return d


def rename() -> Drawing:
    "A checkpoint's name comes last: whenever the process dies, a whole one is there."
    d = Drawing(400)
    d.text(20, 24, "what the process does", "m", "start")
    d.text(440, 24, "if it is killed here, a resume finds", "m", "end")
    rows = (
        ("write into a hidden folder", ".tmp-step_…", "the last one"),
        ("flush it to the disk", "fsync, file by file", "the last one"),
        ("rename the folder", "step_…", "one of the two, whole"),
        ("flush the list of names", "fsync of the parent", "the new one *"),
        ("discard what is too old", "renamed, then deleted", "the new one"),
    )
    for i, (words, below, found) in enumerate(rows):
        y = 38 + i * 66
        kind = "mark" if words.startswith("rename") else ""
        d.box(20, y, 230, 48, words, below, kind)
        if i:
            d.arrow(135, y - 18, 135, y - 1)
        d.path(f"M250 {y + 24}H290", "wp dash")
        d.text(298, y + 29, found, "w", "start")
    d.text(20, 388, "* after a power cut it may still be the last one", "m", "start")
    return d


def library() -> Drawing:
    "Every module in its room, in the order in which text becomes a judged model."
    design = (ROOT / "book" / "design.qmd").read_text(encoding="utf-8")
    rooms = dict(re.findall(r"^\| `(\w+)` \| ([^|`]+) \|$", design, re.M))
    modules = [p for tier in lists.TIERS for p in lists.pages(tier) if p.module]
    d, y = Drawing(0), 10
    for i, (room, what) in enumerate(r for r in rooms.items() if r[0] != "exercises"):
        chips, x, row = [], 34, 0
        for p in (p for p in modules if p.module.partition(".")[0] == room and "." in p.module):
            name = p.module.split(".")[1]
            width = 8 * len(f"{name} {p.number}") + 16
            if x + width > 430:
                x, row = 34, row + 1
            chips.append((x, row, width, name, p))
            x += width + 8
        height = 46 + 38 * (row + 1)
        if i:
            d.arrow(230, y - 20, 230, y - 1)
        d.box(20, y, 420, height)
        d.text(34, y + 22, room, "b", "start")
        d.text(34, y + 40, what, "m", "start")
        for x, row, width, name, p in chips:
            page = p.notebook.removesuffix(".ipynb")
            d.shapes.append(f'<a href="../{page}.html">')
            d.box(x, y + 52 + 38 * row, width, 26, kind="mark")
            d.text(x + width / 2, y + 70 + 38 * row, f"{name} {p.number}", "k c")
            d.shapes.append("</a>")
        y += height + 12 + 20
    d.height = y - 20
    return d


def run() -> tuple[list[tuple[int, float]], dict]:
    "Steps and training losses of the stored run, and its last event."
    events = [json.loads(line) for line in LOG.read_text(encoding="utf-8").splitlines()]
    return [(e["step"], e["loss"]) for e in events if e["event"] == "train"], events[-1]


def curve() -> Drawing:
    "The training loss of the stored run as it falls; the figure at its end is of validation."
    points, done = run()
    last, top = points[-1][0], 6.5

    def at(step, loss):
        return 40 + step / last * 390, 20 + (1 - loss / top) * 260

    style = (
        ".drawn .run{stroke:var(--d-mark);stroke-width:3;stroke-dasharray:1;"
        "animation:fall 4s ease-out}"
        "@keyframes fall{from{stroke-dashoffset:1}to{stroke-dashoffset:0}}"
        "@media (prefers-reduced-motion:reduce){.drawn .run{animation:none}}"
    )
    d = Drawing(330, style)
    d.path("M40 20V280H440")
    for value in (0, 2, 4, 6):
        d.text(32, at(0, value)[1] + 5, value, "m c", "end")
    for words, value, kind, up in (
        ("bigram model", done["bigram"], "", -7),
        ("the floor", done["floor"], "wp", 18),
    ):
        y = at(0, value)[1]
        d.path(f"M40 {y:.1f}H440", f"{kind} dash")
        d.text(440, y + up, f"{words}, {value:.2f}", "w" if kind else "m", "end")
    line = "L".join("{:.1f} {:.1f}".format(*at(*p)) for p in points)
    d.shapes.append(f'<path d="M{line}" class="run" pathLength="1"/>')
    x, y = at(last, done["val_loss"])
    d.shapes.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="var(--d-mark)"/>')
    d.text(x, y - 12, f"{done['val_loss']:.2f}", "k b", "end")
    d.text(52, 30, "loss, nats per token", "m", "start")
    d.text(210, 304, f"{last} steps on two cores of a CPU", "m")
    return d


FILES = {
    "batch": batch,
    "attention": attention,
    "block": block,
    "stream": stream,
    "backward": backward,
    "step": step,
    "ddp": ddp,
    "rename": rename,
}


def inlined() -> dict[str, tuple[str, str, Drawing]]:
    "For each page with a drawing in its source: the mark around it, what it shows, the drawing."
    points, done = run()
    fall = f"from {points[0][1]:.1f} to {done['val_loss']:.2f} nats per token"
    loss = f"The loss of a run falls {fall}; the floor is at {done['floor']:.2f}."
    return {
        "book/design.qmd": ("library", "The rooms in order, with links to the modules.", library()),
        "index.qmd": ("curve", loss, curve()),
    }


def written() -> dict[Path, str]:
    "Each file as it should be."
    folder = ROOT / "book" / "diagrams"
    texts = {folder / f"{name}.svg": draw().svg() for name, draw in FILES.items()}
    for page, (name, label, drawing) in inlined().items():
        svg = drawing.svg().strip()
        role = "group" if "<a " in svg else "img"  # what has links in it is no image
        svg = svg.replace("<svg ", f'<svg role="{role}" aria-label="{label}" ', 1)
        new = f'\n```{{=html}}\n<figure class="diagram">{svg}</figure>\n```\n'
        marks = f"<!-- {name}: tools/diagrams.py -->", f"<!-- end of {name} -->"
        text = (ROOT / page).read_text(encoding="utf-8")
        texts[ROOT / page] = lists.between(text, *marks, new)
    return texts


def main():
    for path, text in written().items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            if "--check" in sys.argv:
                sys.exit(
                    f"{path.relative_to(ROOT)}: a drawing is out of step; python tools/diagrams.py"
                )
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
