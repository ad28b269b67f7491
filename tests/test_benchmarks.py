"""The benchmarks run, and their page is what the stored results say. Nothing is timed here."""

import json
import multiprocessing
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import warm

from benchmarks.gpu import stop

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "benchmarks"
PARTS = """self_test speed memory losses profile resume decoding larger beside_nanogpt""".split()
POSIX = pytest.mark.skipif(os.name != "posix", reason="processes are killed in groups")


def benchmarks(*arguments, code=0):
    command = [sys.executable, "-m", "benchmarks", *map(str, arguments)]
    done = warm.run(command, cwd=ROOT, timeout=900)
    assert done.returncode == code, done.stderr + done.stdout
    return done.stdout


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


@POSIX
def test_the_first_hour_on_a_gpu_is_rehearsed(tmp_path):
    "Every part runs on the CPU and writes the figures that it will write on a GPU."
    said = benchmarks("gpu", "--rehearse", "--json", tmp_path / "hour.json")
    assert said.startswith("rehearsal (asked for)")
    found = read(tmp_path / "hour.json")
    assert found["rehearsal"] and found["made"]["date"] and found["machine"]["versions"]["torch"]
    assert list(found["parts"]) == PARTS
    assert not {k: p["error"] for k, p in found["parts"].items() if "error" in p}
    parts = {k: p["figures"] for k, p in found["parts"].items()}
    assert "no checkout of nanoGPT" in found["parts"]["beside_nanogpt"]["skipped"]
    for dtype in ("fp32", "bf16", "fp16"):
        assert parts["self_test"][dtype] == "agrees with the CPU"
    kinds = [
        f"{how}, {loss} loss, B 2" for how in ("eager", "compiled") for loss in ("plain", "chunked")
    ]
    for kind in kinds:
        figures = parts["speed"][kind]
        assert figures["tokens/s"] > 0 and figures["MFU of the measured peak"] > 0
    assert parts["memory"]["B 2"]["plan, GB"] > 0
    falls = [parts["losses"][d]["losses"] for d in ("bf16", "fp16", "fp32")]
    assert all(first > last for first, last in falls)
    for a, b in zip(falls[0] + falls[1], falls[2] * 2, strict=True):
        assert a == pytest.approx(b, abs=0.02)  # 8 bits of a number, a few steps
    for how in ("eager", "compiled"):
        assert len(parts["profile"][how]["share of each"]) == 10
    ends = parts["resume"]["validation loss"]
    assert parts["resume"]["killed"] and parts["resume"]["resumed at step"] >= 30
    assert ends["killed"] == pytest.approx(ends["whole"], abs=1e-6)  # the same sums again
    assert parts["decoding"]["fp32, 4 at once, tokens/s"] > 0
    assert parts["larger"]["compiled, B 2"]["tokens/s"] > 0


@POSIX
def test_a_part_that_fails_or_takes_too_long_is_recorded(tmp_path):
    "The parts after it run all the same; a checkout that is none makes the last one skip."
    said = benchmarks("gpu", "--rehearse", "--minutes", 0.02, "--json", tmp_path / "x.json", code=1)
    parts = read(tmp_path / "x.json")["parts"]
    assert list(parts) == PARTS and "over its time of" in said
    late = [name for name, p in parts.items() if "over its time of" in str(p.get("error"))]
    assert late and parts[PARTS[-1]].get(
        "skipped", parts[PARTS[-1]].get("error")
    )  # a fast part ends


@POSIX
def test_a_part_is_stopped_before_it_has_a_group_and_after_its_end():
    "A part of no time was stopped so early that its group was not there, and the hour ended."
    context = multiprocessing.get_context("spawn")
    early, done = (context.Process(target=time.sleep, args=(n,)) for n in (100, 0))
    done.start()
    done.join()
    early.start()
    for process in (early, done):
        stop(process)
    assert (early.exitcode, done.exitcode) == (-9, 0)


def test_two_rows_are_measured_and_written_down(tmp_path):
    out = tmp_path / "here.json"
    said = benchmarks("run", "--tiny", "--json", out, "--only", "small-step", "--only", "startup")
    found = read(out)
    assert found["machine"]["kind"] and found["limits"]["read"]["median"] > 0
    row = found["rows"]["small-step"]
    assert row["figures"]["ours fp32, ms"]["n"] == 3
    assert row["made"]["date"] and "no checkout of nanoGPT" in row["missing"]["nanoGPT fp32"]
    assert found["rows"]["startup"]["ratios"]["gpt2edu_plan"]["median"] > 0
    page = (tmp_path / "RESULTS.md").read_text(encoding="utf-8")
    for text in (said, page):
        assert "no checkout of nanoGPT is named (--nanogpt PATH)" in text
    assert "| `startup` | `gpt2edu_plan` |" in page and (tmp_path / "results.svg").exists()
    # another run adds to the file, and leaves the other rows
    benchmarks("run", "--tiny", "--json", out, "--only", "decode-int8")
    assert list(read(out)["rows"]) == ["small-step", "decode-int8", "startup"]


def test_the_page_is_what_the_results_say(tmp_path):
    "Written anew from the stored results, RESULTS.md has not changed."
    stored = sorted((FOLDER / "results").glob("*.json"))
    assert stored
    for path in stored:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    benchmarks("report", tmp_path)
    page = (tmp_path / "RESULTS.md").read_text(encoding="utf-8")
    assert page == (FOLDER / "RESULTS.md").read_text(encoding="utf-8")


def test_a_shortfall_is_explained(tmp_path):
    "A bound that is not reached stays on the page, with how far it got and what limits it."
    made = {"date": "2026-01-01", "commit": "abcdef0", "load": []}
    least = {"median": 0.5, "low": 0.4, "high": 0.6, "n": 5}
    row = {"made": made, "figures": {}, "ratios": {"fp32": least}, "settings": {}}
    machine = {"hardware": "X", "capability": "AVX2", "auto": "fp32", "cores": 2, "threads": 2}
    machine |= {"kind": "x", "memory": None, "system": "Linux", "versions": {}}
    found = {"machine": machine, "limits": {}, "rows": {"peak-fraction": row}}
    (tmp_path / "x.json").write_text(json.dumps(found), encoding="utf-8")
    benchmarks("report", tmp_path)
    page = (tmp_path / "RESULTS.md").read_text(encoding="utf-8")
    assert re.search(r"\| 0\.500 \(0\.400–0\.600\) \| ≥ 0\.8 \| \*\*not reached\*\* \|", page)
    assert "How far: the machine, fp32: 0.500 of ≥ 0.8" in page and "What limits it: " in page
    assert "no bf16 in hardware" in page  # of the row's other bound


def test_every_row_is_listed_and_every_bound_of_the_issue_is_there():
    names = [line.split()[0] for line in benchmarks("list").splitlines()]
    assert len(names) == len(set(names)) and {"shakespeare", "step-124m", "hellaswag"} <= {*names}


def test_every_script_starts():
    "By -m, which is how each names itself: by its path it would not find its neighbours."
    names = sorted(p.stem for p in FOLDER.glob("*.py") if not p.stem.startswith("__"))
    done = warm.run([sys.executable, "-c", f"from benchmarks import {', '.join(names)}"], cwd=ROOT)
    assert done.returncode == 0, done.stderr
    said = "".join(p.read_text(encoding="utf-8") for p in FOLDER.glob("*.py"))
    assert not re.findall(r"python3? benchmarks/\S+", said)


def test_chapter_26_holds_the_record():
    "What its folded cell says is what the log says."
    log = read(FOLDER / "logs" / "modern.json")
    page = (ROOT / "book" / "tough" / "ch26_modern.md").read_text(encoding="utf-8")
    command = [sys.executable, "-m", "benchmarks.modern", "record"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert f'RECORD = """\n{done.stdout}"""\n' in page
    assert {f"FLOOR = {run['floor']}" in page for run in log["runs"]} == {True}
    assert log["hardware"].split(",")[0] in page and f"commit {log['commit']}" in page
    assert len(log["runs"]) == 3 * len(log["ms"]) and len({r["dtype"] for r in log["runs"]}) == 1
