"""State that is read back: every key of every file altered, and each time one line.

What is read is what a run, a preparation, an export and a hub have just written; so the tests also
notice when a key is added and its type forgotten. An alteration that is not refused must change
nothing, or be another value of the same kind where any is right.
"""

import contextlib
import copy
import hashlib
import http.server
import io
import json
import os
import random
import re
import shutil
import sys
import threading
from pathlib import Path

import pytest
import safetensors.torch
import torch
import warm

from gpt2edu.cli import commands
from gpt2edu.data.prepare import PrepareConfig, prepare
from gpt2edu.data.shards import open_shards
from gpt2edu.machine.state import loads
from gpt2edu.model import lora
from gpt2edu.model.gpt import GPT, GPTConfig
from gpt2edu.model.pretrained import export, from_pretrained
from gpt2edu.text.questions import read_questions
from gpt2edu.text.tokenizer import Tokenizer, get_tokenizer
from gpt2edu.train import checkpoint
from gpt2edu.train.log import RunLog, plot_loss
from gpt2edu.train.runs import load_run, read_config
from gpt2edu.train.trainer import Trainer

OLD = Path(__file__).parent / "old"
RUN = Path("runs/new")
SMALL = """--dataset stories.txt --vocab_size 300 --n_layer 1 --n_head 2 --n_embd 16 --block_size 32
--total_batch 256 --micro_batch 8 --warmup_steps 2 --max_steps 4 --eval_every 2 --save_every 4
--val_tokens 2048 --choice_items 0 --dtype fp32 --device cpu --compile off --name new""".split()
PREPARE = {"dataset": ("stories.txt",), "tokenizer": "train", "vocab_size": 300, "num_proc": 1}
PREPARE |= {"shard_size": 20_000}
LLAMA = {"position": "rope", "norm": "rms", "mlp": "swiglu", "bias": False, "n_kv_head": 1}
FIRST = '{"question": "Who?", "answer": "Mia."}'
QUESTION = {"question": "Who?", "answer": "Mia.", "story": "Mia slept.", "kind": "sleep"}
SCALER = {"scale": 65536.0, "growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 2000}
SCALER |= {"_growth_tracker": 3}
ANSWER = {
    "id": "a/b",
    "sha": "5b89d1ea9319fe101b3cbdacd89a903aca1d6052",
    "siblings": [{"rfilename": "README.md", "size": 7}, {"rfilename": "d/0.parquet", "size": 9000}],
    "cardData": {
        "configs": [
            {"config_name": "all", "default": True, "data_dir": "d", "data_files": "*.parquet"},
            {"config_name": "few", "data_files": [{"split": "train", "path": ["d/0.parquet"]}]},
        ],
        "license": "mit",
    },
}

# what each value becomes; a text of JSON as it is
RAW = {
    "null": "null",
    "true": "true",
    "zero": "0",
    "minus": "-1",
    "part": "1.5",
    "18 digits": "1" + "0" * 18,
    "10^30": "1" + "0" * 30,
    "10^400": "1" + "0" * 400,
    "5000 digits": "9" * 5000,
    "1e400": "1e400",
    "NaN": "NaN",
    "Infinity": "Infinity",
    "-Infinity": "-Infinity",
    "empty": '""',
    "text": '"x"',
    "control": '"\\u001b[2J\\n"',
    "zero byte": '"a\\u0000b"',
    "surrogate": '"\\ud800"',
    "list": "[]",
    "nested": "[[[1]]]",
    "object": "{}",
    "another": '{"a": 1}',
    "deep": "[" * 100_000 + "]" * 100_000,
    "deep object": '{"a":' * 900 + "1" + "}" * 900,
    "long": '"' + "y" * 100_000 + '"',
}
ALTERATIONS = ["absent", "extra", "twice", "as a float", *RAW]


def keys(value, path=()):
    "Every place in a file, by the keys that lead there; of long lists and objects the ends."
    if path:
        yield path
    if isinstance(value, dict):
        names = list(value)
        for k in names if len(names) < 60 else (*names[:2], *names[-2:]):
            yield from keys(value[k], (*path, k))
    elif isinstance(value, list) and value:
        for i in sorted({0, len(value) - 1}):
            yield from keys(value[i], (*path, i))


def at(content, path):
    for k in path:
        content = content[k]
    return content


def altered(content, path, how: str, indent=1) -> str:
    "The file's text with one place altered."
    content = copy.deepcopy(content)
    where, last = at(content, path[:-1]), path[-1]
    raw = RAW.get(how)
    if how == "absent":
        del where[last]
    elif how in ("extra", "twice") and isinstance(where, list):
        where.insert(0, {"surplus": 1} if how == "extra" else where[last])
    elif how == "extra":
        where["surplus"] = 1
    else:
        old = where[last]
        where[last] = "@@here@@"
        if how == "twice":
            raw = f"{json.dumps(old)}, {json.dumps(last)}: {json.dumps(old)}"
        elif how == "as a float":  # 3 becomes 3.0, and 0.5 the same number in other letters
            raw = f"{float(old):.17e}" if type(old) in (int, float) else json.dumps([old])
    return json.dumps(content, indent=indent).replace('"@@here@@"', raw or "")


# the places: one run, shards, an export, and what a hub answers


class Place:
    "Everything that is read back, as it was written."

    def __init__(self, root: Path):
        self.root = root
        self.step = root / RUN / "checkpoints/step_00000004"
        self.shards = next((root / "data").glob("*/manifest.json")).parent
        self.config = read_config(RUN)
        self.trainer = Trainer(self.config, RUN, resume=True)
        self.trainer.close()  # so that a test may make another
        self.answer = json.dumps(ANSWER)
        place = self

        class Hub(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                body = place.answer.encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def reseal(self, name: str | None = None, text: str | None = None):
        "Seal state.json again: with another hash of a file, or around another text."
        file = self.step / checkpoint.STATE
        content = {} if text else checkpoint.unseal(file.read_bytes())
        if name:
            raw = (self.step / name).read_bytes()
            sha = hashlib.sha256(raw).hexdigest()
            content["files"][name] = {"bytes": len(raw), "sha256": sha}
        body = (text or json.dumps(content, indent=1)).encode()
        seal = hashlib.sha256(body).hexdigest()
        file.write_bytes(body[:-2] + f',\n "sha256": "{seal}"\n}}\n'.encode())

    def weights(self, model):
        return {k: v.clone() for k, v in model.state_dict().items()}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("state")
    here = os.getcwd()
    os.chdir(root)
    try:
        shutil.copy(OLD / "stories.txt", root)
        with contextlib.redirect_stdout(io.StringIO()):
            commands.train(SMALL)
            commands.export(["--run", str(RUN), "--out", "export"])
        model, tokenizer = from_pretrained("export")
        draw = torch.Generator().manual_seed(0)
        lora.add_lora(model, 2, 4.0, ("c_attn", "mlp.c_proj"), draw)
        lora.save_adapter(model, "adapter", "export", tokenizer.n_vocab)
        export(GPT(GPTConfig(1, 2, 16, 32, tokenizer.n_vocab, **LLAMA), draw), tokenizer, "llama")
        Path("own.jsonl").write_text(f"{FIRST}\n{json.dumps(QUESTION)}", encoding="utf-8")
        prepare(PrepareConfig(**PREPARE, out="half"))
        whole = json.loads(Path("half/manifest.json").read_bytes())
        begun = {k: v for k, v in whole.items() if k not in ("totals", "complete")}
        shutil.copytree("half", "whole")
        Path("half/manifest.json").unlink()
        Path("half/manifest.unfinished").write_text(json.dumps(begun), encoding="utf-8")
        state = RUN / "checkpoints/step_00000004/state.json"
        content = checkpoint.unseal(state.read_bytes())
        content["state"]["scaler"] = SCALER  # as under fp16
        state.write_bytes(checkpoint.sealed(content))
        made = Place(root)
        yield made
        made.server.shutdown()
        made.server.server_close()
    finally:
        os.chdir(here)


# one class for each kind of state: its content, how it is written, and the real reader


class State:
    file: Path  # what messages name
    free = ()  # keys of which any value of the same kind is right
    names = True  # whether a message names the file, or the folder for several of its files
    also = ()  # what else a message may name, because several keys speak of it

    def __init__(self, place):
        self.place = place

    def content(self):
        return json.loads(Path(self.file).read_bytes())

    def put(self, text: str):
        Path(self.file).write_text(text, encoding="utf-8")

    def read(self):  # what the reader makes of it; all that matters, and nothing else
        raise NotImplementedError


class Config(State):
    file = RUN / "config.json"
    free = ("any",)  # of a value of the same kind: checked by the types of the flags
    also = ("no tokenizer at", "is above", "yyyy")  # a file that it names; two rates

    def read(self):
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = commands.train(["--resume", "new", "--dry_run"])
            except SystemExit as e:
                code = e.code
        if code:
            assert code == 2
            raise ValueError(err.getvalue().rstrip("\n").split("\n")[-1])
        return out.getvalue()


class RunState(State):
    free = ("seconds", "val_loss", "best", "judged", "source")
    also = ("model.safetensors", "optim.safetensors", "was trained on other data")

    def __init__(self, place):
        super().__init__(place)
        self.file = place.step / checkpoint.STATE

    def content(self):
        return checkpoint.unseal(self.file.read_bytes())

    def put(self, text):
        self.place.reseal(text=text)

    def read(self):
        model, tokenizer = load_run(RUN)
        t = self.place.trainer
        t.restore()
        numbers = (t.step, t.position, t.loader.position, t.seconds, t.val_loss, t.best, t.judged)
        return self.place.weights(model), tokenizer.hash, numbers


class Optim(State):
    free = ("lr", "peak_lr", "momentum", "fused", "foreach", "capturable")
    also = ("optim: ", "optim is", "the name of a tensor")  # the whole

    def __init__(self, place):
        super().__init__(place)
        self.file = place.step / checkpoint.OPTIM
        raw = self.file.read_bytes()
        self.tensors = safetensors.torch.load(raw)
        header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
        self.text = header["__metadata__"]["optim"]

    def content(self):
        return json.loads(self.text)

    def put(self, text):
        self.file.write_bytes(b"".join(checkpoint.pack(self.tensors, {"optim": text})))
        self.place.reseal(checkpoint.OPTIM)

    def read(self):
        self.place.trainer.restore()
        found = [o.state_dict() for o in self.place.trainer.optimizers]
        return [(s["state"], [g["params"] for g in s["param_groups"]]) for s in found]


class Manifest(State):
    file = Path("whole/manifest.json")
    also = ("holds other shards, of ", "no such shard")

    def read(self):
        opened = [open_shards("whole", split) for split in ("train", "val")]
        prepare(PrepareConfig(**PREPARE, out="whole"))  # is done, and says so
        return [(s.sha256, len(s)) for s in opened]


class Unfinished(State):
    file = Path("half/manifest.unfinished")
    free = ("documents", "bytes", "units", "end", "max_tokens")
    also = ("holds other shards, of ",)

    def read(self):
        said = []
        prepare(PrepareConfig(**PREPARE, out="half", dry_run=True), said.append)
        return said


class Ours(State):
    free = ("name",)
    also = ("hash is", "special_tokens is")  # what the rest decides

    def __init__(self, place):
        super().__init__(place)
        self.file = RUN / "tokenizer.json"

    def read(self):
        found = Tokenizer.load(RUN)
        return found.hash, found.merges, found.name


class TheirTokenizer(State):
    file = Path("export/tokenizer.json")
    also = ("added token=", "add_prefix_space=", "bytes is", "the id of", "format is missing")

    def read(self):
        return get_tokenizer(self.file).hash


class TheirSettings(TheirTokenizer):
    file = Path("export/tokenizer_config.json")

    def read(self):
        return get_tokenizer("export").hash


class TheirConfig(State):
    file = Path("export/config.json")
    also = ("by config.json", "by its tokenizer", "ln_1.weight is missing")

    def read(self):
        model, tokenizer = from_pretrained("export")
        return self.place.weights(model), model.config, tokenizer.hash


class TheirLlama(TheirConfig):
    file = Path("llama/config.json")
    free = ("max_position_embeddings",)  # it has no table of positions
    also = (*TheirConfig.also, "n_head", "n_kv_head", "intermediate_size", "layers, expected")
    also = (
        *also,
        "head_dim=",
        "mlp_bias=",
        "of a GPT-2 again",
    )  # as which any other type of model is read

    def read(self):
        model, tokenizer = from_pretrained("llama")
        return self.place.weights(model), model.config, tokenizer.hash


class Adapter(State):
    file = Path("adapter/adapter_config.json")
    free = ("lora_alpha", "base_model_name_or_path")
    also = ("is an adapter for another model",)

    def read(self):
        model, _ = from_pretrained("export")
        lora.load_adapter(model, "adapter")
        scales = [layer.scale for layer in lora.lora_layers(model).values()]
        return self.place.weights(model), scales


class AdapterHeader(Adapter):
    "What the file of the matrices says about the base model."

    file = Path("adapter/adapter_model.safetensors")
    free = ()
    also = ("is an adapter for another model", "is not a whole safetensors file")

    def __init__(self, place):
        super().__init__(place)
        raw = Path(self.file).read_bytes()
        n = int.from_bytes(raw[:8], "little")
        self.header, self.data = json.loads(raw[8 : 8 + n]), raw[8 + n :]

    def content(self):
        return self.header["__metadata__"]

    def put(self, text):
        header = json.dumps(self.header | {"__metadata__": "@@"}).replace('"@@"', text).encode()
        Path(self.file).write_bytes(len(header).to_bytes(8, "little") + header + self.data)


class OwnQuestion(State):
    file = Path("own.jsonl")
    free = ("question", "answer", "story", "kind")

    def content(self):
        return json.loads(Path(self.file).read_bytes().splitlines()[1])

    def put(self, text):
        Path(self.file).write_text(f"{FIRST}\n" + text.replace("\n", ""), encoding="utf-8")

    def read(self):
        return read_questions(self.file)


class Answer(State):
    free = ("size", "config_name", "sha", "configs")  # another card is as good
    also = ("a/b has no", "a/b, config", "no parquet file")
    names = False  # the address stands for it

    def content(self):
        return json.loads(self.place.answer)

    def put(self, text):
        self.place.answer = text

    def read(self):
        from huggingface_hub import constants

        from gpt2edu.data.hub import list_files

        constants.ENDPOINT = f"http://127.0.0.1:{self.place.server.server_port}"
        constants.HF_HUB_OFFLINE = False
        return [list_files("a/b", name) for name in (None, "few")]


STATES = {
    "config.json": Config,
    "state.json": RunState,
    "optim.safetensors": Optim,
    "manifest.json": Manifest,
    "manifest.unfinished": Unfinished,
    "tokenizer.json": Ours,
    "their tokenizer.json": TheirTokenizer,
    "their tokenizer_config.json": TheirSettings,
    "their config.json": TheirConfig,
    "their Llama's config.json": TheirLlama,
    "adapter_config.json": Adapter,
    "adapter_model.safetensors": AdapterHeader,
    "own.jsonl": OwnQuestion,
    "answer": Answer,
}


@pytest.fixture
def state(place, request, monkeypatch):
    "A kind of state; whatever a test does to it is undone."
    from huggingface_hub import constants

    for name in ("ENDPOINT", "HF_HUB_OFFLINE"):
        monkeypatch.setattr(constants, name, getattr(constants, name))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.chdir(place.root)
    root = place.root
    files = {p: p.read_bytes() for p in root.rglob("*.json*") if p.is_file()}
    others = (root / Unfinished.file, root / AdapterHeader.file)
    files |= {p: p.read_bytes() for p in (*place.step.iterdir(), *others)}
    yield STATES[request.param](place)
    place.answer = json.dumps(ANSWER)
    for path, raw in files.items():
        path.write_bytes(raw)


def equal(a, b) -> bool:
    "Whether two results are the same, to the bit."
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b or (a != a and b != b)


def same_kind(how: str, old) -> bool:
    "Whether the altered value is one of the same kind: 3 for 4, or 3 for 4.5."
    if how in ("extra", "twice"):
        return isinstance(old, list)
    try:
        new = json.loads(RAW[how])
    except (ValueError, RecursionError, KeyError):
        return how in ("as a float", "absent")
    kinds = (type(old), type(new))
    return kinds[0] is kinds[1] or kinds == (float, int) or old is None


def check_line(state, path, how, message: str, where: str):
    "One line that names file, key, what it got and what it expected."
    if not isinstance(state, Config) or how not in ("control", "long"):  # it names a file
        assert len(message) < 700 and message.isprintable(), (where, message)
    assert "\n" not in message, where
    if state.names:
        file = Path(state.file)
        called = (file.name, f"{file.parent.name} has ", f"{file.parent.name}: ", *state.also)
        assert any(name in message for name in called), (where, message)
    try:
        loads(altered(state.content_then, path, how))
    except ValueError as e:  # the whole is not JSON, which has no keys
        if str(e)[:30] in message or "not JSON" in message:
            return
    named = [str(k) for k in path if isinstance(k, str)] + ["surplus"] * (how == "extra")
    assert any(k[:20] in message for k in (*named, *state.also)), (where, message)
    said = "expected|missing|does not belong|altered|must|has no|not supported|was | not |above"
    said += "|no parquet|no such|too long"
    assert re.search(said, message), (where, message)


def run_trial(state, content, usual, path, how) -> bool:  # whether it was refused
    where = f"{state.file if state.names else 'answer'} {'.'.join(map(str, path))} {how}"
    old = at(content, path)
    state.content_then = content
    state.put(altered(content, path, how))
    try:
        found = state.read()
    except (ValueError, OSError) as e:
        assert isinstance(e, ValueError | FileNotFoundError), where
        check_line(state, path, how, str(e), where)
        return True
    except Exception as e:
        raise AssertionError(f"{where}: {type(e).__name__}: {e}") from e
    free = "any" in state.free or any(k in state.free for k in path)
    assert equal(found, usual) or (free and same_kind(how, old)), f"{where}: not refused"
    return False


def trials(content) -> list[tuple[tuple, str]]:
    "All alterations of a file."
    return [(path, how) for path in keys(content) for how in ALTERATIONS]


def fuzz(state, chosen) -> tuple[int, int]:  # tried, refused
    content = state.content()
    usual = copy.deepcopy(state.read())
    refused = sum(run_trial(state, content, usual, *trial) for trial in chosen(trials(content)))
    state.put(json.dumps(content, indent=1))
    assert equal(state.read(), usual)  # otherwise all refusals were of something else
    return len(chosen(trials(content))), refused


@pytest.mark.parametrize("state", STATES, indirect=True)
def test_an_altered_state_is_one_line(state):
    "A sample of each; all of them in the slow test."
    seed = type(state).__name__
    tried, refused = fuzz(state, lambda every: random.Random(seed).sample(every, 14))
    assert refused >= tried // 3


@pytest.mark.slow
@pytest.mark.parametrize("state", STATES, indirect=True)
def test_every_alteration_of_every_key_is_one_line(state):
    tried, refused = fuzz(state, lambda every: every)
    assert refused >= tried // 2


def test_there_are_at_least_20_alterations_of_each_key(place, monkeypatch):
    monkeypatch.chdir(place.root)
    counts = {name: len(trials(kind(place).content())) for name, kind in STATES.items()}
    assert len(ALTERATIONS) >= 20 and sum(counts.values()) >= 1500, counts
    assert min(counts.values()) >= 100, counts


ENCODINGS = {
    "UTF-16": ('{"a": 1}'.encode("utf-16"), "not UTF-8 at byte 0|codec can't decode"),
    "latin": (b'{"a": "\xe9"}', "not UTF-8 at byte 7|codec can't decode"),
    "empty": (b"", "not JSON|not a manifest"),
    "cut": (b'{"a": 1', "not JSON|not a manifest"),
    "no object": (b"[]", r"the whole is \[\], expected an object"),
    "zeros": (bytes(100), "not JSON|not a manifest"),
}
SEALED = ("state.json", "optim.safetensors", "adapter_model.safetensors")
FILES = [name for name in STATES if name not in (*SEALED, "answer", "own.jsonl")]


@pytest.mark.parametrize("how", ENCODINGS)
@pytest.mark.parametrize("state", FILES, indirect=True)
def test_a_file_that_is_no_json_is_one_line(state, how):
    if isinstance(state, Unfinished) and how == "empty":
        return  # as `claim_folder` makes it
    raw, said = ENCODINGS[how]
    Path(state.file).write_bytes(raw)
    with pytest.raises(ValueError) as e:
        state.read()
    message = str(e.value)
    if isinstance(state, TheirTokenizer | Ours) and "the whole" in said:
        said = "the whole|is missing"
    assert re.search(said, message) and Path(state.file).name in message, message
    assert "\n" not in message


# tensors


def wrong_tensors(tensors: dict, name: str) -> dict[str, dict]:
    "Every way in which tensors can be those of another model."
    t = tensors[name]
    fewer = {k: v for k, v in tensors.items() if k != name}
    return {
        "missing": fewer,
        "extra": tensors | {f"{name}x": t},
        "renamed": fewer | {"99.0.x": t},
        "shape": tensors | {name: t.reshape(-1).repeat(2)},
        "transposed": tensors | {name: t.reshape(t.shape[::-1]) if t.ndim > 1 else t[None]},
        "scalar": tensors | {name: torch.tensor(1.0)},
        "integers": tensors | {name: t.to(torch.int64)},
        "half": tensors | {name: t.to(torch.float16)},
        "double": tensors | {name: t.double()},
        "empty": tensors | {name: t[:0]},
        "none": {},
    }


def refused(act, *names: str):
    with pytest.raises(ValueError) as e:
        act()
    message = str(e.value)
    assert message.isprintable() and len(message) < 600, message
    assert all(name in message for name in names), message


@pytest.mark.parametrize("state", ["state.json"], indirect=True)
@pytest.mark.parametrize("file", [checkpoint.MODEL, checkpoint.OPTIM])
def test_sealed_tensors_of_another_model_are_one_line(state, file):
    path = state.place.step / file
    raw = path.read_bytes()
    tensors = safetensors.torch.load(raw)
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    tried = 0
    for name in [k for k in tensors if tensors[k].ndim]:
        tries = wrong_tensors(tensors, name)
        if file == checkpoint.OPTIM:
            del tries["none"]  # under fp16 it may be that no step was taken yet
        for wrong in tries.values():
            if wrong.keys() == tensors.keys() and wrong[name].shape == tensors[name].shape:
                if wrong[name].dtype == tensors[name].dtype:
                    continue  # a square matrix, transposed
            path.write_bytes(b"".join(checkpoint.pack(wrong, header.get("__metadata__"))))
            state.place.reseal(file)
            refused(state.place.trainer.restore, file)
            if file == checkpoint.MODEL:
                refused(lambda: load_run(RUN), file)
            tried += 1
    assert tried > 90


@pytest.mark.parametrize("state", ["state.json"], indirect=True)
@pytest.mark.parametrize("file", [checkpoint.MODEL, checkpoint.OPTIM])
def test_a_sealed_header_that_lies_is_one_line(state, file):
    path = state.place.step / file
    raw = path.read_bytes()
    n = int.from_bytes(raw[:8], "little")
    head = raw[8 : 8 + n]
    lies = [b"", raw[:4], raw[: n // 2], raw[:-1], raw + b"x", (2**63).to_bytes(8, "little") + head]
    lies += [n.to_bytes(8, "little") + b"[" * n + raw[8 + n :], bytes(8) + head]
    for old, new in ((b"F32", b"F4"), (b"F32", b"I64"), (b"F32", b"X"), (b"[0,", b"[9,")):
        text = head.replace(old, new, 1)
        lies.append(len(text).to_bytes(8, "little") + text + raw[8 + n :])
    for lie in lies:
        path.write_bytes(lie)
        state.place.reseal(file)
        refused(state.place.trainer.restore, file, "safetensors")
    no_text = b"".join(checkpoint.pack(safetensors.torch.load(raw)))
    path.write_bytes(no_text)
    state.place.reseal(file)
    if file == checkpoint.OPTIM:
        refused(state.place.trainer.restore, file, "optim is missing")


def test_an_exported_file_of_other_types_is_one_line(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(place.root / "export", "export")
    tensors = safetensors.torch.load_file("export/model.safetensors")
    name = "transformer.h.0.mlp.c_fc.weight"
    wrong = wrong_tensors(tensors, name)
    fit = {"half", "double"}  # widened or narrowed to fp32, as the hub's files are
    for how, content in wrong.items():
        safetensors.torch.save_file(
            {k: v.contiguous().clone() for k, v in content.items()}, "export/model.safetensors"
        )
        if how in fit:
            from_pretrained("export")
        else:
            refused(lambda: from_pretrained("export"), "model.safetensors")


# names


@pytest.mark.parametrize("state", ["state.json"], indirect=True)
@pytest.mark.parametrize(
    "name", ["step_²", "step_١", "step_-1", "step_1e3", "step_", ".old-step_²"]
)
def test_a_folder_of_another_name_is_no_checkpoint(state, name):
    folder = state.place.step.parent
    shutil.copytree(state.place.step, folder / name)
    try:
        assert checkpoint.latest(folder) == state.place.step
        state.place.trainer.restore()
        checkpoint.save(folder, {}, [], {"step": 2}, keep_last=1)
        assert (folder / name).is_dir()  # it is not ours to delete
        state.place.step.rename(folder / "hidden")
        shutil.rmtree(folder / "step_00000002")
        with pytest.raises(FileNotFoundError, match="has no checkpoint yet"):
            load_run(RUN)
    finally:
        shutil.rmtree(folder / name)
        if (folder / "hidden").exists():
            (folder / "hidden").rename(state.place.step)
        shutil.rmtree(folder / "step_00000002", ignore_errors=True)


# the log


def damaged(lines: list[str]):
    "Every line of a log with each of its values altered."
    for i, line in enumerate(lines):
        event = json.loads(line)
        event.pop("config", None)  # it is never read
        for path, how in trials(event):
            yield i, path, how, altered(event, path, how, indent=None)


def check_log(place, tmp_path, chosen) -> int:
    lines = (place.root / RUN / "log.jsonl").read_text(encoding="utf-8").splitlines()
    file = tmp_path / "log.jsonl"
    tried = chosen(list(damaged(lines)))
    for n, (i, path, how, text) in enumerate(tried):
        file.write_text("\n".join([*lines[:i], text, *lines[i + 1 :]]) + "\n", encoding="utf-8")
        log = RunLog(file)
        whole = [json.loads(line) for line in lines]
        found = log.read()
        others = [e for j, e in enumerate(whole) if j != i]
        assert [e for e in found if e in others] == others, (i, path, how)
        assert len(found) in (len(whole), len(whole) - 1)
        for event in ("train", "val"):
            steps, losses = log.curve(event, "loss")
            assert all(isinstance(x, (int, float)) for x in [*steps, *losses]), (i, path, how)
        if n % 50 == 0:
            plot_loss(log, tmp_path / "loss.png")
    return len(tried)


def test_a_line_of_the_log_that_does_not_fit_is_passed_over(place, tmp_path):
    check_log(place, tmp_path, lambda every: random.Random(1).sample(every, 60))


@pytest.mark.slow
def test_every_line_of_the_log_altered_is_passed_over(place, tmp_path):
    assert check_log(place, tmp_path, lambda every: every) > 500


@pytest.mark.parametrize("state", ["state.json"], indirect=True)
def test_no_line_of_the_log_ends_a_finished_training(state):
    file = RUN / "log.jsonl"
    odd = ["[" * 100_000, "{", "[]", '{"event": "val"}', '{"event": "val", "step": "x"}', "\0"]
    odd += ['{"event": "val", "step": 4, "loss": "x", "hellaswag": {}}', "9" * 5000, "null"]
    odd += ['{"event": "train", "step": 1e400, "loss": 1}', '{"event": 3, "step": 4}', '"\\ud800"']
    odd += ['{"event": "val", "step": 4, "loss": null}', '{"event": "train", "step": 3.5}']
    file.write_bytes(file.read_bytes() + b"\xff\xfe\n" + "\n".join(odd).encode() + b'\n{"event":')
    trainer = Trainer(state.place.config, RUN, resume=True)
    done = trainer.run()
    assert done["val_loss"] == trainer.val_loss and (RUN / "loss.png").stat().st_size > 1000
    assert trainer.log.read()[-1]["event"] == "done"


# the same through the doors that users take


@pytest.mark.parametrize("state", ["state.json"], indirect=True)
def test_a_trainer_reads_no_state_before_it_is_checked(state):
    "What the data are is asked of the state before its weights are loaded."
    content = state.content()
    for path, how in (
        [("state", "config"), "list"],
        [("state", "config", "data"), "object"],
        [("state", "data"), "text"],
        [("state", "data", "source"), "list"],
        [("state", "data", "train"), "null"],
        [("state", "data", "train", 0), "null"],
        [("state",), "null"],
    ):
        state.put(altered(content, path, how))
        refused(lambda: Trainer(state.place.config, RUN, resume=True), "state.json", path[-1] or "")


@pytest.mark.parametrize(
    "name,line,key",
    [
        ("state.json", "generate --run new", "state.config.n_layer"),
        ("state.json", "train --resume new", "state.config.n_layer"),
        ("config.json", "train --resume new", "n_layer"),
        ("manifest.unfinished", "prepare --dataset stories.txt --out half", "tokenizer.n_vocab"),
        ("their config.json", "generate --run export", "n_layer"),
        ("tokenizer.json", "generate --run new", "hash"),
    ],
)
def test_a_command_says_it_in_one_line(place, tmp_path, name, line, key):
    for part in ("runs", "data", "half", "export"):
        shutil.copytree(place.root / part, tmp_path / part)
    shutil.copy(OLD / "stories.txt", tmp_path)
    here = os.getcwd()
    os.chdir(tmp_path)
    try:
        state = STATES[name](place)
        state.file = (
            tmp_path / Path(state.file).relative_to(place.root)
            if Path(state.file).is_absolute()
            else state.file
        )
        content = state.content()
        text = altered(content, tuple(key.split(".")), "nested")
        if name == "state.json":
            body = text.encode()
            seal = hashlib.sha256(body).hexdigest()
            state.file.write_bytes(body[:-2] + f',\n "sha256": "{seal}"\n}}\n'.encode())
        else:
            state.put(text)
        command = [sys.executable, "-m", "gpt2edu.cli", *line.split()]
        done = warm.run(command)
    finally:
        os.chdir(here)
    last = done.stderr.splitlines()
    assert done.returncode == 2 and len(last) == 1, done.stderr
    assert Path(state.file).name in last[0] and key in last[0] and "expected" in last[0]
