"gpt2edu_eval as a user meets it: files, a hub, runs, exported models, ranks, wrong input."

import http.server
import json
import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import warm

from gpt2edu.cli import commands as cli
from gpt2edu.cli.flags import parse
from gpt2edu.data.shards import write_shards
from gpt2edu.evaluate.hellaswag import choice_accuracy
from gpt2edu.evaluate.report import EvalConfig, choose_tasks, evaluate
from gpt2edu.evaluate.tasks import get_items, read_items
from gpt2edu.model import pretrained
from gpt2edu.model.gpt import GPT, GPTConfig
from gpt2edu.text.corpus import stories, story_items
from gpt2edu.text.tokenizer import Tokenizer
from gpt2edu.train.config import TrainConfig

ITEMS = story_items(24, seed=5)


def write(path, items):
    path.write_text("".join(json.dumps(item) + "\n" for item in items), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train((s.text for s in stories(150)), 512, "stories")


@pytest.fixture(scope="module")
def model(tokenizer):
    g = torch.Generator().manual_seed(0)
    model = GPT(GPTConfig(2, 2, 32, 200, tokenizer.n_vocab), g)
    with torch.no_grad():  # weights large enough that the four endings differ
        for p in model.parameters():
            if p.ndim == 2:
                p.normal_(0, 0.2, generator=g)
    return model


@pytest.fixture(scope="module")
def place(tmp_path_factory, tokenizer, model):
    "A folder with items, an exported model and shards of its tokenizer."
    folder = tmp_path_factory.mktemp("eval")
    write(folder / "items.jsonl", ITEMS)
    pretrained.export(model, tokenizer, folder / "exported")
    write_shards(
        (s.text for s in stories(60)), tokenizer, folder / "shards", "stories", val_tokens=2000
    )
    return folder


def test_a_diverged_model_is_no_figure(place, tokenizer, tmp_path, capsys):
    model = GPT(GPTConfig(1, 1, 8, 64, tokenizer.n_vocab))
    with torch.no_grad():
        model.transformer.ln_f.weight.fill_(3e38)  # finite, but its logits are not
    pretrained.export(model, tokenizer, tmp_path / "bad")
    out = tmp_path / "found.json"
    flags = ("--tasks", "val", "--shards", str(place / "shards"), "--out", str(out))
    code, _, err = run_cli(capsys, "--model", str(tmp_path / "bad"), *flags)
    assert code == 2 and "its training diverged; judge an earlier checkpoint" in err
    assert not out.exists()


@pytest.fixture
def there(place, monkeypatch):
    monkeypatch.chdir(place)
    return place


def run_cli(capsys, *args):
    "Exit code, lines of stdout, text of stderr."
    try:
        cli.main(["eval", *args])
        code = 0
    except SystemExit as e:
        code = e.code
    out, err = capsys.readouterr()
    return code, out.splitlines(), err


# figures


def test_an_exported_model_gets_every_figure(there, capsys, model, tokenizer):
    code, lines, err = run_cli(
        capsys, "--model=exported", "--data=items.jsonl", "--tasks=hellaswag,stories,val",
        "--choice_items=10", "--shards=shards", "--val_tokens=1000", "--device=cpu",
        "--out=figures.json",
    )  # fmt: skip
    assert code == 0, err
    found = json.loads(Path("figures.json").read_text(encoding="utf-8"))
    plain = choice_accuracy(model, tokenizer, ITEMS)
    assert found["hellaswag"]["plain"]["acc_norm"] == plain
    assert list(found["hellaswag"]["harness"]) == ["acc", "acc_norm", "acc_bytes"]
    assert found["stories"]["acc_norm"] == choice_accuracy(
        model, tokenizer, story_items(10), [tokenizer.eot]
    )
    assert (
        found["val_tokens"] == 1000
        and 3 < found["val_loss"] < 30
        and found["tasks"] == ["hellaswag", "stories", "val"]
    )
    assert (
        f"{plain['accuracy']:.4f} ± {plain['error']:.4f}   {plain['right']} of 24 right"
        in "\n".join(lines)
    )
    assert [line.split()[:3] for line in lines[1:6]] == [
        ["hellaswag", c, f]
        for c, fs in (("plain", ("acc", "acc_norm")), ("harness", ("acc", "acc_norm", "acc_bytes")))
        for f in fs
    ]


def test_batches_and_limits(there):
    both = [
        evaluate(EvalConfig("exported", data="items.jsonl", device="cpu", limit=9, batch_size=b))
        for b in (1, 5)
    ]
    assert both[0] == both[1] and both[0]["hellaswag"]["plain"]["acc"]["n"] == 9
    assert both[0]["tasks"] == ["hellaswag"]
    one = evaluate(
        EvalConfig("exported", data="items.jsonl", device="cpu", convention="harness", limit=3)
    )
    assert list(one["hellaswag"]) == ["harness"]


def test_a_run_is_judged_as_in_training(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "stories.jsonl", [{"text": s.text} for s in stories(300)])
    small = "--n_layer=1 --n_head=2 --n_embd=32 --block_size=64 --total_batch=512 --micro_batch=8 "
    small += "--vocab_size=400 --device=cpu --dtype=fp32 --compile=off"
    more = "--max_steps=4 --eval_every=4 --val_overlap=0.5 --val_tokens=2048"
    cli.main(["train", "--dataset=stories.jsonl", *small.split(), *more.split()])
    capsys.readouterr()
    events = [
        json.loads(line)
        for line in Path("runs/tiny/log.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    val = [e["loss"] for e in events if e["event"] == "val"][-1]
    found = evaluate(EvalConfig(device="cpu"))  # the latest run, what fits it
    assert found["tasks"] == ["val"] and found["val_loss"] == pytest.approx(val, abs=2e-6)
    assert evaluate(EvalConfig("tiny", device="cpu", val_tokens=640))["val_tokens"] == 640
    code, lines, err = run_cli(
        capsys, "--run", "runs/tiny", "--tasks", "stories", "--choice_items", "12",
        "--device", "cpu",
    )  # fmt: skip
    assert code == 0 and lines[1].startswith("stories   plain") and "of 12 right" in lines[1], err


def test_tasks_that_fit():
    def tasks(run=None, **kw):
        return choose_tasks(EvalConfig(**kw), run)

    tiny = TrainConfig(max_steps=1)
    assert tasks(tiny) == ("stories", "val")
    assert tasks(tiny, data="x.jsonl") == ("hellaswag", "stories", "val")
    assert tasks(TrainConfig(max_steps=1, tokenizer="gpt2", dataset=("pydocs",))) == (
        "hellaswag",
        "val",
    )
    assert tasks() == ("hellaswag",) and tasks(shards="s") == ("hellaswag", "val")
    assert tasks(tasks="stories,hellaswag") == ("hellaswag", "stories")
    with pytest.raises(
        ValueError, match=r"^validation loss needs a text: name a folder of shards with --shards$"
    ):
        tasks(tasks="val")


def test_flags():
    assert (
        parse(EvalConfig, ["--run=a"], "x")
        == parse(EvalConfig, ["--model", "a"], "x")
        == EvalConfig(model="a")
    )
    assert parse(EvalConfig, ["--batch-size", "3", "--val_tokens=7"], "x") == EvalConfig(
        batch_size=3, val_tokens=7
    )


def test_no_torch_until_there_is_work(place):
    code = (
        "import sys, gpt2edu.evaluate.report as e\ne.EvalConfig()\n"
        "try:\n e.evaluate(e.EvalConfig('gpt2', data='no.jsonl'))\n"
    )
    code += "except OSError:\n assert not {'torch', 'datasets'} & set(sys.modules)\n print('quick')"
    done = subprocess.run([sys.executable, "-c", code], cwd=place, capture_output=True, text=True)
    assert done.stdout == "quick\n", done.stderr


# ranks


def under_torchrun(place, n, *args):
    env = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")} | {
        "OMP_NUM_THREADS": "1"
    }
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={n}",
        "-m", "gpt2edu.cli", "eval",
    ]  # fmt: skip
    return warm.run([*command, *args], cwd=place, env=env)


@pytest.mark.parametrize("n", [2, 3])
def test_ranks_report_what_one_process_reports(there, n):
    args = "--model=exported --data=items.jsonl --tasks=hellaswag,stories,val".split()
    args += "--choice_items=20 --shards=shards --val_tokens=1900".split()
    done = under_torchrun(there, n, *args, "--device=cpu", "--batch_size=4", f"--out=ranks{n}.json")
    assert done.returncode == 0, done.stderr
    keys = {k: v for k, v in (a[2:].split("=") for a in args)} | {
        "choice_items": 20,
        "val_tokens": 1900,
    }
    want = evaluate(EvalConfig(**keys, device="cpu", batch_size=4))
    # predictions, counts, errors, loss
    assert json.loads(Path(f"ranks{n}.json").read_text(encoding="utf-8")) == json.loads(
        json.dumps(want)
    )
    lines = done.stdout.splitlines()
    assert (
        f"ranks: {n}" in lines[0]
        and len([line for line in lines if line.startswith("hellaswag plain    acc ")]) == 1
    )


def test_a_mistake_under_torchrun_is_one_line_a_rank(there):
    done = under_torchrun(there, 2, "--model=exported", "--data=nothing.jsonl", "--device=cpu")
    ours = [line for line in done.stderr.splitlines() if line.startswith("gpt2edu_eval")]
    assert done.returncode != 0 and set(ours) <= {
        "gpt2edu_eval: no file nothing.jsonl; expected a .jsonl file with HellaSwag's fields, "
        "or a dataset such as Rowan/hellaswag",
        "gpt2edu_eval: stopped by SIGTERM",  # torchrun ends the other rank
    }
    assert ours and "exitcode  : 2" in done.stderr


# the hub


class Handler(http.server.BaseHTTPRequestHandler):
    "As much of the hub as `datasets` asks for."

    protocol_version = "HTTP/1.1"
    sha = "5b89d1ea9319fe101b3cbdacd89a903aca1d6052"

    def log_message(self, *args):
        pass

    def give(self, status, body=b"", **headers):
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self):
        kind, *parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        if kind == "api":
            _, owner, name, *rest = parts
        else:
            owner, name, *rest = parts
        root = self.server.root / owner / name
        if not root.is_dir():
            return self.give(401, X_Error_Code="RepoNotFound")
        if rest[:1] == ["tree"]:
            found = sorted((root / "/".join(rest[2:])).iterdir())
            kinds = {True: "file", False: "directory"}
            entries = [
                {
                    "type": kinds[p.is_file()],
                    "oid": "0" * 40,
                    "size": p.stat().st_size,
                    "path": str(p.relative_to(root)),
                }
                for p in found
            ]
            return self.give(200, json.dumps(entries).encode())
        if kind == "api":
            siblings = [
                {"rfilename": str(p.relative_to(root))} for p in root.rglob("*") if p.is_file()
            ]
            info = {
                "id": f"{owner}/{name}",
                "sha": self.sha,
                "siblings": siblings,
                "tags": [],
                "private": False,
                "gated": False,
            }
            return self.give(200, json.dumps(info | {"downloads": 0, "likes": 0}).encode())
        file = root / "/".join(rest[2:])
        if not file.is_file():
            return self.give(404, X_Error_Code="EntryNotFound")
        return self.give(
            200, file.read_bytes(), ETag=f'"{abs(hash(file.name)):040x}"', X_Repo_Commit=self.sha
        )

    do_HEAD = do_GET


@contextmanager
def hub(root):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.root = root
    threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
    ).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def publish(root, repo, items):
    "Put items on the hub as Rowan/hellaswag is put there: parquet, named splits."
    (root / repo / "data").mkdir(parents=True)
    pq.write_table(
        pa.Table.from_pylist(items), root / repo / "data/validation-00000-of-00001.parquet"
    )
    split = "configs:\n- config_name: default\n  data_files:\n  - split: validation\n"
    split += "    path: data/validation-*\n"
    (root / repo / "README.md").write_text(f"---\n{split}---\n", encoding="utf-8")


EVALS = """
import json, sys
from gpt2edu.cli import commands as cli
for args in json.loads(sys.argv[1]):
    try:
        cli.main(["eval", "--model=exported", "--device=cpu", *args])
        code = 0
    except SystemExit as e:
        code = e.code
    print("exit code", code, flush=True)
    print("exit code", code, file=sys.stderr, flush=True)
"""


def evals(place, home, endpoint, *runs, **env):
    """Several evaluations in one process whose hub this is.

    For each the exit code, lines of stdout, lines of stderr.
    """
    base = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    base |= {
        "HF_HOME": str(home),
        "HF_ENDPOINT": endpoint,
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "NO_PROXY": "127.0.0.1",
    }
    command = [sys.executable, "-c", EVALS, json.dumps(runs)]
    done = warm.run(command, cwd=place, env=base | env)
    parts = [text.splitlines() for text in (done.stdout, done.stderr)]
    found = []
    for _ in runs:
        ends = [
            next(i for i, line in enumerate(lines) if line.startswith("exit code"))
            for lines in parts
        ]
        found.append((int(parts[0][ends[0]].split()[-1]), parts[0][: ends[0]], parts[1][: ends[1]]))
        parts = [lines[end + 1 :] for lines, end in zip(parts, ends, strict=True)]
    return found


def test_items_from_the_hub_then_from_its_cache(place, tmp_path):
    publish(tmp_path / "hub", "Rowan/hellaswag", ITEMS)
    publish(tmp_path / "hub", "some/broken", [ITEMS[0], ITEMS[1] | {"label": ""}])
    home = tmp_path / "home"
    with hub(tmp_path / "hub") as url:
        first, broken, absent = evals(
            place, home, url, [], ["--data=some/broken"], ["--data=some/absent"]
        )
    # the server is gone
    again, unknown = evals(place, home, url, [], ["--data=some/other"], HF_HUB_OFFLINE="1")
    assert first[0] == again[0] == 0, (first, again)
    figures, cached = ([line.split(";")[0] for line in lines[1:]] for _, lines, _ in (first, again))
    want = evaluate(
        EvalConfig(str(place / "exported"), data=str(place / "items.jsonl"), device="cpu")
    )["hellaswag"]
    assert (
        figures == cached
        and len(figures) == 5
        and f"{want['plain']['acc_norm']['right']} of 24 right" in figures[1]
    )
    message = "some/broken, item 1: got label '', expected 0, 1, 2 or 3; "
    message += "a test split has no labels, use validation"
    assert broken[:2] == (2, []) and broken[2][-1] == f"gpt2edu_eval: {message}"
    for repo, (code, out, err) in (("some/absent", absent), ("some/other", unknown)):
        why = f"{repo}: it is not in the cache, and {url} does not have it or does not answer"
        assert (code, out, len(err)) == (2, [], 1) and err[0].startswith(f"gpt2edu_eval: {why} (")
        assert err[0].endswith(
            "; connect, or give a .jsonl file (eval: --data, train: --hellaswag FILE or None)"
        )


FETCH = """
from gpt2edu.train.ready import fetch_questions
for dataset in ("fineweb-edu", "tinystories"):
    print(dataset, *fetch_questions((dataset,), "gpt2"))
"""


def test_a_preparation_fetches_the_questions_of_its_presets(tmp_path):
    publish(tmp_path / "hub", "Rowan/hellaswag", ITEMS)
    with hub(tmp_path / "hub") as url:
        env = {"HF_HOME": str(tmp_path / "home"), "HF_ENDPOINT": url, "NO_PROXY": "127.0.0.1"}
        done = warm.run([sys.executable, "-c", FETCH], env=os.environ | env)
    assert done.stdout == "fineweb-edu Rowan/hellaswag: 24 items in the cache\ntinystories\n"


@pytest.mark.slow
def test_no_network_and_nobody_said_so(place, tmp_path):
    "The client tries again for half a minute, in silence."
    ((code, _, err),) = evals(place, tmp_path, "http://127.0.0.1:9", [])
    assert code == 2 and len(err) == 1 and "Rowan/hellaswag: it is not in the cache" in err[0]


# what is wrong with the input

BROKEN = {
    "three endings": (
        1,
        ITEMS[1] | {"endings": ["a", "b", "c"]},
        "line 2: got 3 endings, expected 4",
    ),
    "label": (0, ITEMS[0] | {"label": "4"}, "line 1: got label '4', expected 0, 1, 2 or 3"),
    "no ctx_a": (
        2,
        {k: v for k, v in ITEMS[2].items() if k != "ctx_a"},
        "line 3: no ctx_a, got ind, activity_label, ctx_b, ctx,",
    ),
    "a number": (0, 7, "line 1: got int, expected an object with HellaSwag's fields"),
    "surrogate": (
        1,
        ITEMS[1] | {"ctx": "\ud800"},
        "line 2: text has the lone surrogate '\\ud800' at position 0",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_malformed_items_name_file_and_line(there, tmp_path, capsys, name):
    at, item, message = BROKEN[name]
    path = write(tmp_path / "bad.jsonl", [*ITEMS[:at], item, *ITEMS[at + 1 : 4]])
    code, lines, err = run_cli(capsys, "--model=exported", f"--data={path}")
    assert (
        (code, lines) == (2, [])
        and err.startswith(f"gpt2edu_eval: {path}, {message}")
        and err.count("\n") == 1
    )


@pytest.mark.parametrize(
    "content,message",
    [
        (b"", ": holds no items; expected one object with HellaSwag's fields a line"),
        (b"\n \n", ": holds no items; expected one object with HellaSwag's fields a line"),
        (
            json.dumps(ITEMS[0]).encode() + b'\n{"ind": 1, "ctx',
            ", line 2: not JSON (Unterminated string starting at);",
        ),
        (b"[" * 100_000, ", line 1: not JSON (nested too deeply); expected one object a line"),
        (
            b"PAR1\xff\xfe\x00",
            ", line 1: not UTF-8 at byte 4; convert it first",
        ),
        (
            json.dumps(ITEMS[0]).encode() + b"\n\xff",
            f", line 2: not UTF-8 at byte {len(json.dumps(ITEMS[0])) + 1}; convert it first",
        ),
        (json.dumps(ITEMS[0]).encode("utf-16"), ": is UTF-16; convert it to UTF-8 first"),
    ],
)
def test_broken_files(there, tmp_path, capsys, content, message):
    path = tmp_path / "bad.jsonl"
    path.write_bytes(content)
    code, lines, err = run_cli(capsys, "--model=exported", f"--data={path}")
    assert (
        (code, lines) == (2, [])
        and err.startswith(f"gpt2edu_eval: {path}{message}")
        and err.count("\n") == 1
    )


@pytest.mark.parametrize(
    "args,message",
    [
        (
            ["--model=nowhere"],
            "nowhere is not a run: there is no config.json in nowhere/ or runs/nowhere/",
        ),
        ([], "there is no run in runs/ yet; make one with: gpt2edu_train"),
        (
            ["--data=no.jsonl"],
            "no file no.jsonl; expected a .jsonl file with HellaSwag's fields, "
            "or a dataset such as Rowan/hellaswag",
        ),
        (
            ["--data=shards"],
            "no file shards; expected a .jsonl file with HellaSwag's fields, "
            "or a dataset such as Rowan/hellaswag",
        ),
        (["--tasks=val"], "validation loss needs a text: name a folder of shards with --shards"),
        (
            ["--tasks=val", "--shards=no"],
            "no folder no; expected shards, as gpt2edu_prepare writes them",
        ),
        (
            ["--tasks=math"],
            "unknown task 'math'; expected auto, or some of hellaswag,stories,questions,val "
            "with commas between; see",
        ),
        (
            ["--convention=llm.c"],
            "convention='llm.c' is not known; use plain, harness or both; see gpt2edu_eval",
        ),
        (["--limit=0"], "limit=0 must be 1 or more; see gpt2edu_eval --help"),
        (["--batch_size=-1"], "batch_size=-1 must be 1 or more; see gpt2edu_eval --help"),
        (["--out=no/figures.json"], "no folder for no/figures.json; make it first"),
        (["--frobnicate"], "Unrecognized"),
    ],
)
def test_wrong_flags_are_one_line(there, capsys, args, message):
    if args and "model" not in args[0]:
        args = ["--model=exported", "--data=items.jsonl", *args]
    code, lines, err = run_cli(capsys, *args)
    lines = [line for line in lines if not line.startswith("model:")]
    assert (
        (code, lines) == (2, [])
        and err.startswith("gpt2edu_eval: ")
        and message in err
        and err.count("\n") == 1
    )


def test_shards_of_another_tokenizer(there, tmp_path, capsys):
    other = Tokenizer.train((s.text for s in stories(20)), 300, "other")
    write_shards(
        (s.text for s in stories(20)), other, tmp_path / "shards", "stories", val_tokens=500
    )
    code, _, err = run_cli(
        capsys, "--model=exported", "--tasks=val", f"--shards={tmp_path / 'shards'}", "--device=cpu"
    )
    assert code == 2 and "shards of another tokenizer, got other" in err and err.count("\n") == 1


def test_items_are_read_no_further_than_asked(there, tmp_path):
    path = write(tmp_path / "items.jsonl", [*ITEMS[:3], {"bad": 1}])
    assert (
        read_items(path, ("plain", "harness"), limit=3)
        == ITEMS[:3]
        == get_items(str(path), limit=3)
    )
