"""Weights in and out are exact.

Transformers opens what we write, gives our logits, ids, texts; the hub is HTTP.
"""

import hashlib
import json
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
import transformers
import warm
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import gpt2edu
from gpt2edu.data.cache import prepare_data
from gpt2edu.data.config import DataConfig
from gpt2edu.data.shards import open_shards
from gpt2edu.evaluate.validation import validation_loss
from gpt2edu.model.generate import generate
from gpt2edu.model.gpt import GPT, GPTConfig
from gpt2edu.model.pretrained import (
    HUB,
    compare,
    export,
    from_pretrained,
    push,
    record,
    resize_vocab,
)
from gpt2edu.text.corpus import stories
from gpt2edu.text.tokenizer import EOT, Tokenizer, get_tokenizer

transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
COMMIT = "607a30d783dfa663caf39e06633721c8d4cfcd7e"
TEXTS = [
    "",
    " ",
    "Mia gave Tom the red ball.  Then she went home.",
    "it's, don't, WE'LL, 12345 67 8",
    "\n\n\t tabs \r\n and   runs   \n ",
    "né ☃ 👩‍🚀 字 العربية \u2003\x00\x1c",
    "def f(x):\n    return x**2  # <|notspecial|>",
    "a" * 300 + " " * 50,
]


def gen(seed):
    return torch.Generator().manual_seed(seed)


def random_gpt(n_vocab, block_size=96, seed=0):
    "A GPT whose text depends on the prompt: larger weights than GPT-2's, random gains and biases."
    model, g = GPT(GPTConfig(2, 4, 32, block_size, n_vocab)), gen(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.normal_(0, 0.3 if p.ndim == 2 else 0.1, generator=g).add_(
                "ln_" in name and "weight" in name
            )
    return model


@pytest.fixture(scope="module")
def trained():
    return Tokenizer.train([s.text for s in stories(300)], 700, "stories")


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    "A folder as transformers writes it: random GPT-2, tokenizer of GPT-2."
    folder = tmp_path_factory.mktemp("theirs")
    export(random_gpt(50257), get_tokenizer("gpt2"), folder)
    out = tmp_path_factory.mktemp("saved")
    hf = transformers.GPT2LMHeadModel.from_pretrained(folder)
    hf.save_pretrained(out)
    transformers.AutoTokenizer.from_pretrained(folder).save_pretrained(out)
    return out


def same_weights(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


# in and out


def test_there_and_back_is_bit_identical(trained, tmp_path):
    model = random_gpt(trained.n_vocab)
    folder = export(model, trained, tmp_path / "a")
    hf = transformers.GPT2LMHeadModel.from_pretrained(folder)
    hf.save_pretrained(tmp_path / "b")
    transformers.AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path / "b")
    for path in (folder, tmp_path / "b"):
        back, tokenizer = from_pretrained(path)
        assert (
            same_weights(model, back)
            and tokenizer.hash == trained.hash
            and back.config == model.config
        )
        assert back.lm_head.weight is back.transformer.wte.weight
    idx = torch.randint(trained.n_vocab, (3, 96), generator=gen(1))
    with torch.no_grad():
        want, got = model(idx)[0], hf(idx).logits
    assert (want - got).abs().max() / want.abs().max() < 1e-5  # fp32 sums in another order


def test_a_loaded_model_trains(theirs):
    model, _ = from_pretrained(theirs)
    _, loss = model(torch.tensor([[1, 2, 3]]), torch.tensor([[2, 3, 4]]))
    loss.backward()
    assert all(p.requires_grad and p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("which", ["gpt2", "stories"])
def test_auto_tokenizer_gives_our_ids(which, trained, tmp_path):
    ours = trained if which == "stories" else get_tokenizer("gpt2")
    folder = export(random_gpt(ours.n_vocab), ours, tmp_path / "m")
    # all three ways in which transformers may read the folder: the fast file, and the old pair
    auto = transformers.AutoTokenizer.from_pretrained(folder)
    (folder / "tokenizer.json").rename(folder / "hidden")
    pair = transformers.AutoTokenizer.from_pretrained(folder)

    @settings(max_examples=200, deadline=None)
    @given(st.one_of(st.text(max_size=60), st.text(" \n\t'saté1.", max_size=60)))
    def check(text):
        if EOT in text:
            return
        ids = ours.encode(text)
        for their in (auto, pair):
            assert their(text)["input_ids"] == ids
            assert their.decode(ids) == text

    for text in [*TEXTS, *(s.text for s in stories(20, seed=5))]:
        check.hypothesis.inner_test(text)
    check()
    # in ours it is plain text
    assert auto(EOT)["input_ids"] == [ours.eot] and auto.eos_token_id == ours.eot
    assert len(auto) == ours.n_vocab


def test_greedy_equals_transformers_generate_through_the_export(trained, tmp_path):
    model = random_gpt(trained.n_vocab + 19)  # padded: the padding is what the export cuts off
    folder = export(model, trained, tmp_path / "m")
    hf = transformers.GPT2LMHeadModel.from_pretrained(folder)
    auto = transformers.AutoTokenizer.from_pretrained(folder)
    seen = set()
    for i, story in enumerate(stories(20, seed=9)):
        prompt = EOT + story.text[: 10 + 5 * i]
        ids = auto(prompt, return_tensors="pt")["input_ids"][:, :33]
        options = {
            "max_new_tokens": 64,
            "do_sample": False,
            "eos_token_id": None,
            "pad_token_id": 0,
        }
        want = hf.generate(ids, attention_mask=torch.ones_like(ids), **options)[
            0, ids.shape[1] :
        ].tolist()
        steps = generate(model, ids[0].tolist(), 64, temperature=0, n_vocab=trained.n_vocab)
        assert len(want) == 64 and [i for (i,) in steps] == want
        seen.update(want)
    assert len(seen) > 50  # the texts are no mere repetitions


@torch.no_grad()
def test_sizes_of_gpt2(tmp_path):
    "The real shape, 124,439,808 parameters, through the file: logits equal transformers'."
    tokenizer = get_tokenizer("gpt2")
    model = GPT(GPTConfig(), gen(0))
    folder = export(model, tokenizer, tmp_path / "m")
    back, _ = from_pretrained(folder)
    assert same_weights(model, back)
    del model
    hf = transformers.GPT2LMHeadModel.from_pretrained(folder)
    idx = torch.randint(50257, (1, 32), generator=gen(1))
    rows = compare(back, hf, idx)
    assert len(rows) == 2 + 12 * 9 + 2 and max(d for _, d in rows) < 1e-5


# names, shapes, vocabulary


def rewrite(folder, out, weights=lambda w: w, config=lambda c: c):
    "Copy a model with other weights or another config."
    out.mkdir()
    for path in folder.iterdir():
        (out / path.name).write_bytes(path.read_bytes())
    save_file(
        weights(load_file(folder / "model.safetensors")),
        out / "model.safetensors",
        {"format": "pt"},
    )
    (out / "config.json").write_text(
        json.dumps(config(json.loads((folder / "config.json").read_text(encoding="utf-8")))),
        encoding="utf-8",
    )
    return out


def test_names_without_prefix_and_buffers(theirs, tmp_path):
    "As in openai-community/gpt2: no `transformer.`, and the causal mask stored in every layer."

    def old(w):
        w = {k.removeprefix("transformer."): v for k, v in w.items()}
        for i in range(2):
            w[f"h.{i}.attn.bias"] = torch.ones(1, 1, 96, 96).tril()
            w[f"h.{i}.attn.masked_bias"] = torch.tensor(-1e4)
        return w

    assert same_weights(
        from_pretrained(theirs)[0], from_pretrained(rewrite(theirs, tmp_path / "old", old))[0]
    )


def test_half_precision_is_read_as_fp32(theirs, tmp_path):
    half = rewrite(theirs, tmp_path / "half", lambda w: {k: v.bfloat16() for k, v in w.items()})
    a, b = (from_pretrained(f)[0].state_dict() for f in (theirs, half))
    assert all(
        b[k].dtype == torch.float32 and torch.equal(b[k], a[k].bfloat16().float()) for k in a
    )


@torch.no_grad()
def test_padding_takes_little_probability(theirs):
    model, _ = from_pretrained(theirs)
    padded, _ = from_pretrained(theirs, vocab_size=50304)
    assert padded.config.vocab_size == 50304 and len(padded.transformer.wte.weight) == 50304
    idx = torch.randint(50257, (2, 50), generator=gen(0))
    share = padded(idx)[0].softmax(-1)[..., 50257:].sum(-1)
    assert 0 < share.max() <= 47 / 50257 + 1e-6  # exp(mean) <= mean(exp)
    torch.testing.assert_close(padded(idx)[0][..., :50257], model(idx)[0])
    assert torch.equal(
        resize_vocab(padded.transformer.wte.weight, 50257), model.transformer.wte.weight
    )


# errors, one line each

BAD_CONFIG = [
    (
        {"activation_function": "gelu"},
        "'gelu' is not supported; this GPT-2 has activation_function='gelu_new'",
    ),
    (
        {"scale_attn_by_inverse_layer_idx": True},
        "scale_attn_by_inverse_layer_idx=True is not supported",
    ),
    ({"scale_attn_weights": False}, "scale_attn_weights=False is not supported"),
    ({"layer_norm_epsilon": 1e-6}, "layer_norm_epsilon=1e-06 is not supported"),
    ({"n_inner": 100}, "n_inner=100 is not supported"),
    ({"tie_word_embeddings": False}, "lm_head.weight is missing"),
    (
        {"model_type": "gpt_neo"},
        "model_type='gpt_neo' is not supported; this GPT-2 has model_type='gpt2'",
    ),
    ({"n_head": 7}, "n_head=7 must divide n_embd=32"),
    ({"n_layer": 3}, "h.2.ln_1.weight is missing"),
    ({"n_layer": 1}, "transformer.h.1.attn.c_attn.bias has no place in a GPT-2 of 1 layers"),
    (
        {"n_positions": 64},
        "transformer.wpe.weight has shape [96, 32], expected [64, 32] by config.json",
    ),
]


@pytest.mark.parametrize("change,message", BAD_CONFIG, ids=[str(c[0]) for c in BAD_CONFIG])
def test_unsupported_config(theirs, tmp_path, change, message):
    with pytest.raises(ValueError) as e:
        from_pretrained(rewrite(theirs, tmp_path / "x", config=lambda c: c | change))
    assert message in str(e.value) and "\n" not in str(e.value)


BAD_WEIGHTS = [
    (
        lambda w: w | {"transformer.h.0.mlp.c_fc.weight": torch.zeros(128, 32)},
        "shape [128, 32], expected [32, 128]",
    ),
    (lambda w: {k: v for k, v in w.items() if "ln_f.bias" not in k}, "ln_f.bias is missing"),
    (lambda w: w | {"transformer.h.0.extra": torch.zeros(1)}, "transformer.h.0.extra has no place"),
    (
        lambda w: w | {"lm_head.weight": torch.zeros(50257, 32)},
        "lm_head.weight differs from wte.weight",
    ),
]


@pytest.mark.parametrize("change,message", BAD_WEIGHTS, ids=[c[1][:25] for c in BAD_WEIGHTS])
def test_wrong_weights(theirs, tmp_path, change, message):
    with pytest.raises(ValueError) as e:
        from_pretrained(rewrite(theirs, tmp_path / "x", change))
    assert message in str(e.value) and "\n" not in str(e.value)


def test_broken_files(theirs, tmp_path):
    def broken(name, file, content):
        path = rewrite(theirs, tmp_path / name)
        (path / file).write_bytes(content)
        with pytest.raises(ValueError) as e:
            from_pretrained(path)
        assert str(path / file) in str(e.value) and "\n" not in str(e.value)
        return str(e.value)

    whole = (theirs / "model.safetensors").read_bytes()
    assert "not a whole safetensors file" in broken("cut", "model.safetensors", whole[:-7])
    assert "not a whole safetensors file" in broken("empty", "model.safetensors", b"")
    assert "not JSON" in broken("json", "config.json", b"{")
    assert "the whole is [], expected an object" in broken("list", "config.json", b"[]")
    assert "not laid out as GPT-2's" in broken(
        "tok", "tokenizer.json", b'{"model": {"vocab": {"a": 0}, "merges": []}}'
    )
    data = json.loads((theirs / "tokenizer.json").read_text(encoding="utf-8"))
    data["model"]["merges"] = data["model"]["merges"][1:]
    assert "not laid out as GPT-2's" in broken(
        "merges", "tokenizer.json", json.dumps(data).encode()
    )


def test_missing_file_and_unknown_name(theirs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = rewrite(theirs, tmp_path / "x")
    (folder / "model.safetensors").unlink()
    with pytest.raises(
        FileNotFoundError,
        match=r"^x/model.safetensors is missing; expected config.json, model.safe",
    ):
        from_pretrained("x")
    with pytest.raises(
        ValueError, match=r"^unknown model 'gpt3'; expected gpt2, .*, gpt2-xl, tiny, owner"
    ):
        from_pretrained("gpt3")
    with pytest.raises(ValueError, match=r"^unknown model '../some/folder'; expected"):
        from_pretrained("../some/folder")
    with pytest.raises(
        ValueError, match=r"vocab_size=1024 is less than the 50257 ids of its tokenizer$"
    ):
        from_pretrained(theirs, vocab_size=1024)


def test_export_is_whole_or_not_there(trained, tmp_path, monkeypatch):
    model = random_gpt(trained.n_vocab)
    folder = export(model, trained, tmp_path / "deep" / "er")
    assert len({p.stat().st_mode for p in folder.iterdir()}) == 1
    with pytest.raises(
        ValueError,
        match=r"exists and is not an empty folder; choose another one, or delete it first$",
    ):
        export(model, trained, folder)
    with pytest.raises(
        ValueError, match=rf"^the model has 600 ids and tokenizer stories {trained.n_vocab}: "
    ):
        export(random_gpt(600), trained, tmp_path / "x")
    other = Tokenizer("other", [], pattern=r"\S+|\s+")
    with pytest.raises(ValueError, match=r"^tokenizer other cuts text by another pattern"):
        export(random_gpt(257), other, tmp_path / "x")

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    for name in ("os.fsync", "gpt2edu.model.pretrained.save_file"):
        with monkeypatch.context() as m:
            m.setattr(name, full)
            with pytest.raises(
                OSError, match=r"x \(No space left on device\); free space or use another folder$"
            ):
                export(model, trained, tmp_path / "x")
        assert [p.name for p in tmp_path.iterdir()] == ["deep"]


# comparison


@pytest.mark.parametrize(
    "bug,where",
    [
        (lambda m: m.transformer.h[1].attn.c_proj.weight.t_(), "transformer.h.1.attn.c_proj"),
        (lambda m: m.transformer.h[0].mlp.c_fc.bias.add_(0.01), "transformer.h.0.mlp.c_fc"),
        (
            lambda m: m.transformer.wpe.weight.copy_(m.transformer.wpe.weight.roll(1, 0)),
            "transformer.wpe",
        ),
        (lambda m: m.transformer.ln_f.__setattr__("eps", 1e-2), "transformer.ln_f"),
    ],
)
def test_compare_finds_a_planted_bug(theirs, bug, where):
    hf = transformers.GPT2LMHeadModel.from_pretrained(theirs).eval()
    model, _ = from_pretrained(theirs)
    idx = torch.randint(50257, (2, 30), generator=gen(0))
    rows = compare(model, hf, idx)
    assert rows[-1][0] == "lm_head" and max(d for _, d in rows) < 1e-5
    with torch.no_grad():
        bug(model)
    assert next(name for name, d in compare(model, hf, idx) if d > 1e-4) == where
    assert not any(part._forward_hooks for part in model.modules())
    assert record(model, idx)["lm_head"].shape == (2, 30, 50257)


# the hub, on loopback


class Hub(BaseHTTPRequestHandler):
    "What huggingface_hub asks of the hub to download files, and to push small ones."

    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self):
        self.server.asked.append((self.command, self.path))
        repo, _, rest = self.path.lstrip("/").partition("/resolve/")
        files, file = self.server.repos.get(repo), rest.partition("/")[2]
        if files is None:
            return self.answer(401, b"Invalid username or password.", X_Error_Code="RepoNotFound")
        if file not in files:
            return self.answer(404, X_Error_Code="EntryNotFound", X_Repo_Commit=COMMIT)
        body = files[file]
        if body is None:
            return self.answer(503)
        etag = hashlib.sha256(body).hexdigest()
        self.answer(200, body, ETag=f'"{etag}"', X_Repo_Commit=COMMIT)

    do_HEAD = do_GET

    def do_POST(self):
        self.server.asked.append((self.command, self.path))
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if "Authorization" not in self.headers:
            return self.answer(401, b'{"error": "Invalid username or password."}')
        said = {}
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            assert asked.get("private") or asked.get("visibility") == "private"
            said = {"url": f"{self.server.url}/{asked['organization']}/{asked['name']}"}
        elif "/preupload/" in self.path:
            said = {
                "files": [
                    f | {"uploadMode": "regular", "shouldIgnore": False}
                    for f in json.loads(body)["files"]
                ]
            }
        elif "/commit/" in self.path:
            self.server.commits.append([json.loads(line) for line in body.splitlines()])
            said = {
                "success": True,
                "commitOid": COMMIT,
                "commitUrl": f"{self.server.url}/me/story-gpt/commit/{COMMIT}",
                "hookOutput": "",
            }
        self.answer(200, json.dumps(said).encode(), Content_Type="application/json")


@pytest.fixture
def hub(theirs):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    files = {p.name: p.read_bytes() for p in theirs.iterdir()}
    server.repos = {HUB["gpt2"]: files, "some/one": files | {"config.json": b"{}"}}
    server.repos["some/half"] = {k: v for k, v in files.items() if k != "tokenizer.json"}
    server.repos["some/busy"] = files | {"model.safetensors": None}
    server.asked, server.commits, server.url = [], [], f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def in_a_process(script, home, **env):
    "Run Python as a user would: the hub's client reads its settings from the environment, once."
    clean = {
        k: v for k, v in os.environ.items() if "proxy" not in k.lower() and not k.startswith("HF_")
    }
    clean |= {"HF_HOME": str(home), "NO_PROXY": "127.0.0.1", "OMP_NUM_THREADS": "1"} | env
    command = [sys.executable, "-c", script]
    done = warm.run(command, env=clean, cwd=home)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


LOAD = """
import sys, time
time.sleep = lambda seconds: None  # the client tries five times, with pauses
from gpt2edu.model.pretrained import from_pretrained
for name in {names}:
    try:
        model, tokenizer = from_pretrained(name)
        head = model.lm_head.weight.sum().item()
        named = (tokenizer.name, tokenizer.hash) if tokenizer else (None,)
        print(*named, head, "transformers" in sys.modules)
    except ValueError as e:
        print("|".join(str(e).splitlines()))
"""


def test_the_hub(hub, theirs, tmp_path):
    names = ["gpt2", "gpt2-medium", "some/one", "some/half"]
    out = in_a_process(LOAD.format(names=names), tmp_path, HF_ENDPOINT=hub.url)
    model, tokenizer = from_pretrained(theirs)
    good = f"gpt2 {get_tokenizer('gpt2').hash} {model.lm_head.weight.sum().item()} False"
    assert out[0] == good and tokenizer.hash == get_tokenizer("gpt2").hash
    public = f"openai-community/gpt2-medium: no folder here and no public model at {hub.url}; "
    assert out[1].startswith(f"{public}use gpt2, gpt2-medium, ")
    assert "config.json: model_type is missing, expected text; fetch the config.json" in out[2]
    assert out[3] == f"None {model.lm_head.weight.sum().item()} False"  # it has no tokenizer
    # from now on the files come from the cache, hub or no hub
    for url in (hub.url, "http://127.0.0.1:9"):
        hub.asked.clear()
        found = in_a_process(LOAD.format(names=["gpt2", "some/half"]), tmp_path, HF_ENDPOINT=url)
        assert found == [good, out[3]]
        assert not [path for command, path in hub.asked if "resolve" in path and command == "GET"]


@pytest.mark.slow  # the hub's client asks again for 25 seconds
def test_a_busy_hub(hub, tmp_path):
    (line,) = in_a_process(LOAD.format(names=["some/busy"]), tmp_path, HF_ENDPOINT=hub.url)
    silent = f"some/busy: it is not in the cache and {hub.url} does not answer; "
    assert line == f"{silent}connect, or give a folder"


def test_no_network(tmp_path):
    (line,) = in_a_process(LOAD.format(names=["gpt2"]), tmp_path, HF_ENDPOINT="http://127.0.0.1:9")
    where = (
        "it is not in the cache and http://127.0.0.1:9 does not answer; connect, or give a folder"
    )
    assert line == f"openai-community/gpt2: {where}"


def test_a_cut_download_is_not_used(hub, tmp_path):
    files = hub.repos[HUB["gpt2"]]
    hub.repos["some/cut"] = files | {"model.safetensors": files["model.safetensors"][:-9]}
    (line,) = in_a_process(LOAD.format(names=["some/cut"]), tmp_path, HF_ENDPOINT=hub.url)
    assert "is not a whole safetensors file" in line


PUSH = """
from gpt2edu.model.pretrained import push
try:
    print(push({folder!r}, "me/story-gpt"))
except ValueError as e:
    print("|".join(str(e).splitlines()))
"""


def test_push(hub, trained, tmp_path):
    folder = export(random_gpt(trained.n_vocab), trained, tmp_path / "m")
    script = PUSH.format(folder=str(folder))
    (line,) = in_a_process(script, tmp_path, HF_ENDPOINT=hub.url)
    assert line.startswith("could not push to me/story-gpt: ") and line.endswith(
        "; log in with: hf auth login"
    )
    (line,) = in_a_process(
        script, tmp_path, HF_ENDPOINT=hub.url, HF_TOKEN="hf_not_a_secret", HF_HUB_DISABLE_XET="1"
    )
    assert line == f"{hub.url}/me/story-gpt", (line, hub.asked)
    (commit,) = hub.commits
    sent = {op["value"]["path"] for op in commit if op["key"] == "file"}
    assert sent == {p.name for p in folder.iterdir()}
    with pytest.raises(FileNotFoundError, match="is missing"):
        push(Path(tmp_path), "me/story-gpt")


def test_the_stored_model_is_the_run_that_it_says(tmp_path):
    "Its validation loss, on the stories that its run validated on, is what the run logged."
    about = json.loads((Path(gpt2edu.__file__).parent / "stored/tiny/run.json").read_bytes())
    model, tokenizer = from_pretrained("tiny")
    data = DataConfig(data_dir=str(tmp_path))
    ours, shards = prepare_data(data)
    assert tokenizer.hash == ours.hash
    val = open_shards(shards, "val", ours.hash, True, ours.n_vocab)
    loss = validation_loss(model, val, data.val_tokens, 128, 32, 0.5)
    assert loss == pytest.approx(about["done"]["val_loss"], abs=2e-3)  # bf16 there, fp32 here
