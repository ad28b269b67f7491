"""RESULTS.md and its plot, written from the stored results of every machine."""

import json
from pathlib import Path

from benchmarks.rows import BY_NAME, ROWS, Bound, Row
from benchmarks.timing import ROOT

FOLDER = ROOT / "benchmarks" / "results"
INTRODUCTION = """\
# Results

`python -m benchmarks report` writes this page out of the files in `benchmarks/results/`, one for
each machine and one for each GPU; `python -m benchmarks run` measures and writes such a file.
Ours and theirs work in turn, A B A B, each in a process of its own. A figure is the median, with
the quartiles in brackets; a ratio is that of pairs of turns. Bounds were set before the work began,
for two cores; one that is not reached stays, with how far it got.
"""


def read(folder: Path) -> list[dict]:
    "Read the results of every machine, in the order of the files' names."
    return [json.loads(p.read_text(encoding="utf-8")) for p in sorted(folder.glob("*.json"))]


def number(x: float) -> str:
    "Write a number with three digits that count."
    if x == 0 or abs(x) >= 1000:
        return f"{x:,.0f}"
    return f"{x:#.3g}".rstrip(".")


def spread_text(s: dict) -> str:
    "Write a median and its quartiles."
    if s["n"] == 1:
        return number(s["median"])
    return f"{number(s['median'])} ({number(s['low'])}–{number(s['high'])})"


def why_not(bound: Bound, result: dict) -> str:
    "Say why a bound has no figure here."
    if bound.key in result.get("missing", {}):
        return result["missing"][bound.key]
    if "bf16" in bound.key or bound.key.endswith("README"):
        return "`auto` takes fp32 on this processor: it has no bf16 in hardware"
    return "not measured in this run"


def reached(bound: Bound, result: dict) -> bool | None:  # None: it could not be measured
    if bound.key not in result.get("ratios", {}):
        return None
    return bound.holds(result["ratios"][bound.key]["median"])


def bound_line(row: Row, bound: Bound, result: dict) -> str:
    "Write a line of the table."
    state = reached(bound, result)
    found, verdict = why_not(bound, result), "did not run"
    if "cannot" in result:
        found = result["cannot"]
    elif state is not None:
        found = spread_text(result["ratios"][bound.key]) + bound.unit
        verdict = "reached" if state else "**not reached**"
    return f"| `{row.name}` | {bound.against} | {found} | {bound} | {verdict} |"


def shortfalls(row: Row, result: dict) -> list[str]:
    "Say of a row with a bound that is not reached how far it got, what was tried, what limits it."
    short = [b for b in row.bounds if reached(b, result) is False]
    if not short:
        return []
    got = "; ".join(
        f"{b.against}: {number(result['ratios'][b.key]['median'])} of {b}" for b in short
    )
    lines = [f"- `{row.name}`. How far: {got}."]
    if row.tried:
        lines.append(f"  Tried: {row.tried}")
    if row.limited_by:
        lines.append(f"  What limits it: {row.limited_by}")
    return lines


def details(row: Row, result: dict) -> list[str]:
    "Write every figure of a row, and how it was made."
    made = result["made"]
    load = ", load " + " ".join(f"{x:g}" for x in made["load"]) if made["load"] else ""
    at = f"{made['date']}, commit {made['commit'] or 'unknown'}{load}"
    if "cannot" in result:
        return ["", f"**{row.title}** (`--only {row.name}`; {at}): {result['cannot']}."]
    lines = ["", f"**{row.title}** (`--only {row.name}`; {at})", ""]
    settings = ", ".join(
        f"{k} {json.dumps(v) if isinstance(v, list) else v}" for k, v in result["settings"].items()
    )
    lines += [f"- {k}: {spread_text(s)}" for k, s in result["figures"].items()]
    bounded = {b.key for b in row.bounds}
    lines += [
        f"- ratio, {k}: {spread_text(s)}" for k, s in result["ratios"].items() if k not in bounded
    ]
    return [*lines, *([f"- settings: {settings}"] if settings else [])]


def machine_lines(found: dict) -> list[str]:
    "Write the part of one machine."
    m, limits = found["machine"], found["limits"]
    versions = ", ".join(f"{k} {v}" for k, v in m["versions"].items())
    memory = f", {m['memory'] / 1e9:.0f} GB" if m["memory"] else ""
    lines = ["", f"## {m['hardware']}, {m['capability']}, {m['auto']}", ""]
    lines += [f"{m['cores']} cores, {m['threads']} threads{memory}, {m['system']}; {versions}."]
    names = {"read": "memory is read at"}
    said = [
        f"{names.get(k, f'products in {k} at')} {spread_text(scaled(s, 1e9))} "
        f"{'GB/s' if k == 'read' else 'GFLOP/s'}"
        for k, s in limits.items()
    ]
    lines += [f"Measured limits: {'; '.join(said)}.", ""]
    lines += ["| `--only` | against | measured | bound | |", "|---|---|---:|---:|---|"]
    rows = [(row, found["rows"][row.name]) for row in ROWS if row.name in found["rows"]]
    lines += [bound_line(row, b, r) for row, r in rows for b in row.bounds]
    if short := [line for row, r in rows for line in shortfalls(row, r)]:
        lines += ["", "Not reached:", "", *short]
    lines += ["", "### All figures"]
    return lines + [line for row, r in rows for line in details(row, r)]


def scaled(s: dict, by: float) -> dict:
    return {k: v if k == "n" else v / by for k, v in s.items()}


def gpu_lines(found: dict) -> list[str]:
    "Write the part of a first hour on a GPU."
    m = found["machine"]
    versions = ", ".join(f"{k} {v}" for k, v in m["versions"].items())
    made = found["made"]
    lines = ["", f"## {m['hardware']}", ""]
    if found["rehearsal"]:
        lines += ["A rehearsal on the CPU with small sizes: it shows that every line runs.", ""]
    lines += [f"{made['date']}, commit {made['commit'] or 'unknown'}; {versions}.", ""]
    lines += ["| part | seconds | figures |", "|---|---:|---|"]
    for name, part in found["parts"].items():
        text = part.get("error") or part.get("skipped")
        if text is None:
            text = "; ".join(flat(part["figures"]))
        lines.append(f"| {name} | {part['seconds']:.0f} | {text} |")
    return lines


def flat(figures: dict, before: str = "") -> list[str]:
    "Name every number of a nested dictionary; lists stay in the file."
    found = []
    for k, v in figures.items():
        name = f"{before} {k}".strip()
        if isinstance(v, dict):
            found += flat(v, name)
        elif isinstance(v, float | int) and not isinstance(v, bool):
            found.append(f"{name} {number(v)}")
        elif isinstance(v, str | bool):
            found.append(f"{name}: {v}")
    return found


def page(results: list[dict], plot: str) -> str:
    "Write RESULTS.md."
    lines = INTRODUCTION.splitlines()
    machines = [r for r in results if "rows" in r]
    if machines:
        lines += [
            "",
            f"![Each bound's figure over the bound; right of the line it is reached]({plot})",
        ]
    if not results:
        lines += ["", "No machine has been measured yet."]
    for found in machines:
        lines += machine_lines(found)
    for found in results:
        if "parts" in found:
            lines += gpu_lines(found)
    return "\n".join(lines) + "\n"


def shares(found: dict) -> dict[str, float]:  # "row, against" → 1 and more is reached
    "Put all bounds of a machine on one scale."
    out = {}
    for row in ROWS:
        result = found["rows"].get(row.name, {})
        for b in row.bounds:
            if reached(b, result) is not None:
                value = result["ratios"][b.key]["median"]
                share = value / b.limit if b.least else b.limit / value
                out[f"{row.name}: {b.against}"] = share
    return out


def plot(results: list[dict], path: Path):
    "Draw each figure over its bound, for every machine."
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    from gpt2edu.plots import GREY, PALETTE

    machines = [r for r in results if "rows" in r]
    found = {f"{r['machine']['hardware']}, {r['machine']['kind']}": shares(r) for r in machines}
    names = list(dict.fromkeys(name for values in found.values() for name in values))
    with rc_context({"svg.hashsalt": "gpt2edu", "text.color": GREY, "axes.labelcolor": GREY}):
        fig = Figure(figsize=(9, 1.5 + 0.28 * len(names)), layout="constrained")
        ax = fig.add_subplot()
        for colour, (machine, values) in zip(PALETTE, found.items(), strict=False):
            at = [names.index(name) for name in values]
            ax.plot(list(values.values()), at, "o", color=colour, label=machine)
        ax.axvline(1, color=GREY)
        ax.set_xscale("log")
        ticks = (0.25, 0.5, 1, 2, 4, 8)
        ax.minorticks_off()  # ten of them would be labelled, one over the other
        ax.set_xticks(ticks, [f"{t:g}" for t in ticks])
        ax.set_yticks(range(len(names)), names)
        ax.tick_params(colors=GREY)
        ax.invert_yaxis()
        ax.set_xlabel("figure over bound; right of the line the bound is reached")
        ax.set_title("How far each bound is reached", loc="left")
        ax.grid(axis="x", color=GREY, alpha=0.25)
        ax.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.12))
        fig.savefig(path, transparent=True, metadata={"Date": None})


def write(folder: Path = FOLDER) -> Path:  # RESULTS.md
    "Write page and plot: beside the folder of results that is stored, else into the folder."
    out = folder.parent if folder == FOLDER else folder
    results = read(folder)
    if any("rows" in r for r in results):
        plot(results, out / "results.svg")
    (out / "RESULTS.md").write_text(page(results, "results.svg"), encoding="utf-8", newline="\n")
    return out / "RESULTS.md"


def terminal(found: dict) -> str:
    "Write the table of one machine for a terminal: the lines of RESULTS.md without its frame."
    lines = []
    for name, result in found["rows"].items():
        row = BY_NAME[name]
        lines.append(f"{row.name}: {row.title}")
        if "cannot" in result:
            lines.append(f"  did not run: {result['cannot']}")
            continue
        lines += [f"  {k:52} {spread_text(s)}" for k, s in result["figures"].items()]
        bounds = {b.key: b for b in row.bounds}
        for k, s in result["ratios"].items():
            said = f"  {k:52} {spread_text(s)}"
            if b := bounds.get(k):
                said += (
                    f"{b.unit}   bound {b}: {'reached' if reached(b, result) else 'NOT REACHED'}"
                )
            lines.append(said)
        lines += [
            f"  {b.against}: {why_not(b, result)}" for b in row.bounds if reached(b, result) is None
        ]
    return "\n".join(lines)
