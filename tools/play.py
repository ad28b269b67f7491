"""Write what the website's playground shows: book/play/.

    gpt2edu_train --seed 1337 --save_every 50 --keep_last 30 --out_dir /tmp/play
    python tools/play.py /tmp/play/tiny COMMIT     # of the code that trained it

The page's program is book/play/gpt2edu.js and play.js. From a run of the preset `tiny` this writes
tiny.safetensors (the model, as `gpt2edu_export --web` does), tokenizer.json, play.json (stories
with the exact odds of every next token, the bigram counts, the run's curve and continuations, the
bands of "Is my loss right?"), gpt2.bpe (OpenAI's merges) and the figures that stand in where a
browser runs no JavaScript. About a minute on one core.
"""

import argparse
import html
import json
import math
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import regex
import torch

from gpt2edu.data.shards import open_shards
from gpt2edu.model.generate import complete, encode_prompt, next_token_probs
from gpt2edu.model.gpt import GPT
from gpt2edu.model.web import export_web
from gpt2edu.text import tokenizer as tokenizers
from gpt2edu.text.corpus import FULL, stories
from gpt2edu.text.stories import World, log_chance, tell
from gpt2edu.text.tokenizer import GPT2_PATTERN, Tokenizer
from gpt2edu.train import checkpoint
from gpt2edu.train.config import PRESETS, preset
from gpt2edu.train.runs import load_run

ROOT = Path(__file__).resolve().parent.parent
PLAY = ROOT / "book" / "play"
STEPS = (*range(0, 740, 50), 740)
PROMPTS = (
    "One day, Mia and Ben were",
    "One morning, Anna was in the barn with Leo. Anna had a ball. She gave the ball to",
    "There once was a girl",
)


# the exact odds of the next token


class Found(Exception):
    "The next token is known on this path of choices, or the path contradicts what was read."


class Prober:
    "Choose along `path` among what continues the tokens read so far, until the next one is known."

    def __init__(self, tokenizer: Tokenizer, before: str, read: list[bytes], path: list[int]):
        self.tokenizer = tokenizer
        self.before = before  # whole pieces
        self.read = read  # the tokens of the piece that was begun; may be all of it
        self.seen = before + b"".join(read).decode()
        self.path = path
        self.sizes = []  # of each choice
        self.logprob = 0.0
        self.text = ""

    def pick(self, values, weights, write):
        depth = len(self.sizes)
        rest = self.seen[len(self.text) :]
        fits = []
        for i, value in enumerate(values):
            said = write(value)
            if said.startswith(rest) or rest.startswith(said):
                fits.append(i)
        if not fits:
            raise Found(None)
        i = fits[self.path[depth] if depth < len(self.path) else 0]
        self.sizes.append(len(fits))
        self.logprob += log_chance(i, values, weights)
        self.text += write(values[i])
        self.look(ended=False)
        return values[i]

    def look(self, ended: bool):
        "Raise `Found` with the next token's id once the text decides it."
        if len(self.text) < len(self.seen) or (len(self.text) == len(self.seen) and not ended):
            return
        behind = self.text[len(self.before) :]
        pieces = regex.findall(GPT2_PATTERN, behind)
        whole = pieces if ended else pieces[:-1]  # the last one may go on
        n, encode = len(self.read), self.tokenizer.encode
        if not whole:
            if ended:
                raise Found(self.tokenizer.eot)
            return
        ids = encode(whole[0])
        if [self.tokenizer.decode_bytes([i]) for i in ids[:n]] != self.read:
            raise Found(None)
        if len(ids) > n:
            raise Found(ids[n])
        if len(whole) > 1:
            raise Found(encode(whole[1])[0])
        if ended:
            raise Found(self.tokenizer.eot)


def next_odds(tokenizer: Tokenizer, ids: list[int]) -> dict[int, float]:
    "Give the probability of every token that may follow the first tokens of a story."
    text = tokenizer.decode(ids)
    pieces = regex.findall(GPT2_PATTERN, text)
    last = tokenizer.encode(pieces[-1]) if pieces else []
    read = [tokenizer.decode_bytes([i]) for i in last]
    before = "".join(pieces[:-1])
    total, path = defaultdict(float), []
    while True:
        pen = Prober(tokenizer, before, read, path)
        try:
            tell(World(pen, FULL))
            pen.look(ended=True)
        except Found as e:
            if e.args[0] is not None:
                total[e.args[0]] += math.exp(pen.logprob)
        path = (path + [0] * len(pen.sizes))[: len(pen.sizes)]
        while path and path[-1] + 1 == pen.sizes[len(path) - 1]:
            path.pop()
        if not path:
            break
        path[-1] += 1
    whole = sum(total.values())
    return {i: p / whole for i, p in sorted(total.items(), key=lambda pair: -pair[1])}


def chosen(tokenizer: Tokenizer, n: int = 6) -> list[str]:
    "Choose stories that fit the context, none of them in the training text (another seed)."
    texts = (s.text for s in stories(60, seed=5))
    return [t for t in texts if 60 <= len(tokenizer.encode(t)) < 126][:n]


def with_odds(tokenizer: Tokenizer, text: str) -> dict:
    "Put the exact odds beside each position of a story: before its first token to after its last."
    ids = tokenizer.encode(text)
    odds = [next_odds(tokenizer, ids[:t]) for t in range(len(ids) + 1)]
    rounded = [[[i, float(f"{p:.4g}")] for i, p in at.items()] for at in odds]
    return {"text": text, "ids": [*ids, tokenizer.eot], "exact": rounded}


# the run: its bigram, its curve, what it wrote on the way


def pairs_of(run: Path, tokenizer: Tokenizer) -> list[list[int]]:
    "Count the pairs of neighbours in the training text: first, second, how often."
    config = json.loads((run / "config.json").read_text(encoding="utf-8"))
    (train,) = {p.parent for p in Path(config["data_dir"]).glob("stories-*/stories_train_*.bin")}
    ids = open_shards(train, "train")[:4_000_000].astype(np.int64)
    codes, counts = np.unique(ids[:-1] * tokenizer.n_vocab + ids[1:], return_counts=True)
    rows = zip(codes.tolist(), counts.tolist(), strict=True)
    return [[*divmod(code, tokenizer.n_vocab), n] for code, n in rows]


def at_step(run: Path, model: GPT, step: int) -> GPT:
    "Load the model of a step; step 0 is the one that the seed gives."
    config = json.loads((run / "config.json").read_text(encoding="utf-8"))
    fresh = GPT(model.config, torch.Generator().manual_seed(config["seed"]))
    path = run / "checkpoints" / f"step_{step:08}"
    if step:
        checkpoint.load_weights(fresh, checkpoint.load(path).model, path)
    return fresh


def continuations(run: Path, model: GPT, tokenizer: Tokenizer) -> list[dict]:
    "Continue the same prompts at each step, with the same seed."
    models = {step: at_step(run, model, step) for step in STEPS}

    def text(prompt, step):
        generator = torch.Generator().manual_seed(1)
        return complete(models[step], tokenizer, prompt, 60, generator=generator)[0]

    return [{"prompt": p, "texts": [text(p, step) for step in STEPS]} for p in PROMPTS]


def curve(events: list[dict], kind: str) -> list[list[float]]:
    return [[e["step"], round(e["loss"], 4)] for e in events if e["event"] == kind]


# the bands of "Is my loss right?"


def bands() -> dict:
    "Put the lowest and the highest loss of the six stored runs beside each step."
    found = {"train": defaultdict(list), "val": defaultdict(list)}
    for path in sorted((ROOT / "benchmarks" / "logs").glob("tiny_avx*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            e = json.loads(line)
            if e["event"] in found:
                found[e["event"]][e["step"]].append(e["loss"])
    return {
        kind: [[step, min(losses), max(losses)] for step, losses in by_step.items()]
        for kind, by_step in found.items()
    }


def first_losses() -> dict[str, dict[str, float]]:
    "Compute what each preset's first loss should be: ln V and a little (chapter 9)."
    out = {}
    for name in PRESETS:
        if preset(name).init_from:  # begins from weights that know something
            continue
        V, C = (896 if name in ("tiny", "small-cpu") else 50_304), preset(name).n_embd
        out[name] = {
            "ln_v": round(math.log(V), 3),
            "first": round(math.log(V) + 0.02**2 * C / 2, 2),
            "steps": preset(name).max_steps,
        }
    return out


def unigram(pairs: list[list[int]]) -> float:  # nats/token
    "Compute the loss of a guess that knows only which tokens are common."
    counts = defaultdict(int)
    for _, second, n in pairs:
        counts[second] += n
    p = np.array([*counts.values()]) / sum(counts.values())
    return float(-(p * np.log(p)).sum())


# what stands in where no JavaScript runs

MODEL, BIGRAM, EXACT, INK, SOFT = "#0063a0", "#b35900", "#00704f", "#222222", "#565d64"


class Drawing:
    "An SVG on a white ground, so that it can be read in a dark page too."

    def __init__(self, width: int, height: int):
        self.head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"'
        self.parts = [f'<rect width="{width}" height="{height}" rx="8" fill="#ffffff"/>']

    def text(self, x: float, y: float, text: str, size=13, fill=INK, anchor="start", mono=False):
        family = "ui-monospace, monospace" if mono else "system-ui, sans-serif"
        style = f'font-family="{family}" font-size="{size}" fill="{fill}" text-anchor="{anchor}"'
        self.parts.append(f'<text x="{x:g}" y="{y:g}" {style}>{html.escape(text)}</text>')

    def box(self, x: float, y: float, width: float, height: float, **style):
        style = " ".join(f'{k.replace("_", "-")}="{v}"' for k, v in style.items())
        size = f'width="{width:.1f}" height="{height:.1f}"'
        self.parts.append(f'<rect x="{x:.1f}" y="{y:.1f}" {size} {style}/>')

    def save(self, name: str):
        text = "\n".join([f"{self.head}>", *self.parts, "</svg>", ""])
        (PLAY / name).write_text(text, encoding="utf-8")


def shown(tokenizer: Tokenizer, i: int) -> str:
    "A token in the printable alphabet."
    end = i == tokenizer.eot
    return tokenizers.EOT if end else tokenizers.to_printable(tokenizer.decode_bytes([i]))


def draw_tokens(tokenizer: Tokenizer):
    d, x, y = Drawing(640, 120), 16, 20
    for piece in regex.findall(GPT2_PATTERN, "Once upon a time, Anna had two cherries."):
        for i in tokenizer.encode(piece):
            width = 10 + 8.5 * max(len(shown(tokenizer, i)), len(str(i)) * 0.8)
            if x + width > 620:
                x, y = 16, y + 48
            d.box(x, y, width, 38, fill="none", stroke=SOFT, rx=4)
            d.text(x + 5, y + 16, shown(tokenizer, i), mono=True)
            d.text(x + 5, y + 32, str(i), 10, SOFT)
            x += width
        x += 8
    d.save("tokenizer.svg")


def draw_bars(name: str, rows: list[tuple], kinds: list[tuple[str, str]]):
    "Bars for each token: a row for each kind."
    d, largest = (
        Drawing(640, 50 + len(rows) * (13 * len(kinds) + 10)),
        max(max(r[1:]) for r in rows),
    )
    for k, (kind, colour) in enumerate(kinds):
        d.box(150 + 150 * k, 14, 12, 12, fill=colour)
        d.text(168 + 150 * k, 25, kind)
    for r, (token, *probs) in enumerate(rows):
        y = 40 + r * (13 * len(kinds) + 10)
        d.text(140, y + 7 * len(kinds) + 4, token, anchor="end", mono=True)
        for k, p in enumerate(probs):
            d.box(150, y + 13 * k, 400 * p / largest, 11, fill=kinds[k][1])
            d.text(156 + 400 * p / largest, y + 13 * k + 10, f"{100 * p:.1f} %", 11, SOFT)
    d.save(name)


@torch.no_grad()
def draw_odds(model: GPT, tokenizer: Tokenizer, story: dict, pairs: list[list[int]]):
    "Draw the place of a story at which the model loses most."
    ids = torch.tensor([[tokenizer.eot, *story["ids"][:-1]]])
    probs = model(ids)[0][0, :, : tokenizer.n_vocab].softmax(1)  # (T, V)
    lost = [
        sum(p * math.log(p / max(probs[t, i].item(), 1e-9)) for i, p in odds)
        for t, odds in enumerate(story["exact"])
    ]
    t = int(np.argmax(lost))
    last = ids[0, t].item()
    after = {second: n for first, second, n in pairs if first == last}
    exact = dict(story["exact"][t])
    top = sorted(
        {*list(exact)[:4], *probs[t].topk(4).indices.tolist()},
        key=lambda i: (-exact.get(i, 0), -probs[t, i].item()),
    )
    rows = [
        (
            shown(tokenizer, i),
            probs[t, i].item(),
            after.get(i, 0) / sum(after.values()),
            exact.get(i, 0),
        )
        for i in top
    ]
    draw_bars("next.svg", rows, [("model", MODEL), ("bigram", BIGRAM), ("exact", EXACT)])


@torch.no_grad()
def draw_sampling(model: GPT, tokenizer: Tokenizer):
    ids = torch.tensor([encode_prompt(tokenizer, PROMPTS[0])])
    logits = model(ids)[0][:, -1]
    plain = next_token_probs(logits, n_vocab=tokenizer.n_vocab)[0]
    kept = next_token_probs(logits, 0.8, top_k=5, n_vocab=tokenizer.n_vocab)[0]
    rows = [
        (shown(tokenizer, i), plain[i].item(), kept[i].item())
        for i in plain.topk(5).indices.tolist()
    ]
    draw_bars("sampling.svg", rows, [("model", SOFT), ("0.8, top-k 5", MODEL)])


def draw_attention(model: GPT, tokenizer: Tokenizer):
    text = "One morning, Grace was at the harbour with Felix. Grace was tired, so"
    ids = encode_prompt(tokenizer, text)
    weights = model.attention_weights(torch.tensor([ids]))[0, 0, 2]  # head 0.2: (T, T)
    n, side = len(ids), 24
    d = Drawing(150 + n * side, 30 + n * side + 90)
    for t, i in enumerate(ids):
        y = 20 + t * side
        d.text(130, y + 16, shown(tokenizer, i), anchor="end", mono=True)
        for s in range(t + 1):
            d.box(
                140 + s * side,
                y,
                side - 2,
                side - 2,
                fill=MODEL,
                fill_opacity=f"{weights[t, s]:.2f}",
                stroke="#d0d4d9",
            )
        x, y = 140 + t * side + 15, 26 + n * side
        d.parts.append(f'<g transform="translate({x} {y}) rotate(-60)">')
        d.text(0, 0, shown(tokenizer, i), 11, anchor="end", mono=True)
        d.parts.append("</g>")
    d.save("attention.svg")


def draw_curve(training: dict, first: float):
    d, steps = Drawing(640, 260), training["steps"][-1]
    x, y = lambda s: 45 + 560 * s / steps, lambda loss: 215 - 195 * loss / 7
    for loss in (0, 2, 4, 6):
        d.box(45, y(loss), 560, 0.6, fill="#d0d4d9")
        d.text(36, y(loss) + 4, str(loss), anchor="end")
    for s in (0, 200, 400, 600):
        d.text(x(s), 234, str(s), anchor="middle")
    d.text(325, 252, "loss in nats per token, by step", 12, SOFT, "middle")
    for name, colour, dy in (("bigram", BIGRAM, -5), ("floor", EXACT, 13)):
        d.box(45, y(training[name]), 560, 1.5, fill=colour)
        d.text(605, y(training[name]) + dy, f"{name} {training[name]:.3f}", 12, colour, "end")
    points = " ".join(f"{x(s):.1f},{y(v):.1f}" for s, v in [(0, first), *training["train"]])
    d.parts.append(f'<polyline points="{points}" fill="none" stroke="{MODEL}" stroke-width="2"/>')
    d.save("training.svg")


def main():
    ap = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    ap.add_argument("run", type=Path)
    ap.add_argument("commit")
    run, commit = vars(ap.parse_args()).values()
    torch.set_num_threads(1)
    model, tokenizer = load_run(run)
    start, *events = (json.loads(line) for line in (run / "log.jsonl").open(encoding="utf-8"))
    done = events[-1]
    pairs = pairs_of(run, tokenizer)
    page = {
        "made": {
            "command": f"gpt2edu_train --seed {start['config']['seed']} --save_every 50",
            "hardware": start["hardware"],
            "dtype": start["dtype"],
            "commit": commit,
        },
        "tokenizer": tokenizer.hash,
        "stories": [with_odds(tokenizer, text) for text in chosen(tokenizer)],
        "pairs": pairs,
        "training": {
            "steps": STEPS,
            "prompts": continuations(run, model, tokenizer),
            "train": curve(events, "train"),
            "val": curve(events, "val"),
            **{k: round(done[k], 4) for k in ("bigram", "floor", "val_loss")},
        },
        "loss": {
            "presets": first_losses(),
            "bands": bands(),
            "unigram": round(unigram(pairs), 3),
            "bigram": round(done["bigram"], 3),
            "floor": round(done["floor"], 3),
        },
    }
    PLAY.mkdir(exist_ok=True)
    text = json.dumps(page, ensure_ascii=False, separators=(",", ":"))
    (PLAY / "play.json").write_text(text + "\n", encoding="utf-8")
    (PLAY / "gpt2.bpe").write_bytes(tokenizers._gpt2_merges_file())
    tokenizer.save(PLAY / "tokenizer.json")
    draw_tokens(tokenizer)
    draw_odds(model, tokenizer, page["stories"][0], pairs)
    draw_sampling(model, tokenizer)
    draw_attention(model, tokenizer)
    draw_curve(page["training"], page["loss"]["presets"]["tiny"]["first"])
    (PLAY / "tiny.safetensors").unlink(missing_ok=True)
    export_web(model, tokenizer, PLAY / "tiny.safetensors", "tiny")


if __name__ == "__main__":
    sys.exit(main())
