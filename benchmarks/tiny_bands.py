"""What the loss of the tiny preset is, step by step, in several runs: the table of the page "Is my loss right?".

    gpt2edu_train --seed 1 --out_dir /tmp/seed1                  # about two minutes on two quiet cores
    python benchmarks/tiny_bands.py trim /tmp/seed1/tiny 23fb338 > benchmarks/logs/tiny_seed1.jsonl
    python benchmarks/tiny_bands.py                              the table; a test compares it with the page

A log here is the run's own log.jsonl without samples and saves, after a line that says what made it.
"""

import json
import sys
from pathlib import Path

LOGS = Path(__file__).parent / "logs"
STEPS = (10, 20, 50, 100, 200, 350, 700, 1050)


def trim(run: Path, commit: str) -> list[dict]:
    "Keep what the table needs, and say where it is from."
    start, *events = (json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines())
    config = start["config"]
    command = f"gpt2edu_train --seed {config['seed']} --dtype {config['dtype']}"
    head = {"event": "made", "command": command, "commit": commit}
    head |= {k: start[k] for k in ("hardware", "dtype", "max_steps", "train_tokens")}
    kept = {"train": ("step", "loss", "norm", "lr"), "val": ("step", "loss"), "done": tuple(events[-1])[1:]}
    rows = [{k: e[k] for k in ("event", *kept[e["event"]])} for e in events if e["event"] in kept]
    return [head, *({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()} for row in rows)]


def read(path: Path) -> tuple[dict, dict, dict, dict]:  # what made it; {step: loss} in training and validation; the end
    "Read a trimmed log."
    head, *events = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
    train, val = ({e["step"]: e["loss"] for e in events if e["event"] == kind} for kind in ("train", "val"))
    return head, train, val, events[-1]


def table() -> list[str]:  # lines of Markdown
    "Put the lowest and the highest of all logs beside each step."
    logs = [read(path) for path in sorted(LOGS.glob("tiny_seed*.jsonl"))]

    def band(values: list[float], form: str = "{:.3f}") -> str:
        low, high = form.format(min(values)), form.format(max(values))
        return low if low == high else f"{low} to {high}"

    lines = ["| step | training loss, mean of ten steps | validation loss | of the way from bigram to floor |"]
    lines += ["|---:|---:|---:|---:|"]
    for step in STEPS:
        val = [v[step] for _, _, v, _ in logs if step in v]
        way = [100 * (d["bigram"] - v[step]) / (d["bigram"] - d["floor"]) for _, _, v, d in logs if step in v]
        cells = [band([t[step] for _, t, _, _ in logs]), band(val) if val else "", band(way, "{:.1f} %") if way else ""]
        lines.append(f"| {step} | {' | '.join(cells)} |")
    return lines


def runs() -> list[str]:  # lines of Markdown
    "Put the runs side by side."
    lines = ["| seed | precision | threads | step 350 | step 700 | step 1050 | stories chosen right |"]
    lines += ["|---:|---|---:|---:|---:|---:|---:|"]
    for head, _, val, done in map(read, sorted(LOGS.glob("tiny_seed*.jsonl"), key=lambda p: (len(p.stem), p.stem))):
        cells = [head["command"].split()[2], head["dtype"].removeprefix("torch."), head["hardware"].split()[2]]
        cells += [f"{val[step]:.3f}" for step in (350, 700, 1050)]
        lines.append(f"| {' | '.join(cells)} | {100 * done['story_choice']:.0f} % |")
    return lines


def main(args: list[str]):
    if args[:1] == ["trim"]:
        for row in trim(Path(args[1]), args[2]):
            print(json.dumps(row))
        return
    print("\n".join([*table(), "", *runs()]))


if __name__ == "__main__":
    main(sys.argv[1:])
