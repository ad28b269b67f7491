"""Train the runs of chapter 27: sizes x tokens of the story grammar, whose entropy is known.

    python -m benchmarks.scaling                     # all of it
    python -m benchmarks.scaling --minutes 4         # what fits; call it again for the rest

First the grid; then the law is fitted to it and says what a larger run will reach; then that run is
trained, and the three largest sizes of the grid again at half the rate.

Every model reads fresh stories, each once, at a constant rate. For each number of tokens D it
leaves that trunk at 0.8 D and its rate falls to zero by D, so each D has its own end and shares its
beginning (Hägele et al. 2024, arXiv 2405.18392). Results stand in benchmarks/logs/scaling.json, one
run a line; runs that are there are not repeated. Two processes of one thread work side by side.
"""

import argparse
import json
import multiprocessing
import platform
import sys
import time
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from pathlib import Path

import numpy as np
import torch

from benchmarks.timing import commit
from gpt2edu.machine.atomic import write_atomically
from gpt2edu.model.gpt import GPT, IGNORE, GPTConfig
from gpt2edu.plan.scaling import bootstrap, fit
from gpt2edu.text.corpus import story
from gpt2edu.text.grammar import Grammar
from gpt2edu.text.tokenizer import Tokenizer
from gpt2edu.train.config import count_params, padded
from gpt2edu.train.optim import build_optimizers, set_lr

HERE = Path(__file__).parent
LOG = HERE / "logs" / "scaling.json"
GRAMMAR = Grammar(shortest=4, longest=7)  # sentences
T = 112  # tokens of a row; no story is longer
B = 16  # rows of a step
DECAY = 0.2  # share of a run in which the rate falls
WARMUP = 20  # steps
# layers, heads, C
SIZES = (
    (2, 1, 16),
    (2, 2, 24),
    (2, 2, 32),
    (2, 3, 48),
    (2, 4, 64),
    (3, 4, 64),
    (3, 5, 80),
    (3, 6, 96),
)
TOKENS = (250_000, 500_000, 1_000_000, 2_000_000)
LARGE, LARGE_TOKENS = (4, 7, 112), (1_000_000, 2_000_000)
RATES = (0.016, 0.008)  # peaks of AdamW: of the grid, and of the same with half of it
MUON = 1.5  # Muon's peak, as a multiple
VAL_STORIES, VAL_SEED = 800, 27
CHUNK = 5000  # stories to write at a time


def pack(texts: list[list[int]], eot: int, look: int = 32) -> np.ndarray:  # (rows, T + 1) int32
    """Put whole stories into rows, each row begun by eot, each story ended by it.

    What no story fills is IGNORE. No story is cut, so every token sees its story from the start.
    """
    waiting, rest, rows = [], list(reversed(texts)), []
    while waiting or rest:
        row = [eot]
        while True:
            while rest and len(waiting) < look:
                waiting.append(rest.pop())
            fits = [i for i, ids in enumerate(waiting) if len(row) + len(ids) <= T]
            if not fits:
                break
            first = len(row) == 1  # the one that has waited longest, so that none waits for ever
            best = fits[0] if first else max(fits, key=lambda i: len(waiting[i]))
            row += [*waiting.pop(best), eot]
        rows.append(row + [IGNORE] * (T + 1 - len(row)))
    return np.array(rows, dtype=np.int32)


def batch(rows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:  # x, y: (B, T) int64
    "Make inputs and targets; where there is no target there is a harmless input."
    rows = torch.from_numpy(rows.astype(np.int64))  # (B, T + 1)
    return rows[:, :-1].clamp(min=0), rows[:, 1:]


def stories(n: int, seed: int, start: int = 0) -> list:
    return [story(i, seed, GRAMMAR) for i in range(start, start + n)]


def write_data(folder: Path, n_tokens: int) -> dict:  # floor, vocabulary
    "Write rows of fresh stories with n_tokens targets, and those for validation."
    tokenizer = Tokenizer.train([s.text for s in stories(2000, seed=1)], 1024, "stories")
    val = stories(VAL_STORIES, seed=VAL_SEED)
    ids = tokenizer.encode_batch([s.text for s in val])
    np.save(folder / "val.npy", pack(ids, tokenizer.eot))
    n = sum(len(i) + 1 for i in ids)
    parts, count, start = [], 0, 0
    while count < n_tokens:
        few = [s.text for s in stories(CHUNK, seed=1, start=start)]
        parts.append(pack(tokenizer.encode_batch(few), tokenizer.eot))
        count += int((parts[-1][:, 1:] != IGNORE).sum())
        start += CHUNK
    np.save(folder / "train.npy", np.concatenate(parts))
    floor = -sum(s.logprob for s in val) / n
    return {"floor": floor, "val_tokens": n, "vocabulary": tokenizer.n_vocab}


@torch.no_grad()
def judge(model, val: np.ndarray) -> float:  # nats/token over whole stories
    model.eval()
    total = count = 0
    for i in range(0, len(val), 32):
        x, y = batch(val[i : i + 32])
        n = int((y != IGNORE).sum())
        total, count = total + float(model(x, y)[1]) * n, count + n
    return total / count


class Run:
    "A model in training, with the rows that it has read."

    def __init__(self, j: dict, folder: Path, n_vocab: int):
        self.rows = np.load(folder / "train.npy", mmap_mode="r")
        self.fast = j["dtype"] == "bf16"
        self.step, self.seconds = 0, 0.0
        L, H, C = j["size"]
        generator = torch.Generator().manual_seed(j["seed"])
        self.model = GPT(GPTConfig(L, H, C, T, padded(n_vocab)), generator)
        rates = {"lr": j["lr"], "muon_lr": j["lr"] * MUON}
        options = {"weight_decay": 0.02, "betas": (0.9, 0.98)} | rates
        self.optimizers = build_optimizers(self.model, "muon", **options)

    def train(self, end: int, fraction) -> list[float]:  # losses of the steps
        "Train to a step; `fraction` gives the rate of each, as a share of its peak."
        began, losses = time.perf_counter(), []
        self.model.train()
        for step in range(self.step, end):
            set_lr(self.optimizers, fraction(step))
            x, y = batch(self.rows[step * B : (step + 1) * B])
            with torch.autocast("cpu", torch.bfloat16, enabled=self.fast):
                loss = self.model(x, y)[1]
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            for optimizer in self.optimizers:
                optimizer.step()
                optimizer.zero_grad()
            losses.append(loss.item())
        self.step = end
        self.seconds += time.perf_counter() - began
        return losses

    def save(self, path: Path):
        state = [o.state_dict() for o in self.optimizers]
        state = {"model": self.model.state_dict(), "optimizers": state}
        torch.save(state | {"step": self.step, "seconds": self.seconds}, path)

    def load(self, path: Path):
        state = torch.load(path)
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step, self.seconds = state["step"], state["seconds"]


def mean_of(losses: list[float], n: int) -> list[float]:
    "Average losses over n parts."
    return [round(float(np.mean(part)), 4) for part in np.array_split(losses, n) if len(part)]


def train(j: dict, folder: Path, n_vocab: int) -> dict:  # the job and what came of it
    "Take a trunk to 0.8 D, keep it for the next D, and let the rate fall to zero by D."
    torch.set_num_threads(j.get("threads", 1))
    run = Run(j, folder, n_vocab)
    per_row = (run.rows[:, 1:] != IGNORE).sum() / len(run.rows)
    steps = round(j["tokens"] / per_row / B)
    turn = round((1 - DECAY) * steps)
    L, H, C = j["size"]
    trunk = folder / f"trunk_{L}_{H}_{C}_{j['lr']}_{j['seed']}_{j['dtype']}.pt"
    if trunk.exists():
        run.load(trunk)
    curve = run.train(turn, lambda step: min(1.0, (step + 1) / WARMUP))
    run.save(trunk)
    curve += run.train(steps, lambda step: (steps - step) / (steps - turn))
    began = time.perf_counter()
    loss = judge(run.model, np.load(folder / "val.npy"))
    n = sum(p.numel() for p in run.model.parameters())
    table = (padded(n_vocab) + T) * C
    sizes = {"params": n, "matrices": 12 * L * C * C, "tables": table, "steps": steps}
    seen = int((run.rows[: steps * B, 1:] != IGNORE).sum())
    seconds = round(run.seconds + time.perf_counter() - began, 1)
    done = {"seen": seen, "loss": round(loss, 5), "seconds": seconds, "curve": mean_of(curve, 10)}
    return j | sizes | done


def job(size, tokens, lr, seed=1337, dtype="bf16", kind="grid", **more) -> dict:
    j = {"kind": kind, "size": [*size], "tokens": tokens, "lr": lr, "seed": seed, "dtype": dtype}
    return j | more


def grid() -> list[dict]:
    "The sizes x tokens to which the law is fitted."
    return [job(s, d, RATES[0]) for d in TOKENS for s in reversed(SIZES)]


def later() -> list[dict]:
    "The larger run, and the three largest sizes of the grid at half the rate."
    large = [job(LARGE, d, RATES[0], kind="large", threads=2) for d in LARGE_TOKENS]
    half = [job(s, d, RATES[1], kind="half") for d in TOKENS[1:3] for s in reversed(SIZES[5:])]
    return large + half


def predict(record: dict) -> list[dict]:  # for each larger run
    "Say what the law makes of the larger run, from the grid alone."
    runs = [r for r in record["runs"] if r["kind"] == "grid"]
    n, d, losses = ([r[k] for r in runs] for k in ("params", "seen", "loss"))
    law = fit(n, d, losses)
    others = bootstrap(law, n, d, losses)
    L, _, C = LARGE
    size = count_params(L, C, T, padded(record["vocabulary"]))
    at = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    found = []
    for tokens in LARGE_TOKENS:
        loss, error = float(law.loss(size, tokens)), np.std([o.loss(size, tokens) for o in others])
        said = {"size": [*LARGE], "params": size, "tokens": tokens, "runs": len(runs), "at": at}
        found.append(said | {"predicted": round(loss, 4), "error": round(float(error), 4)})
    return found


def made() -> dict:
    cpu = (
        Path("/proc/cpuinfo").read_text(encoding="utf-8").split("model name\t: ")[1].splitlines()[0]
    )
    machine = f"{cpu}, one thread a run, {torch.backends.cpu.get_cpu_capability()}"
    return {
        "made_by": "benchmarks/scaling.py",
        "commit": commit(),
        "hardware": f"{machine}, torch {torch.__version__}, Python {platform.python_version()}",
    }


def key(j: dict) -> str:
    return json.dumps([j[k] for k in ("kind", "size", "tokens", "lr", "seed", "dtype")])


def store(record: dict):
    "Write the log, one run a line."
    runs = ",\n  ".join(json.dumps(r) for r in record["runs"])
    head = json.dumps({k: v for k, v in record.items() if k != "runs"}, indent=1)[:-2]
    write_atomically(LOG, f'{head},\n "runs": [\n  {runs}\n ]\n}}\n'.encode())


def page(record: dict) -> str:
    "Write the part of the record that chapter 27 shows, as Python."
    found = {}
    for r in record["runs"]:
        table = "large" if r["kind"] == "large" else "grid"
        row = (table, *r["size"], r["params"], r["matrices"], r["seen"])
        found.setdefault(row, {})[r["lr"]] = r["loss"]
    rows = {"grid": [], "large": []}
    for (table, *numbers), losses in sorted(found.items(), key=lambda item: item[0][4:]):
        two = "  ".join(f"{losses.get(rate, float('nan')):7.5f}" for rate in RATES)
        a, b, c, n, m, d = numbers
        rows[table].append(f"{a} {b} {c:3}  {n:6} {m:6}  {d:7}  {two}")
    said = [[p["tokens"], p["predicted"], p["error"]] for p in record.get("predictions", [])]
    at = f", {record['predictions'][0]['at']}" if said else ""
    lines = [f"# {record['hardware']}, commit {record['commit']}", f"FLOOR = {record['floor']:.5f}"]
    lines += ["# layers, heads, width, parameters, those of the matrices, tokens"]
    lines += ["# and the losses at the rates 0.016 and 0.008"]
    lines += ['RUNS = """', *rows["grid"], '"""', 'LARGER = """', *rows["large"], '"""']
    for r in record["runs"]:
        if "hardware" in r:
            lines += [f"# {r['seen']} tokens, commit {r['commit']}, on", f"# {r['hardware']}"]
    lines += [f"# said before the runs{at}: tokens, predicted loss, its error"]
    return "\n".join([*lines, f"SAID = {said}"])


def work(record: dict, todo: list[dict], folder: Path, end: float, workers: int) -> int:
    "Do jobs until none is left or the time is over; return how many are left."
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        running = {}
        while running or (todo and time.monotonic() < end):
            while len(running) < workers and time.monotonic() < end:
                busy = [j["size"] for j in running.values()]  # its trunk is not there yet
                free = next((j for j in todo if j["size"] not in busy), None)
                if free is None:
                    break
                todo.remove(free)
                running[pool.submit(train, free, folder, record["vocabulary"])] = free
            for f in wait(running, return_when=FIRST_COMPLETED).done:
                del running[f]
                r = f.result() | {k: v for k, v in made().items() if record[k] != v}
                record["runs"].append(r)
                store(record)
                print(r["kind"], r["size"], r["tokens"], r["lr"], r["loss"], r["seconds"])
    return len(todo)


def main(minutes: float, workers: int, folder: Path):
    end = time.monotonic() + 60 * minutes
    folder.mkdir(parents=True, exist_ok=True)
    record = json.loads(LOG.read_text(encoding="utf-8")) if LOG.exists() else {"runs": []}
    if not (folder / "info.json").exists():
        info = write_data(folder, max(LARGE_TOKENS) * 21 // 20)
        (folder / "info.json").write_text(json.dumps(info), encoding="utf-8")
    record["runs"] = [r for r in record["runs"] if r["kind"] != "low"]
    # a run on another machine, or of another commit, says so itself
    info = json.loads((folder / "info.json").read_text(encoding="utf-8"))
    if record["runs"] and record["floor"] != info["floor"]:
        sys.exit(f"the stories' floor is {info['floor']} today, in the record {record['floor']}")
    record = made() | info | record

    def left(wanted):
        there = {key(r) for r in record["runs"]}
        return [j for j in wanted if key(j) not in there]

    n = work(record, left(grid()), folder, end, workers)
    if not n and "predictions" not in record:
        record = record | {"predictions": predict(record)}
        store(record)
    n = n or work(record, left(later()), folder, end, workers)
    print(f"floor {record['floor']:.4f}; {n} runs left")


if __name__ == "__main__":
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("--minutes", type=float, default=60, help="begin no run after that")
    ap.add_argument("--workers", type=int, default=2)
    ap.add_argument("--data", type=Path, default=HERE.parent / "data" / "scaling")
    ap.add_argument("--page", action="store_true", help="print the part that chapter 27 shows")
    a = ap.parse_args()
    if a.page:
        sys.exit(print(page(json.loads(LOG.read_text(encoding="utf-8")))))
    sys.stdout.reconfigure(line_buffering=True)
    main(a.minutes, a.workers, a.data)
