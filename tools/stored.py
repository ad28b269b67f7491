"""Store the weights of a finished run as a model that the package brings, rounded to fp16.

    gpt2edu_train && python tools/stored.py runs/tiny

It writes gpt2edu/stored/<name of the run>: what transformers needs to open it, and run.json, which
says where the weights come from.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

from gpt2edu.model.pretrained import export
from gpt2edu.train.log import RunLog
from gpt2edu.train.runs import load_run

ROOT = Path(__file__).resolve().parent.parent
REST = ("vocab.json", "merges.txt")  # tokenizer.json says the same


def main(run: Path):
    model, tokenizer = load_run(run)[:2]
    folder = ROOT / "gpt2edu" / "stored" / run.name
    shutil.rmtree(folder, ignore_errors=True)
    export(model.half(), tokenizer, folder)
    for name in REST:
        (folder / name).unlink()
    events = RunLog(run / "log.jsonl").read()
    git = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=ROOT)
    about = {k: events[0][k] for k in ("hardware", "dtype", "max_steps")}
    about |= {k: events[0]["config"][k] for k in ("preset", "seed")}
    about |= {"commit": git.stdout.strip(), "done": events[-1]}
    (folder / "run.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
