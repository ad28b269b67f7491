"""What the loss of the tiny preset is, step by step, in several runs.

This is the table of the page "Is my loss right?".

    gpt2edu_train --seed 1 --out_dir /tmp/seed1      # two to three minutes on two quiet cores
    python -m benchmarks.tiny_bands trim /tmp/seed1/tiny COMMIT \\
        > benchmarks/logs/tiny_avx512_seed1.jsonl
    python -m benchmarks.tiny_bands                  # the tables; a test compares them to the page

The other kind of processor, on a machine with AVX-512 (benchmarks/logs/tiny_avx2_seed1.jsonl):

    export ATEN_CPU_CAPABILITY=avx2 MKL_ENABLE_INSTRUCTIONS=AVX2 ONEDNN_MAX_CPU_ISA=AVX2
    gpt2edu_train --seed 1 --dtype fp32 --out_dir /tmp/avx2

A log here is the run's own log.jsonl without samples and saves, after a line that says what made
it.
"""

import json
import re
import sys
from pathlib import Path

LOGS = Path(__file__).parent / "logs"
STEPS = (10, 20, 50, 100, 200)  # and every step with a validation


def trim(run: Path, commit: str) -> list[dict]:
    "Keep what the table needs, and say where it is from."
    start, *events = (
        json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()
    )
    config = start["config"]
    command = f"gpt2edu_train --seed {config['seed']} --dtype {config['dtype']}"
    head = {"event": "made", "command": command, "commit": commit}
    head |= {k: start[k] for k in ("hardware", "dtype", "max_steps", "train_tokens")}
    kept = {
        "train": ("step", "loss", "norm", "lr"),
        "val": ("step", "loss"),
        "done": tuple(events[-1])[1:],
    }
    rows = [{k: e[k] for k in ("event", *kept[e["event"]])} for e in events if e["event"] in kept]
    return [
        head,
        *({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()} for row in rows),
    ]


# what made it; {step: loss} in training and validation; the end
def read(path: Path) -> tuple[dict, dict, dict, dict]:
    "Read a trimmed log."
    head, *events = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
    train, val = (
        {e["step"]: e["loss"] for e in events if e["event"] == kind} for kind in ("train", "val")
    )
    return head, train, val, events[-1]


def table() -> list[str]:  # lines of Markdown
    "Put the lowest and the highest of all logs beside each step."
    logs = [read(path) for path in sorted(LOGS.glob("tiny_avx*.jsonl"))]

    def band(values: list[float], form: str = "{:.3f}") -> str:
        low, high = form.format(min(values)), form.format(max(values))
        return low if low == high else f"{low} to {high}"

    lines = [
        "| step | training loss, mean of ten steps | validation loss | "
        "of the way from bigram to floor |",
        "|---:|---:|---:|---:|",
    ]
    for step in (*STEPS, *logs[0][2]):
        val = [v[step] for _, _, v, _ in logs if step in v]
        way = [
            100 * (d["bigram"] - v[step]) / (d["bigram"] - d["floor"])
            for _, _, v, d in logs
            if step in v
        ]
        train = [t[step] for _, t, _, _ in logs if step in t]
        cells = [
            band(train) if train else "",
            band(val) if val else "",
            band(way, "{:.1f} %") if way else "",
        ]
        lines.append(f"| {step} | {' | '.join(cells)} |")
    return lines


def runs() -> list[str]:  # lines of Markdown
    "Put the runs side by side."
    logs = [read(path) for path in sorted(LOGS.glob("tiny_avx*.jsonl"))]
    steps = list(logs[0][2])
    head = ["processor", "precision", "threads", "seed", *(f"step {step}" for step in steps)]
    head += ["of the way", "stories chosen right"]
    lines = [f"| {' | '.join(head)} |", f"|---|---|{'---:|' * (len(head) - 2)}"]
    for made, _, val, done in logs:
        threads, kind = re.search(r"(\d+) threads?, (\w+)", made["hardware"]).groups()
        way = (done["bigram"] - done["val_loss"]) / (done["bigram"] - done["floor"])
        cells = [kind, made["dtype"].removeprefix("torch."), threads, made["command"].split()[2]]
        cells += [*(f"{val[step]:.3f}" for step in steps), f"{100 * way:.1f} %"]
        cells += [f"{100 * done['story_choice']:.0f} %"]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def main(args: list[str]):
    if args[:1] == ["trim"]:
        for row in trim(Path(args[1]), args[2]):
            print(json.dumps(row))
        return
    print("\n".join([*table(), "", *runs()]))


if __name__ == "__main__":
    main(sys.argv[1:])
