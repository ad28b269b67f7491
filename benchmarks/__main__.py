"""Measure this machine beside the peers, take the first hour on a GPU, or write the page anew.

python -m benchmarks run --nanogpt ../nanoGPT        every row; about half an hour on two cores
python -m benchmarks run --only decode-124m          one row, or several: --only a --only b
python -m benchmarks gpu --minutes 25                on a GPU; without one it rehearses
python -m benchmarks report                          RESULTS.md and its plot, from the results
python -m benchmarks list                            the names of the rows
"""

import argparse
import json
import sys
import time
from pathlib import Path

from benchmarks.rows import BY_NAME, ROWS, Asked
from benchmarks.timing import CannotRun, limits, machine, made


def store(path: Path, found: dict):
    "Write results, whole or not at all."
    from gpt2edu.machine.atomic import write_atomically

    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, (json.dumps(found, indent=1, ensure_ascii=False) + "\n").encode())


def run(a: argparse.Namespace) -> int:
    "Measure rows, store them beside those that the file has, and write the page."
    from benchmarks import report

    here = machine()
    path = (a.json or report.FOLDER / f"{here['kind']}.json").resolve()
    found = {"machine": here, "limits": {}, "rows": {}}
    if path.exists():
        found["rows"] = json.loads(path.read_text(encoding="utf-8"))["rows"]
    found["limits"] = limits(here["auto"], a.tiny)
    asked = Asked(a.nanogpt, here["auto"], found["limits"], a.tiny)
    failed = 0
    for row in [BY_NAME[n] for n in a.only] or [r for r in ROWS if not r.asked_for]:
        began, before = time.perf_counter(), made()
        try:
            result = row.run(asked)
        except CannotRun as why:
            result = {"cannot": str(why)}
        except (RuntimeError, AssertionError, OSError) as e:  # the other rows go on
            result, failed = {"cannot": f"failed: {e}"}, 1
        found["rows"][row.name] = {"made": before} | result
        found["rows"] = {r.name: found["rows"][r.name] for r in ROWS if r.name in found["rows"]}
        store(path, found)
        print(report.terminal({"rows": {row.name: result}}))
        print(f"  {time.perf_counter() - began:.0f} s", flush=True)
    page = report.write(path.parent)
    print(f"results: {path}\npage: {page}")
    return failed


def gpu(a: argparse.Namespace) -> int:
    from benchmarks.gpu import first_hour

    return first_hour(a.minutes, a.nanogpt, a.json, a.rehearse)


def write_page(a: argparse.Namespace) -> int:
    from benchmarks import report

    print(report.write((a.folder or report.FOLDER).resolve()))
    return 0


def names(a: argparse.Namespace) -> int:
    for row in ROWS:
        print(f"{row.name:16} {row.title}{' (only where it is named)' * row.asked_for}")
    return 0


def main() -> int:
    ap = argparse.ArgumentParser(
        "python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = ap.add_subparsers(required=True)
    p = commands.add_parser("run", help="measure rows")
    p.add_argument("--nanogpt", help="a checkout of https://github.com/karpathy/nanoGPT")
    p.add_argument("--only", action="append", default=[], choices=list(BY_NAME), metavar="NAME")
    p.add_argument("--json", type=Path, help="file of the results; its folder gets the page")
    p.add_argument("--tiny", action="store_true", help="small sizes: tries the benchmarks")
    p.set_defaults(work=run)
    p = commands.add_parser("gpu", help="the first hour on a GPU")
    p.add_argument("--minutes", type=float, default=25)
    p.add_argument("--nanogpt", help="a checkout of https://github.com/karpathy/nanoGPT")
    p.add_argument("--json", type=Path, help="file of the results, written after every part")
    p.add_argument("--rehearse", action="store_true", help="small sizes on the CPU")
    p.set_defaults(work=gpu)
    p = commands.add_parser("report", help="write RESULTS.md from the stored results")
    p.add_argument("folder", type=Path, nargs="?")
    p.set_defaults(work=write_page)
    commands.add_parser("list", help="name the rows").set_defaults(work=names)
    a = ap.parse_args()
    return a.work(a)


if __name__ == "__main__":
    sys.exit(main())
