"""A block of today equals transformers' LlamaForCausalLM and Qwen3ForCausalLM, in and out.

Chapter 26, appendix 13a. Then what a run does with such a block: training, resume, export, ranks.
"""

import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
import transformers
import warm
from safetensors.torch import load_file, save_file

from gpt2edu.data import cache
from gpt2edu.model.gpt import GPT, GPTConfig
from gpt2edu.model.llama import find_layout, their_names
from gpt2edu.model.pretrained import export, from_pretrained
from gpt2edu.text.corpus import stories
from gpt2edu.text.tokenizer import Tokenizer
from gpt2edu.train import checkpoint
from gpt2edu.train.config import preset
from gpt2edu.train.runs import load_run, read_config
from gpt2edu.train.trainer import Trainer

transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
QWEN3 = pytest.mark.skipif(not hasattr(transformers, "Qwen3ForCausalLM"), reason="no Qwen3 yet")
BLOCK = {"position": "rope", "norm": "rms", "mlp": "swiglu"}
SIZES = {"n_layer": 3, "n_head": 4, "n_embd": 48, "block_size": 40}
LLAMAS = {
    "plain": {"bias": False, "tied": False},
    "grouped": {"bias": False, "tied": False, "n_kv_head": 2},
    "one head of keys": {"bias": False, "tied": False, "n_kv_head": 1},
    "tied": {"bias": False, "n_kv_head": 2},
    "with biases": {"tied": False, "n_kv_head": 2},
}
QWENS = {"untied": {"tied": False, "n_kv_head": 2}, "tied": {}}
GPT2S = {"untied": {"tied": False}, "relu2": {"mlp": "relu2"}}
CASES = [
    *(pytest.param("LlamaForCausalLM", BLOCK | f, id=f"llama {k}") for k, f in LLAMAS.items()),
    *(
        pytest.param(
            "Qwen3ForCausalLM",
            BLOCK | {"bias": False, "qk_norm": True} | f,
            id=f"qwen3 {k}",
            marks=QWEN3,
        )
        for k, f in QWENS.items()
    ),
    *(pytest.param("GPT2LMHeadModel", f, id=f"gpt2 {k}") for k, f in GPT2S.items()),
]


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train([s.text for s in stories(200)], 400, "stories")


def random_model(flags, n_vocab, seed=0):
    g = torch.Generator().manual_seed(seed)
    model = GPT(GPTConfig(**SIZES, vocab_size=n_vocab, **flags), g)
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim == 1:
                p.add_(torch.randn(p.shape, generator=g), alpha=0.2)
            else:
                p.mul_(4.0)
    return model


def near(got, want, tol=1e-5):
    assert (got - want).abs().max() <= tol * want.abs().max()


@pytest.mark.parametrize("kind,flags", CASES)
def test_transformers_computes_the_same_logits_and_gradients(kind, flags, tokenizer, tmp_path):
    "To 1e-5 of the largest; the file is read back bit for bit."
    model = random_model(flags, tokenizer.n_vocab + 19)  # padded: export cuts that off
    folder = export(model, tokenizer, tmp_path / "m")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert type(theirs).__name__ == kind
    ours, same = from_pretrained(folder)
    assert same.hash == tokenizer.hash
    for name, tensor in model.state_dict().items():
        rows = tokenizer.n_vocab if name in ("transformer.wte.weight", "lm_head.weight") else None
        assert torch.equal(ours.state_dict()[name], tensor[:rows]), name
    assert ours.config.n_kv_head in (model.config.n_kv_head, 4)

    g = torch.Generator().manual_seed(1)
    ids = torch.randint(tokenizer.n_vocab, (2, 40), generator=g)
    targets = torch.randint(tokenizer.n_vocab, (2, 40), generator=g)
    want = theirs.eval()(ids).logits
    near(ours(ids)[0], want)
    torch.nn.functional.cross_entropy(want.flatten(0, 1), targets.flatten()).backward()
    ours(ids, targets)[1].backward()
    grads = {n: p.grad for n, p in theirs.named_parameters()}
    names = (lambda n: [n]) if kind == "GPT2LMHeadModel" else their_names
    for name, p in ours.named_parameters():
        got = [grads[n] for n in names(name)]
        if (
            name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight"))
            and len(p)
            and (kind == "GPT2LMHeadModel")
        ):
            got = [got[0].t()]
        near(p.grad, torch.cat(got))


def test_transformers_generates_the_same_ids(tokenizer, tmp_path):
    from gpt2edu.model.generate import generate

    model = random_model(BLOCK | LLAMAS["grouped"], tokenizer.n_vocab)
    folder = export(model, tokenizer, tmp_path / "m")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    words = transformers.AutoTokenizer.from_pretrained(folder)
    ids = [tokenizer.eot, *tokenizer.encode("One morning, Mia")]
    assert words("One morning, Mia")["input_ids"] == ids[1:]
    ask = {"max_new_tokens": 20, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    want = theirs.generate(torch.tensor([ids]), **ask)[0, len(ids) :].tolist()
    assert [i for (i,) in generate(model, ids, 20, temperature=0)] == want


BETWEEN = [
    ({"norm": "rms"}, "norm=rms beside position=learned, and GPT2LMHeadModel has norm=layer"),
    ({"mlp": "swiglu"}, "mlp=swiglu beside position=learned, and GPT2LMHeadModel has mlp=gelu"),
    ({"qk_norm": True}, "qk_norm=True beside position=learned, and GPT2LMHeadModel has qk_norm=F"),
    ({"bias": False}, "bias=False beside position=learned, and GPT2LMHeadModel has bias=True"),
    ({"n_kv_head": 2}, "n_kv_head=2 beside position=learned, and GPT2LMHeadModel has n_kv_head=n"),
    ({"position": "rope"}, "norm=layer beside position=rope, and LlamaForCausalLM has norm=rms"),
    (BLOCK | {"mlp": "relu2"}, "mlp=relu2 beside position=rope, and LlamaForCausalLM has mlp=sw"),
    (BLOCK | {"qk_norm": True}, "bias=True beside qk_norm=True, and Qwen3ForCausalLM has bias=F"),
    (BLOCK | {"mlp": "relu2", "tied": False, "n_kv_head": 1}, "mlp=relu2 beside position=rope"),
]


@pytest.mark.parametrize("flags,words", BETWEEN, ids=[str(c[0]) for c in BETWEEN])
def test_what_no_class_computes_comes_back_bit_for_bit(flags, words, tokenizer, tmp_path):
    "In our own layout, which transformers refuses by its name."
    model = random_model(flags, tokenizer.n_vocab + 19)
    kind, why = find_layout(model.config)
    assert kind == "gpt2edu" and words in why and "\n" not in why
    folder = export(model, tokenizer, tmp_path / "m")
    ours, same = from_pretrained(folder)
    assert same.hash == tokenizer.hash
    assert ours.config == replace(model.config, vocab_size=tokenizer.n_vocab)
    for name, tensor in model.state_dict().items():
        rows = tokenizer.n_vocab if name in ("transformer.wte.weight", "lm_head.weight") else None
        assert torch.equal(ours.state_dict()[name], tensor[:rows]), name
    assert (ours.lm_head.weight is ours.transformer.wte.weight) == model.config.tied
    ids = torch.randint(tokenizer.n_vocab, (2, 40), generator=torch.Generator().manual_seed(1))
    near(ours(ids)[0], model(ids)[0][..., : tokenizer.n_vocab])
    again = export(ours, same, tmp_path / "again")
    for file in ("config.json", "model.safetensors", "tokenizer.json"):
        assert (again / file).read_bytes() == (folder / file).read_bytes()
    with pytest.raises(ValueError, match="gpt2edu"):
        transformers.AutoModelForCausalLM.from_pretrained(folder)


OWN_BAD = [
    ({"rotary": True}, "config.json: rotary is a key that does not belong there; export the model"),
    ({"norm": "batch"}, 'norm is "batch", expected "layer" or "rms"; export the model again'),
    ({"qk_norm": 1}, "qk_norm is 1, expected true or false"),
    ({"bias": None}, "bias is missing, expected true or false"),
    ({"n_layer": 0}, "config.json: n_layer=0 must be a whole number, 1 or more"),
    ({"n_head": "4"}, 'n_head is "4", expected a whole number; export the model again'),
    ({"n_head": 5}, "n_head=5 must divide n_embd=48"),
    ({"n_kv_head": 3}, "n_kv_head=3 must divide n_head=4; try 1, 2 or 4"),
    ({"n_layer": 10**9}, "3 layers, expected 1000000000 by config.json"),
    ({"vocab_size": 9}, "transformer.wte.weight has shape"),
    ({"tied": False}, "lm_head.weight is missing"),
    ({"position": "rope"}, "transformer.wpe.weight has no place in this model"),
    ({"n_kv_head": 4}, "transformer.h.0.attn.c_attn.weight has shape [96, 48], expected [144, 48]"),
]


@pytest.mark.parametrize("change,words", OWN_BAD, ids=[str(c[0]) for c in OWN_BAD])
def test_a_changed_file_of_our_own_is_refused_in_one_line(change, words, tokenizer, tmp_path):
    flags = {"norm": "rms", "n_kv_head": 2}
    folder = export(random_model(flags, tokenizer.n_vocab), tokenizer, tmp_path / "m")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8")) | change
    config = {k: v for k, v in config.items() if v is not None}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "tokenizer.json").unlink()  # which would contradict some of them first
    with pytest.raises(ValueError) as e:
        from_pretrained(folder)
    assert words in str(e.value) and "\n" not in str(e.value)


def test_the_command_says_that_transformers_cannot_open_it(tokenizer, tmp_path):
    "Its folder is a model for every other command."
    folder = export(random_model({"norm": "rms"}, tokenizer.n_vocab), tokenizer, tmp_path / "m")
    code, said = command("export", "--run", folder, "--out", tmp_path / "copy")
    assert code == 0, said
    note = "note: transformers cannot open it: the model has norm=rms beside position=learned, "
    assert note + "and GPT2LMHeadModel has norm=layer\n" in said and "from_pretrained" not in said
    ask = ["generate", "--prompt", "Mia", "--max_tokens", 5, "--seed", 1, "--device", "cpu"]
    texts = [command(*ask, "--run", tmp_path / name) for name in ("m", "copy")]
    assert texts[0] == texts[1] and texts[0][0] == 0, texts


BAD = [
    ({"intermediate_size": 100}, "intermediate_size=100 is not supported; our model has"),
    ({"rms_norm_eps": 1e-6}, "rms_norm_eps=1e-06 is not supported"),
    ({"hidden_act": "gelu"}, "hidden_act='gelu' is not supported"),
    ({"rope_theta": 500000.0}, "rope_theta=500000.0 is not supported"),
    ({"rope_parameters": {"rope_type": "yarn"}}, "rope_type='yarn' is not supported"),
    ({"rope_scaling": {"factor": 8.0}}, "rope_scaling={'factor': 8.0} is not supported"),
    ({"mlp_bias": True}, "mlp_bias=True is not supported"),
    ({"head_dim": 7}, "head_dim=7 is not supported"),
    ({"num_attention_heads": 7}, "head_dim=12 is not supported"),
    ({"num_key_value_heads": 3}, "n_kv_head=3 must divide n_head=4; try 1, 2 or 4"),
    ({"num_hidden_layers": 10**9}, "3 layers, expected 1000000000 by config.json"),
    ({"vocab_size": 9}, "model.embed_tokens.weight has shape"),
    ({"attention_bias": True, "mlp_bias": True}, "q_proj.bias is missing"),
    ({"model_type": "mistral"}, "n_layer"),
]


@pytest.fixture(scope="module")
def llama(tokenizer, tmp_path_factory):
    place = tmp_path_factory.mktemp("llama") / "m"
    return export(random_model(BLOCK | LLAMAS["grouped"], tokenizer.n_vocab), tokenizer, place)


@pytest.mark.parametrize("change,words", BAD, ids=[str(c[0]) for c in BAD])
def test_another_llama_is_refused_in_one_line(llama, tmp_path, change, words):
    config = json.loads((llama / "config.json").read_text(encoding="utf-8")) | change
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (tmp_path / "model.safetensors").write_bytes((llama / "model.safetensors").read_bytes())
    with pytest.raises(ValueError) as e:
        from_pretrained(tmp_path)
    assert words in str(e.value) and "\n" not in str(e.value)


@pytest.mark.parametrize(
    "change,words",
    [
        (lambda w: w | {"model.extra": torch.zeros(1)}, "model.extra has no place in this model"),
        (
            lambda w: w | {"model.norm.weight": torch.zeros(7)},
            "model.norm.weight has shape [7], expected [48]",
        ),
        (
            lambda w: w | {"model.norm.weight": torch.zeros(48, dtype=torch.int32)},
            "model.norm.weight is of type I32",
        ),
        (
            lambda w: {k: v for k, v in w.items() if k != "lm_head.weight"},
            "lm_head.weight is missing",
        ),
    ],
)
def test_wrong_weights_are_refused_in_one_line(llama, tmp_path, change, words):
    (tmp_path / "config.json").write_bytes((llama / "config.json").read_bytes())
    save_file(change(load_file(llama / "model.safetensors")), tmp_path / "model.safetensors")
    with pytest.raises(ValueError) as e:
        from_pretrained(tmp_path)
    assert words in str(e.value) and "\n" not in str(e.value)


# a run

TINY = {
    "n_layer": 2, "n_head": 2, "n_embd": 32, "block_size": 32, "vocab_size": 300,
    "total_batch": 256, "micro_batch": 4, "max_steps": 8, "warmup_steps": 2,
    "eval_every": 4, "save_every": 4, "sample_every": 8, "val_tokens": 2048,
    "choice_items": 20, "device": "cpu", "dtype": "fp32", "compile": "off",
}  # fmt: skip
ALL = BLOCK | {"bias": False, "tied": False, "n_kv_head": 1}
RUNS = {
    "rope": {"position": "rope"}, "rms": {"norm": "rms"}, "swiglu": {"mlp": "swiglu"},
    "relu2": {"mlp": "relu2"}, "qk_norm": {"qk_norm": True}, "no_bias": {"bias": False},
    "untied": {"tied": False}, "grouped": {"n_kv_head": 1}, "llama": ALL,
    "all": ALL | {"qk_norm": True},
}  # fmt: skip


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    old, cache.N_STORIES = cache.N_STORIES, 400
    yield tmp_path_factory.mktemp("data")
    cache.N_STORIES = old


def tensors(folder):
    path = checkpoint.latest(folder / "checkpoints")
    files = (checkpoint.MODEL, checkpoint.OPTIM)
    found = [safetensors.torch.load((path / name).read_bytes()) for name in files]
    return {f"{i}.{k}": v for i, part in enumerate(found) for k, v in part.items()}


@pytest.mark.parametrize("flags", RUNS.values(), ids=RUNS)
def test_a_run_learns_saves_resumes_and_is_loaded(flags, data_dir, tmp_path):
    "A resumed run has the bits of an uninterrupted one."
    config = preset("tiny", **TINY, **flags, data_dir=str(data_dir))
    whole = Trainer(config, tmp_path / "a")
    whole.run()
    losses = whole.log.curve("val", "loss")[1]
    assert losses[-1] < losses[0]
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    shutil.rmtree(tmp_path / "b" / "checkpoints" / "step_00000008")
    again = Trainer(read_config(tmp_path / "b"), tmp_path / "b", resume=True)
    assert again.step == 4
    again.run()
    a, b = tensors(tmp_path / "a"), tensors(tmp_path / "b")
    assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
    model, tokenizer = load_run(tmp_path / "b")
    ids = torch.tensor([tokenizer.encode("One morning, Mia went to the park.")])
    with torch.no_grad():
        torch.testing.assert_close(model(ids)[0], whole.model(ids)[0])


def test_a_resume_with_another_block_names_the_field(data_dir, tmp_path):
    config = preset("tiny", **TINY, data_dir=str(data_dir))
    Trainer(config, tmp_path / "a").run()
    for field, value in (("position", "rope"), ("n_kv_head", 1), ("bias", False)):
        with pytest.raises(ValueError, match=f"has {field}=.*, not {value!r}; use {field}=") as e:
            Trainer(replace(config, **{field: value}), tmp_path / "a", resume=True)
        assert "\n" not in str(e.value)
    state = next((tmp_path / "a").glob("checkpoints/*8/state.json"))
    assert json.loads(state.read_text(encoding="utf-8"))["state"]["config"]["norm"] == "layer"


ENV = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
ENV |= {"OMP_NUM_THREADS": "1"}


def command(*args, ranks=1):
    start = [sys.executable, "-m"]
    if ranks > 1:
        start += ["torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}", "-m"]
    done = warm.run([*start, "gpt2edu.cli", *args], env=ENV)
    return done.returncode, done.stdout + done.stderr


AS_FLAGS = "--position rope --norm rms --mlp swiglu --no_bias --no_tied --n_kv_head 1".split()


def test_two_ranks_are_one_and_the_commands_follow(tmp_path):
    "Train at one and at two ranks; then eval, generate, export, plan; and one line for nonsense."
    flags = [x for k, v in TINY.items() for x in (f"--{k}", v)] + AS_FLAGS
    flags += ["--optimizer", "adamw", "--dataset", "pydocs", "--data_dir", tmp_path / "data"]
    flags += ["--choice_items", 0]
    runs = {}
    for ranks in (1, 2):
        place = ["--out_dir", tmp_path, "--name", f"of{ranks}"]
        code, said = command("train", *flags, *place, ranks=ranks)
        assert code == 0, said
        runs[ranks] = safetensors.torch.load_file(
            checkpoint.latest(tmp_path / f"of{ranks}/checkpoints") / checkpoint.MODEL
        )
    for name, tensor in runs[1].items():
        torch.testing.assert_close(runs[2][name], tensor, rtol=1e-4, atol=1e-5)

    run = tmp_path / "of1"
    model, _ = load_run(run)
    code, said = command("plan", *flags, "--measure")
    assert code == 0 and f"{sum(p.numel() for p in model.parameters()):,}" in said, said
    items = [
        {"ind": i, "activity_label": "code", "ctx": f"def f(x): return {i}", "label": i}
        | {"ctx_a": f"def f(x): return {i}", "ctx_b": "", "split_type": "indomain"}
        | {"endings": ["+ 1", "is", "()", "x"], "split": "val", "source_id": f"code~{i}"}
        for i in range(4)
    ]
    text = "".join(json.dumps(item) + "\n" for item in items)
    (tmp_path / "items.jsonl").write_text(text, encoding="utf-8")
    for asked in (
        ["eval", "--tasks", "val,hellaswag", "--data", tmp_path / "items.jsonl"],
        ["generate", "--prompt", "def", "--max_tokens", 5, "--int8"],
        ["export", "--out", tmp_path / "m"],
    ):
        code, said = command(*asked, "--run", run)
        assert code == 0, said
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "m")
    assert type(theirs).__name__ == "LlamaForCausalLM"

    for wrong, words in (
        (["--norm", "batch"], "norm"),
        (["--n_kv_head", "3"], "n_kv_head=3 must divide n_head=2; try 1 or 2"),
        (["--position", "rope", "--n_embd", "30"], "is odd; take an even width of a head"),
    ):
        code, said = command("train", *flags, *wrong, "--out_dir", tmp_path, "--name", "bad")
        assert code == 2 and words in said and said.count("\n") == 1, said
    assert not Path(tmp_path / "bad").exists()
