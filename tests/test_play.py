"""The playground: the model in the page beside PyTorch's, and every tool typed into and read back.

What needs a browser uses Debian's chromium with Playwright (the `dev` extra), and skips elsewhere.
"""

import functools
import http.server
import importlib.util
import json
import math
import re
import subprocess
import sys
import threading
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import regex
import torch
import warm
from safetensors import safe_open
from safetensors.torch import save_file

from gpt2edu.model.generate import complete, encode_prompt, generate_batch, next_token_probs
from gpt2edu.model.gpt import GPT, GPTConfig
from gpt2edu.model.lora import HEAD, PARTS, add_lora, lora_layers, save_adapter
from gpt2edu.model.pretrained import flip, from_pretrained
from gpt2edu.model.variants import GPT2_BLOCK
from gpt2edu.model.web import export_web
from gpt2edu.text.corpus import read_back, stories
from gpt2edu.text.ngram import NGram
from gpt2edu.text.tokenizer import GPT2_PATTERN, Tokenizer, get_tokenizer

ROOT = Path(__file__).resolve().parent.parent
PLAY = ROOT / "book" / "play"
DATA = json.loads((PLAY / "play.json").read_text(encoding="utf-8"))

spec = importlib.util.spec_from_file_location("tools_play", ROOT / "tools" / "play.py")
tool = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tool)


# the same model in PyTorch, with the weights that the page loads


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.load(PLAY / "tokenizer.json")


@pytest.fixture(scope="module")
def model():
    return opened(PLAY / "tiny.safetensors")


def opened(file):
    with safe_open(file, "pt") as f:
        config = json.loads(f.metadata()["gpt2edu"])["config"]
        state = {k: flip(k, f.get_tensor(k).float()) for k in f.keys()}
    gpt = GPT(GPTConfig(**config))
    gpt.load_state_dict({"lm_head.weight": state["transformer.wte.weight"]} | state)
    return gpt.eval()


@functools.cache
def mine():
    return Tokenizer.train([s.text for s in stories(50)], 300, "mine")


def small(tmp_path, name="mine", sizes=(1, 2, 16, 32), **variants):
    "An export of an untrained model with a tokenizer of its own."
    own = mine()
    gpt = GPT(GPTConfig(*sizes, 384, **variants), torch.Generator().manual_seed(0))
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():  # no gain of 1 and no bias of 0, which a page could leave out
        for p in gpt.parameters():
            p.mul_(4) if p.ndim > 1 else p.add_(torch.randn(p.shape, generator=g), alpha=0.2)
    return export_web(gpt, own, tmp_path / f"{name}.safetensors", name), gpt, own


# what is stored


def test_the_model_is_one_readable_file_and_the_page_is_light():
    assert len((PLAY / "gpt2edu.js").read_text(encoding="utf-8").splitlines()) <= 300
    assert (PLAY / "tiny.safetensors").stat().st_size <= 1_500_000
    assert sum(p.stat().st_size for p in PLAY.iterdir()) <= 2_000_000  # the page: 3 MB


def test_the_stored_tokenizer_is_that_of_the_stored_model(tokenizer):
    with safe_open(PLAY / "tiny.safetensors", "pt") as f:
        about = json.loads(f.metadata()["gpt2edu"])
    assert about["tokenizer"] == json.loads((PLAY / "tokenizer.json").read_text(encoding="utf-8"))
    assert about["tokenizer"]["hash"] == DATA["tokenizer"] == tokenizer.hash
    assert about["config"]["vocab_size"] == tokenizer.n_vocab


@pytest.mark.parametrize("story", DATA["stories"], ids=range(len(DATA["stories"])))
def test_exact_odds_multiply_to_the_probability_of_the_story(story, tokenizer):
    "The grammar's own probability of the whole text is the product of the odds of its tokens."
    assert [*tokenizer.encode(story["text"]), tokenizer.eot] == story["ids"]
    assert all(abs(sum(p for _, p in odds) - 1) < 2e-3 for odds in story["exact"])
    pairs = zip(story["ids"], story["exact"], strict=True)
    total = sum(math.log(dict(odds)[i]) for i, odds in pairs)
    assert total == pytest.approx(read_back(story["text"]), abs=0.01)  # four digits are stored


def test_exact_odds_are_those_of_the_grammar(tokenizer):
    "Of a thousand stories with the same beginning, as many continue in each way."
    texts = [s.text for s in stories(3000, seed=9)]
    seen = [t for t in texts if t.startswith("One day,")]
    ids = tokenizer.encode("One day,")
    odds = tool.next_odds(tokenizer, ids)
    assert len(odds) == 30 and all(p == pytest.approx(1 / 30) for p in odds.values())
    had = [t for t in seen if re.match(r"One day, (\w+) and (\w+) were [^.]*\. \1 had", t)]
    share = len(had) / len(
        [t for t in seen if re.match(r"One day, (\w+) and \w+ were [^.]*\. \1 ", t)]
    )
    story = next(t for t in had)
    name = regex.findall(GPT2_PATTERN, story)[3]
    start = story[: story.index(".") + 1] + name
    odds = tool.next_odds(tokenizer, tokenizer.encode(start))
    assert odds[tokenizer.encode(" had")[0]] == pytest.approx(2 / 3)
    assert share == pytest.approx(2 / 3, abs=0.06)


def test_the_run_of_the_page_is_named_and_its_curve_is_whole():
    made, training = DATA["made"], DATA["training"]
    assert "--seed 1337" in made["command"] and re.fullmatch("[0-9a-f]{7,}", made["commit"])
    assert "threads" in made["hardware"]
    assert training["steps"][0] == 0 and {50, 200, 740} <= {*training["steps"]}
    assert all(len(p["texts"]) == len(training["steps"]) for p in training["prompts"])
    assert training["floor"] < training["val_loss"] < training["bigram"]
    assert [s for s, _ in training["train"]] == [*range(10, 741, 10)]


def test_the_last_continuations_are_those_of_the_model():
    "They are of the weights before rounding, so a draw on a border may differ."
    gpt, own = opened(PLAY / "tiny.safetensors"), Tokenizer.load(PLAY / "tokenizer.json")
    same = []
    for p in DATA["training"]["prompts"]:
        generator = torch.Generator().manual_seed(1)
        same.append(complete(gpt, own, p["prompt"], 60, generator=generator)[0] == p["texts"][-1])
    assert sum(same) >= 2


def test_export_web_refuses_what_the_page_could_not_read(tmp_path):
    file, gpt, own = small(tmp_path)
    with pytest.raises(ValueError, match="exists; choose another name with --out"):
        export_web(gpt, own, file, "mine")
    with pytest.raises(ValueError, match="the model has 384 ids and tokenizer gpt2 50257: not a"):
        export_web(gpt, get_tokenizer("gpt2"), tmp_path / "x", "x")
    with torch.no_grad():
        gpt.transformer.ln_f.weight[0] = 1e6
    with pytest.raises(ValueError, match=r"ln_f.weight holds a weight that fp16 cannot.* 65504"):
        export_web(gpt, own, tmp_path / "x", "x")
    assert [p.name for p in tmp_path.iterdir()] == ["mine.safetensors"]


def test_the_command_writes_the_file_and_answers_a_mistake(tmp_path):
    def command(*flags):
        args = [sys.executable, "-m", "gpt2edu.cli", "export", *flags]
        return warm.run(args, cwd=tmp_path)

    sizes = "--n_layer 1 --n_head 2 --n_embd 32 --block_size 32 --total_batch 256 --micro_batch 8"
    sizes += " --vocab_size 300 --val_tokens 2048 --max_steps 2 --eval_every 2 --save_every 2"
    sizes += " --warmup_steps 1 --choice_items 4 --no-self_test --compile off --device cpu"
    text = "\n<|endoftext|>".join(s.text for s in stories(400))
    (tmp_path / "my.txt").write_text(text, encoding="utf-8")
    args = [sys.executable, "-m", "gpt2edu.cli", "train", "--dataset", "my.txt", "--name", "a"]
    assert warm.run([*args, *sizes.split()], cwd=tmp_path).returncode == 0
    done = command("--web")
    assert done.returncode == 0, done.stderr
    assert "exports/a.safetensors" in done.stdout and "playground" in done.stdout
    assert opened(tmp_path / "exports" / "a.safetensors").config.n_embd == 32
    done = command("--web", "--push_to_hub", "me/mine")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "--web writes one file, --push_to_hub needs a folder" in done.stderr


# the page


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    "The playground, and a chapter that holds a tool, as smalldocs makes them; served."
    folder = tmp_path_factory.mktemp("site")
    for name in ("playground.qmd", "is-my-loss-right.qmd", "references.bib"):
        (folder / "book").mkdir(exist_ok=True)
        (folder / "book" / name).write_bytes((ROOT / "book" / name).read_bytes())
    (folder / "book" / "play").mkdir()
    for file in PLAY.iterdir():
        (folder / "book" / "play" / file.name).write_bytes(file.read_bytes())
    (folder / "book" / "site").mkdir()
    script = ROOT / "book" / "site" / "play.html"
    (folder / "book" / "site" / "play.html").write_bytes(script.read_bytes())
    chapter = folder / "nbs" / "medium" / "ch08_attention.ipynb"
    chapter.parent.mkdir(parents=True)
    chapter.write_bytes((ROOT / "nbs" / "medium" / "ch08_attention.ipynb").read_bytes())
    config = (ROOT / "_quarto.yml").read_text(encoding="utf-8")
    assert "- book/play/*\n" in config and "book/site/play.html" in config
    config = "project:\n  type: website\n  output-dir: _site\n  resources: [book/play/*]\n"
    config += "format:\n  html:\n    include-after-body: book/site/play.html\n"
    (folder / "_quarto.yml").write_text(config, encoding="utf-8")
    smalldocs = Path(sys.executable).with_name("smalldocs")
    subprocess.run([smalldocs, "render", "."], cwd=folder, check=True, capture_output=True)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    handler = functools.partial(Quiet, directory=folder / "_site")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def visit(browser, site, path="book/playground.html", **options):
    context = browser.new_context(**({"viewport": {"width": 1280, "height": 900}} | options))
    page = context.new_page()
    page.set_default_timeout(180_000)
    page.problems = []
    page.on("pageerror", lambda e: page.problems.append(str(e)))
    page.on(
        "response",
        lambda r: page.problems.append(f"{r.status} {r.url}") if r.status >= 400 else None,
    )
    page.goto(f"{site}/{path}", wait_until="domcontentloaded")
    return page


@pytest.fixture(scope="module")
def page(browser, site):
    page = visit(browser, site)
    page.wait_for_function("window.gpt2edu !== undefined || typeof gpt2edu !== 'undefined'")
    yield page
    page.context.close()


def tool_of(page, kind):
    "Bring a tool into view and wait until it shows something."
    box = page.locator(f".play[data-play={kind}]")
    box.scroll_into_view_if_needed()
    return settled(box)


def settled(box):
    "Wait until a tool has taken in what was typed."
    box.and_(box.page.locator("[data-ready=yes]")).wait_for()
    return box


def typed(box, text):
    box.locator("textarea").fill(text)
    settled(box)


def says(box, want):
    "Wait for the one line of what went wrong, whole; a pattern may stand for it."
    whole = want if isinstance(want, re.Pattern) else re.compile(f"^{re.escape(want)}$")
    box.locator(".play-error").filter(has_text=whole, visible=True).wait_for()


def tokens_shown(page, n):
    buttons = "document.querySelectorAll('[data-play=attention] .play-strip button')"
    page.wait_for_function(f"{buttons}.length === {n}")


def no_error(box):
    box.locator(".play-error").wait_for(state="hidden")


@pytest.fixture(scope="module")
def prompts(tokenizer):
    "Two hundred beginnings of stories, of 1 to 60 tokens."
    cut = ((tokenizer.encode(s.text), 1 + i % 60) for i, s in enumerate(stories(200, seed=5)))
    return [tokenizer.decode(ids[:n]) for ids, n in cut]


def test_greedy_continuations_are_pytorchs(page, model, tokenizer, prompts):
    ids = [encode_prompt(tokenizer, p) for p in prompts]
    steps = generate_batch(model, ids, 40, temperature=0, eot=tokenizer.eot)
    columns = [[i for i in row if i is not None] for row in zip(*steps, strict=True)]
    run = "async prompts => { const m = await gpt2edu.load(); return prompts.map("
    run += "p => [...gpt2edu.generate(m, p, { temperature: 0, maxTokens: 40 })]) }"
    got = page.evaluate(run, prompts)
    assert len(got) == 200 and sum(map(len, got)) > 5000
    for prompt, mine, theirs in zip(ids, got, columns, strict=True):
        if mine != theirs:  # allowed where two logits tie, and the order of summing decides
            same = next(
                i for i, pair in enumerate(zip(mine, theirs, strict=False)) if len({*pair}) > 1
            )
            with torch.no_grad():
                logits = model(torch.tensor([prompt + theirs[:same]]))[0][0, -1]
            first, second = logits.topk(2).values
            assert first - second < 1e-4, (prompt, mine, theirs)


def test_logits_are_pytorchs(page, model, tokenizer, prompts):
    "Both compute in fp32, in another order: 1e-5 is seen, a wrong formula is off by far more."
    run = "async prompts => { const m = await gpt2edu.load(); return prompts.map("
    run += "p => m.forward(m.encodePrompt(p)).map(row => [...row])) }"
    for p, got in zip(prompts[::10], page.evaluate(run, prompts[::10]), strict=True):
        with torch.no_grad():
            want = model(torch.tensor([encode_prompt(tokenizer, p)]))[0][0]
        assert torch.tensor(got).shape == want.shape
        assert (torch.tensor(got) - want).abs().max() < 1e-3


ALL = {"position": "rope", "norm": "rms", "mlp": "swiglu", "qk_norm": True}
ALL |= {"bias": False, "tied": False, "n_kv_head": 2}
VARIANTS = {"gpt2": {}} | {f"{k}={v}": {k: v} for k, v in ALL.items()}
VARIANTS |= {"mlp=relu2": {"mlp": "relu2"}, "one head of keys": {"n_kv_head": 1}, "all": ALL}
VARIANTS |= {"all but relu2": ALL | {"mlp": "relu2"}, "all, biases": ALL | {"bias": True}}
READ = "([bytes, prompts]) => { const m = gpt2edu.open(new Uint8Array(bytes).buffer, 'x');"
READ += " return prompts.map(p => { const cache = m.newCache(true);"
READ += " const rows = m.forward(m.encodePrompt(p), cache).map(row => [...row]);"
READ += " return [m.size, rows, cache.looks.map(l => l.map(h => h.map(w => [...w])))] }) }"


@pytest.mark.parametrize("variants", VARIANTS.values(), ids=VARIANTS)
def test_every_variant_of_the_block_has_pytorchs_logits(page, variants, tmp_path):
    "Logits and attention weights of every query head; both from the weights of the file."
    file, gpt, own = small(tmp_path, sizes=(2, 4, 48, 32), **variants)
    with safe_open(file, "pt") as f:
        said = json.loads(f.metadata()["gpt2edu"])["config"]
    other = {k: v for k, v in variants.items() if v != GPT2_BLOCK[k]}
    assert {k: v for k, v in said.items() if k in GPT2_BLOCK} == other
    rounded = opened(file)
    assert rounded.config == replace(gpt.config, vocab_size=own.n_vocab)
    texts = ["Anna", "One day, Mia and Ben were in the park.", ""]
    for text, (size, rows, looks) in zip(
        texts, page.evaluate(READ, [[*file.read_bytes()], texts]), strict=True
    ):
        idx = torch.tensor([encode_prompt(own, text)])
        with torch.no_grad():
            want = rounded(idx)[0][0]
        assert size == sum(p.numel() for p in rounded.parameters())
        assert want.abs().max() > 1 and torch.tensor(rows).shape == want.shape
        assert (torch.tensor(rows) - want).abs().max() < 1e-3
        weights = rounded.attention_weights(idx)[:, 0]  # (n_layer, nh, T, T)
        assert (len(looks), len(looks[0])) == (2, 4)
        for layer, heads in enumerate(looks):
            for head, seen in enumerate(heads):
                for t, row in enumerate(seen):
                    close = torch.tensor(row) - weights[layer, head, t, : t + 1]
                    assert close.abs().max() < 1e-4


def test_a_merged_adapter_brings_its_own_head(page, tmp_path):
    "As after `gpt2edu_train --preset tiny-lora`, whose adapter also sits at the head."
    base, own = from_pretrained("tiny")
    g = torch.Generator().manual_seed(0)
    adapted = add_lora(base, 2, 4.0, (*PARTS, HEAD), g)
    for layer in lora_layers(adapted).values():
        layer.lora_B.data.normal_(0, 0.05, generator=g)
    save_adapter(adapted, tmp_path / "taught", "tiny", own.n_vocab)
    args = [sys.executable, "-m", "gpt2edu.cli", "export", "--run", "taught", "--web"]
    done = warm.run(args, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    file = tmp_path / "exports" / "taught.safetensors"
    rounded, text = opened(file), "One day, Mia"
    assert not rounded.config.tied
    ((_, rows, _),) = page.evaluate(READ, [[*file.read_bytes()], [text]])
    idx = torch.tensor([encode_prompt(own, text)])
    with torch.no_grad():
        want, before = rounded(idx)[0][0], adapted(idx)[0][0]
        plain = from_pretrained("tiny")[0](idx)[0][0]
    assert (torch.tensor(rows) - want).abs().max() < 1e-3
    assert (want - before[:, : own.n_vocab]).abs().max() < 0.05  # of rounding the merged weights
    assert (want - plain).abs().max() > 0.1


TEXTS = [
    "",
    " ",
    "\n\n\n  \t x ",
    "It's WE'LL don't",
    "2024-01-31 12345678",
    "def f(x):\n    return x**2\n",
    "東京 Ελλάδα हिन्दी עברית",
    "\N{WAVING HAND SIGN}\N{EMOJI MODIFIER FITZPATRICK TYPE-4} e\u0301 \x00\x7f \u200b\u3000",
    "\ufeff x \x85 y \x1c z \u2028",
    "<|endoftext|> is plain text",
    "Anna had two cherries. She ate one cherry, so now she had one.  ",
]


@pytest.mark.parametrize("name", ["stories", "gpt2"])
def test_ids_are_those_of_the_library(page, name, tokenizer):
    own = tokenizer if name == "stories" else get_tokenizer("gpt2")
    run = "async ([name, texts]) => { let t; if (name === 'stories') t = (await gpt2edu.load())"
    run += ".tokenizer; else { const b = await gpt2edu.fetchBuffer('gpt2.bpe');"
    run += " t = new gpt2edu.Tokenizer({ name, merges: new TextDecoder().decode(b).split('\\n')"
    run += ".slice(1, -1) }) } return texts.map(x => [t.encode(x), t.decode(t.encode(x))]) }"
    for text, (ids, back) in zip(TEXTS, page.evaluate(run, [name, TEXTS]), strict=True):
        assert ids == own.encode(text), text
        assert back == text.removeprefix("\ufeff")  # a decoder of the web drops the mark


@pytest.mark.parametrize(
    "knobs",
    [
        {},
        {"temperature": 0.5},
        {"temperature": 0},
        {"top_k": 3},
        {"top_p": 0.9},
        {"top_p": 1e-9},
        {"temperature": 1.7, "top_k": 7, "top_p": 0.6},
    ],
)
def test_odds_are_those_of_the_library(page, knobs):
    logits = torch.randn(1, 50, generator=torch.Generator().manual_seed(1)) * 3
    want = next_token_probs(logits, **knobs)[0]
    names = {"temperature": "temperature", "top_k": "topK", "top_p": "topP"}
    theirs = {names[k]: v for k, v in knobs.items()}
    got = page.evaluate(
        "([l, k]) => [...gpt2edu.odds(new Float32Array(l), k)]", [logits[0].tolist(), theirs]
    )
    assert torch.tensor(got).sub(want).abs().max() < 1e-6
    assert [p > 0 for p in got] == [p > 0 for p in want.tolist()]


def test_the_bigram_is_chapter_twos(page, tokenizer):
    ids = np.array([i for s in stories(300) for i in [tokenizer.eot, *tokenizer.encode(s.text)]])
    V = tokenizer.n_vocab
    codes, counts = np.unique(ids[:-1] * V + ids[1:], return_counts=True)
    pairs = [[*divmod(c, V), n] for c, n in zip(codes.tolist(), counts.tolist(), strict=True)]
    bigram = NGram(2, V).fit(ids)
    for first in (tokenizer.eot, tokenizer.encode(" had")[0], 7):
        got = page.evaluate("([p, V, i]) => [...play.bigramOf(p, V)(i)]", [pairs, V, first])
        assert np.abs(np.array(got) - bigram.next_probs(np.array([first]))).max() < 1e-4


def test_tokenizer_tool(page, tokenizer):
    box = tool_of(page, "tokenizer")
    text = "Anna had 12 näs. It's so"
    typed(box, text)
    own = tokenizer.encode(text)
    box.locator(f"[data-ids='{' '.join(map(str, own))}']").wait_for()
    box.get_by_label("GPT-2's 50,257 tokens").check()
    theirs = get_tokenizer("gpt2").encode(text)
    box.locator(f"[data-tokenizer=gpt2][data-ids='{' '.join(map(str, theirs))}']").wait_for()
    pieces = regex.findall(GPT2_PATTERN, text)
    assert box.locator("[data-tokenizer=gpt2] .play-piece").count() == len(pieces)
    typed(box, "")
    says(box, "the text is empty; type a word")
    typed(box, "x" * 3000)
    says(box, "the text has 3,000 characters; this tool shows 2,000 at most")
    box.locator("textarea").evaluate(
        "e => { e.value = 'a\\ud800b'; e.dispatchEvent(new Event('input', { bubbles: true })) }"
    )
    page.wait_for_function(
        "document.querySelector('[data-play=tokenizer] .play-error').textContent.includes('half')"
    )
    says(box, "the text has half a character at position 1, which has no bytes; delete it")
    typed(box, "again")
    no_error(box)


def test_next_token_tool(page, model, tokenizer):
    box = tool_of(page, "next")
    story = DATA["stories"][1]
    box.locator("select").select_option("1")
    ids = torch.tensor([[tokenizer.eot, *story["ids"]]])
    with torch.no_grad():
        loss = model(ids[:, :-1], ids[:, 1:])[1].item()
    exact = -read_back(story["text"]) / len(story["ids"])
    want = rf"the model {loss:.3f}, the bigram \d\.\d+, the exact odds {exact:.3f}\."
    box.get_by_text(re.compile(want)).wait_for()
    slider = box.locator("input[type=range]")
    slider.focus()
    slider.press("Home")
    rows = dict(DATA["stories"][1]["exact"][0])
    first = max(rows, key=rows.get)
    cells = box.locator("tbody tr").first.locator("th, td").all_inner_texts()
    assert cells[0].split()[0] == tokenizer.decode([first])
    assert cells[-1] == f"{100 * rows[first]:.0f} %"
    slider.press("ArrowRight")
    page.wait_for_function("document.querySelector('[data-play=next] output').textContent === '1'")
    box.locator("select").select_option("own")
    typed(box, "One day, Mia and Ben were")
    box.locator("thead").get_by_text("exact").wait_for(state="detached")
    slider.press("End")
    with torch.no_grad():
        probs = model(torch.tensor([encode_prompt(tokenizer, "One day, Mia and Ben were")]))[0]
    top = probs[0, -1].softmax(0).max().item()
    assert box.locator("tbody tr").first.locator("td").first.inner_text() == f"{100 * top:.0f} %"
    typed(box, "")
    says(box, "the text is empty; type a word")


def test_sampling_tool(page, model, tokenizer):
    box = tool_of(page, "sampling")
    prompt = "One morning, Anna was in the barn with Leo."
    typed(box, prompt)
    temperature = box.get_by_label("Temperature")
    temperature.press("Home")
    page.wait_for_function(
        "document.querySelector('[data-play=sampling] .play-story').textContent"
        f" === {json.dumps(prompt)}"
    )
    assert "1 of 846 tokens can follow" in box.inner_text()
    box.get_by_role("button", name="Write a story").click()
    (want,) = complete(model, tokenizer, prompt, 127, temperature=0)
    page.wait_for_function(
        "want => document.querySelector('[data-play=sampling] .play-story').textContent === want",
        arg=prompt + want,
    )
    says(box, "the context of 128 tokens is full; start again")
    typed(box, DATA["stories"][0]["text"])
    no_error(box)
    box.get_by_text("100 %").first.wait_for()
    box.get_by_role("button", name="One token").click()
    box.get_by_text("The model has ended its story. Start again for another.").wait_for()
    box.get_by_role("button", name="Start again").click()
    no_error(box)
    temperature.press("End")
    top_k = box.get_by_label("Top-k")
    top_k.press("Home")
    top_k.press("ArrowRight")
    box.get_by_text("2 of 846 tokens can follow").wait_for()
    assert box.locator("tr.play-gone").count() == 8
    box.locator("tbody button").nth(2).click()  # a token that the knobs cut off, by hand
    page.wait_for_function(
        "document.querySelector('[data-play=sampling] .play-story strong').textContent !== ''"
    )
    typed(box, "a b c d e f g " * 20)
    box.get_by_role("button", name="Write a story").click()
    says(box, re.compile(r"^the text has \d+ tokens and the context holds 128; shorten it by \d+$"))
    box.locator("textarea").fill("")  # as training texts begin: allowed
    no_error(box)


def test_attention_tool_by_keyboard(page, model, tokenizer):
    box = tool_of(page, "attention")
    text = "One day, Mia and Ben were in the park. Mia had a ball. She gave the ball to Ben."
    typed(box, text)
    ids = encode_prompt(tokenizer, text)
    strip = box.locator(".play-strip")
    tokens_shown(page, len(ids))
    page.mouse.move(0, 0)
    box.get_by_label("1.0", exact=True).check()
    box.get_by_label("1.0", exact=True).press("Tab")
    assert strip.locator("button:focus").count() == 1  # one stop for the whole strip
    page.keyboard.press("Home")
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    weights = model.attention_weights(torch.tensor([ids]))[1, 0, 0, 5]  # layer 1, head 0
    best = int(weights.argmax())
    word = tokenizer.decode([ids[best]]).replace(" ", "Ġ")
    want = f"Head 1.0: Ġand (5) looks at {word} ({best}) {100 * weights[best]:.0f} %"
    box.get_by_text(want).wait_for()
    strip.locator("button").nth(9).hover()
    box.get_by_text(re.compile(r"Head 1\.0: \S+ \(9\) looks at")).wait_for()
    assert box.locator("tbody tr").count() == 6  # every head
    typed(box, "")
    says(box, "the text is empty; type a few words")


def test_training_tool(page):
    box = tool_of(page, "training")
    slider = box.locator("input[type=range]")
    prompt = DATA["training"]["prompts"][1]
    box.locator("select").select_option("1")
    for key, i, loss in (
        ("Home", 0, "6.820"),
        ("End", -1, f"{DATA['training']['train'][-1][1]:.3f}"),
    ):
        slider.press(key)
        assert box.locator(".play-story").text_content() == prompt["prompt"] + prompt["texts"][i]
        assert f"Step {DATA['training']['steps'][i]}: training loss {loss}" in box.inner_text()
    assert box.locator("svg").get_attribute("aria-label").startswith("Training loss by step")


VERDICTS = [
    ("tiny", "train", "1", "6.83", "✓ right: ln V is 6.798"),
    ("gpt2-124m", "train", "0", "10.98", "✓ right"),
    ("gpt2-124m", "train", "1", "10.826", "✗ exactly ln V: all logits are equal"),
    ("gpt2-124m", "train", "1", "43.92", "✗ 4 times the expected 10.98: the losses of 4 pieces"),
    ("tiny", "train", "1", "30", "✗ too high, expected 6.82: the weights are too large"),
    ("tiny", "train", "1", "4", "✗ too low, expected 6.82"),
    ("tiny", "train", "200", "1.07", "✓ right: our six runs had 0.98 to 1.16 here"),
    ("tiny", "val", "740", "0.71", "✓ right"),
    ("tiny", "val", "740", "0.713", "✓ right"),
    ("tiny", "train", "200", "6.8", "✗ still at ln V"),
    ("tiny", "train", "300", "4.5", "✗ stuck near the unigram loss"),
    ("tiny", "train", "500", "2.1", "✗ stuck near the bigram loss"),
    ("tiny", "train", "500", "1.5", "✗ higher than in any of our six runs"),
    ("tiny", "train", "100", "0.9", "✗ lower than in any of our six runs"),
    ("tiny", "train", "500", "0.2", "✗ below the floor of 0.601"),
    ("tiny", "train", "5000", "0.68", "? possible: the preset ends at step 740"),
    ("tiny", "train", "100", "9", "✗ above ln V = 6.798, worse than guessing"),
    ("small-cpu", "train", "900", "0.9", "? possible"),
    ("gpt2-124m", "val", "19073", "3.2", "✓ right: runs over 10B tokens"),
    ("gpt2-124m", "val", "5000", "2.1", "✗ lower than any published run"),
    ("gpt2-124m", "val", "5000", "3.6", "? possible"),
    ("gpt2-774m", "val", "60000", "2.7", "? possible"),
    ("gpt2-1558m", "val", "300000", "2.5", "? possible"),
    ("tiny", "train", "100", "nan", "✗ nan: the learning rate is too high"),
]


def test_loss_tool(page):
    box = tool_of(page, "loss")
    for preset, kind, step, loss, want in VERDICTS:
        box.get_by_label("Preset").select_option(preset)
        box.get_by_label("Which loss").select_option(kind)
        box.get_by_label("Step").fill(step)
        box.get_by_label("Loss, nats per token").fill(loss)
        page.wait_for_function(
            "want => document.querySelector('[data-play=loss] .play-verdict').textContent"
            ".startsWith(want)",
            arg=want,
        )
    for field, wrong, want in (
        ("Step", "soon", "step is “soon”, expected a whole number, 0 or more"),
        ("Loss, nats per token", "low", "loss is “low”, expected a number such as 1.07, or nan"),
        (
            "Loss, nats per token",
            "-2",
            "loss is -2: a cross-entropy is never negative; was the sign lost?",
        ),
    ):
        box.get_by_label("Step").fill("10")
        box.get_by_label(field).fill(wrong)
        says(box, want)


def test_every_run_that_is_stored_gets_a_right_verdict(page):
    "The six runs of the page, step by step."
    for path in sorted((ROOT / "benchmarks" / "logs").glob("tiny_avx*.jsonl")):
        for text in path.read_text(encoding="utf-8").splitlines():
            e = json.loads(text)
            if e["event"] in ("train", "val"):
                run = "async ([d, k, s, l]) => play.verdict(d, 'tiny', k, s, l)"
                got = page.evaluate(run, [DATA["loss"], e["event"], e["step"], e["loss"]])
                assert got["fine"] is True, (path.name, e, got)


# the reader's own model


@pytest.fixture
def fresh(browser, site):
    page = visit(browser, site)
    yield page
    page.context.close()


def test_a_reader_puts_in_the_model_they_trained(fresh, tmp_path):
    file, _, own = small(tmp_path)
    box = tool_of(fresh, "attention")
    box.locator("input[type=file]").set_input_files(file)
    box.get_by_text(re.compile(r"Model: mine, [\d,]+ parameters, 1 layers, 2 heads")).wait_for()
    typed(box, "Anna had a ball.")
    ids = encode_prompt(own, "Anna had a ball.")
    tokens_shown(fresh, len(ids))
    other = tool_of(fresh, "next")  # every tool of the page uses it
    other.locator("select").select_option("own")
    typed(other, "Anna")
    other.get_by_text("Mean loss on this text, in nats per token: the model ").wait_for()
    assert other.locator("thead th").all_inner_texts() == ["next token", "model"]
    logits = fresh.evaluate(
        "async bytes => { const m = gpt2edu.open(new Uint8Array(bytes).buffer, 'x');"
        " return [...m.forward(m.encodePrompt('Anna had')).at(-1)] }",
        [*file.read_bytes()],
    )
    rounded = opened(file)
    with torch.no_grad():
        want = rounded(torch.tensor([encode_prompt(own, "Anna had")]))[0][0, -1]
    assert (torch.tensor(logits) - want).abs().max() < 1e-3


def test_the_tools_take_a_block_of_today(fresh, tmp_path):
    "The attention tool shows each head of queries, though two share their keys."
    file, _, own = small(tmp_path, "today", sizes=(1, 4, 48, 32), **ALL)
    box = tool_of(fresh, "attention")
    box.locator("input[type=file]").set_input_files(file)
    box.get_by_text(re.compile(r"Model: today, [\d,]+ parameters, 1 layers, 4 heads")).wait_for()
    text = "Anna had a ball."
    typed(box, text)
    tokens_shown(fresh, len(encode_prompt(own, text)))
    assert box.locator("tbody tr").count() == 4
    box.get_by_label("0.3", exact=True).check()
    box.get_by_text(re.compile(r"Head 0\.3: \S+ \(\d+\) looks at")).wait_for()
    other = tool_of(fresh, "sampling")
    typed(other, "Anna")
    no_error(other)
    with torch.no_grad():
        (want,) = complete(opened(file), own, "Anna", 5, temperature=0)
    run = "async ([bytes, p]) => { const m = gpt2edu.open(new Uint8Array(bytes).buffer, 'x');"
    run += " const knobs = { temperature: 0, maxTokens: 5 };"
    run += " return m.tokenizer.decode([...gpt2edu.generate(m, p, knobs)]) }"
    assert fresh.evaluate(run, [[*file.read_bytes()], "Anna"]) == want


def test_a_model_can_be_dropped(fresh, tmp_path):
    file, _, _ = small(tmp_path, "dropped")
    box = tool_of(fresh, "sampling")
    box.locator(".play-box").evaluate(
        "(e, bytes) => { const t = new DataTransfer();"
        " t.items.add(new File([new Uint8Array(bytes)], 'dropped.safetensors'));"
        " e.dispatchEvent(new DragEvent('drop', { dataTransfer: t, bubbles: true })) }",
        [*file.read_bytes()],
    )
    box.get_by_text("Model: dropped,").wait_for()
    assert "Model: tiny," not in box.inner_text()


def test_files_that_the_page_cannot_read_give_one_line(fresh, tmp_path):
    file, _, _ = small(tmp_path)
    whole = file.read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[:-100])
    (tmp_path / "head.safetensors").write_bytes(whole[:500])
    (tmp_path / "empty.safetensors").write_bytes(b"")
    (tmp_path / "words.safetensors").write_text(
        "these are words, and no weights at all", encoding="utf-8"
    )
    save_file({"a": torch.zeros(2)}, tmp_path / "other.safetensors")
    with zipfile.ZipFile(tmp_path / "zip.safetensors", "w") as pack:
        pack.writestr("mine.safetensors", whole)
    vocabulary, embedding = b'\\"vocab_size\\": 300', b'"shape":[300,16],"data_offsets"'
    start = 8 + int.from_bytes(whole[:8], "little")
    for name, was, now in (  # each as long as before, so that all else stays in its place
        ("sizes", b'\\"n_embd\\": 16', b'\\"n_embd\\": 18'),
        ("heads", b'\\"n_head\\": 2', b'\\"n_head\\": 3'),
        ("ids", vocabulary, vocabulary.replace(b"300", b"299")),
        ("rows", vocabulary, vocabulary.replace(b"300", b"400")),
        ("numbers", embedding, embedding.replace(b"300", b"301")),
        ("braces", b'"dtype":"F16"', b'"dtype";"F16"'),
        ("inner", b'\\"config\\":', b'\\"config\\";'),
        ("named", b'\\"tokenizer\\":', b'\\"tokeniser\\":'),
    ):
        assert was in whole[:start] and len(was) == len(now), name
        (tmp_path / f"{name}.safetensors").write_bytes(whole.replace(was, now, 1))
    for name, bits in (("nan", b"\x00\x7e"), ("inf", b"\x00\x7c")):
        broken = whole[:start] + bits + whole[start + 2 :]
        (tmp_path / f"{name}.safetensors").write_bytes(broken)
    for name, was, now in (("field", b"n_head", b"n_hand"), ("word", b"rope", b"spin")):
        turned = small(tmp_path, f"turned {name}", position="rope")[0].read_bytes()
        (tmp_path / f"{name}.safetensors").write_bytes(turned.replace(was, now))
    wrong = {
        "cut": r"cut\.safetensors is cut short: \d+ bytes, \S+ ends at \d+; copy it again",
        "head": r"head\.safetensors is cut short: 500 bytes, its header ends at \d+; copy it again",
        "empty": r"empty\.safetensors is not a safetensors file; write it with: .*--web",
        "words": r"words\.safetensors is not a safetensors file; write it with: .*--web",
        "other": r"other\.safetensors is not an export for this page: its format is not named; .*",
        "zip": r"zip\.safetensors is not a safetensors file; write it with: .*--web",
        "sizes": r"sizes\.safetensors: wte.weight is \d+ × 16, expected \d+ × 18; write it with.*",
        "heads": r"heads\.safetensors: n_head=3 does not divide n_embd=16; write it with: .*",
        "ids": r"ids\.safetensors: its tokenizer has 300 ids and its model 299; write it with: .*",
        "rows": r"rows\.safetensors: wte.weight is 300 × 16, expected 400 × 16; write it with: .*",
        "numbers": r"numbers\.safetensors: \S+ holds 4800 numbers, expected 4816; copy it again",
        "braces": r"braces\.safetensors: its header is not JSON; write it with: .*--web",
        "inner": r"inner\.safetensors: its sizes are not JSON; write it with: .*--web",
        "named": r"named\.safetensors has no tokenizer; write it with: .*--web",
        "nan": r"nan\.safetensors: \S+ holds NaN or infinity; export a run that did not diverge",
        "inf": r"inf\.safetensors: \S+ holds NaN or infinity; export a run that did not diverge",
        "field": r"field\.safetensors: n_hand=2 is unknown to this page; write it with: .*--web",
        "word": r"word\.safetensors: position=spin is unknown to this page; write it with: .*",
    }
    box = tool_of(fresh, "attention")
    for name, want in wrong.items():
        box.locator("input[type=file]").set_input_files(tmp_path / f"{name}.safetensors")
        says(box, re.compile(f"^{want}$"))
    assert "Model: tiny" in box.inner_text()  # the model that was there is still there


# the page as a whole


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_has_no_error_and_no_sideways_scroll(browser, site, width, scheme):
    page = visit(browser, site, viewport={"width": width, "height": 844}, color_scheme=scheme)
    for kind in ("tokenizer", "next", "sampling", "attention", "training", "loss"):
        box = tool_of(page, kind)
        no_error(box)
        for control in box.locator("input, select, textarea, button").all()[:12]:
            assert control.evaluate(
                "e => !!(e.labels && e.labels.length || e.textContent.trim() || e.ariaLabel)"
            )
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert not [p for p in page.problems if site in p or "http" not in p], page.problems
    page.context.close()


def test_a_chapter_loads_its_tool_from_where_it_is(browser, site):
    page = visit(browser, site, "nbs/medium/ch08_attention.html")
    box = tool_of(page, "attention")
    assert "Head 0.2: Ġso" in box.inner_text()  # the sentence of the chapter's figure
    assert "On the website, a tool stands here" not in box.inner_text()
    page.context.close()


def test_a_tool_loads_nothing_before_it_is_seen(browser, site):
    "A chapter stays light: its tool is far down."
    page = visit(browser, site, "nbs/medium/ch08_attention.html")
    loaded = set()
    page.on("response", lambda r: loaded.add(r.url.rsplit("/", 1)[1]))
    page.reload(wait_until="networkidle")
    assert {"gpt2edu.js", "play.js", "play.css"} <= loaded
    assert not loaded & {"tiny.safetensors", "gpt2.bpe", "play.json"}
    tool_of(page, "attention")
    assert "tiny.safetensors" in loaded and "gpt2.bpe" not in loaded
    page.context.close()


def test_without_javascript_a_figure_stands_in(browser, site):
    page = visit(browser, site, java_script_enabled=False)
    places = page.locator(".play").all()
    assert len(places) == 6
    for place in places[:-1]:
        image = place.locator("img")
        assert image.get_attribute("alt") and image.bounding_box()["height"] > 80
    assert places[-1].locator("a").get_attribute("href").endswith("is-my-loss-right.html#tiny")
    page.context.close()


def test_notebooks_show_a_sentence_where_the_site_has_a_tool():
    "Jupyter knows no tool: what is in the place must read as a sentence with a link."
    found = 0
    for path in sorted((ROOT / "book").glob("*/ch*.md")):
        text = path.read_text(encoding="utf-8")
        for kind, inner in re.findall(
            r'^<div class="play" data-play="(\w+)">\n\n(.+)\n\n</div>$', text, re.M
        ):
            found += 1
            link = rf"\(../../book/playground.qmd#{kind}\)"
            assert re.fullmatch(rf"On the website, a tool stands here: \[.+\]{link}\.", inner)
    assert found >= 6
