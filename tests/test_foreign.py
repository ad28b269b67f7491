"Folders of other people: a model without a tokenizer, one without weights, other tokenizers."

import json
import os
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest
import torch
import transformers
import warm
from safetensors.torch import load_file
from tokenizers import Tokenizer as Judge

from gpt2edu.cli import commands, flags
from gpt2edu.data.shards import open_shards, write_shards
from gpt2edu.machine.atomic import write_atomically
from gpt2edu.model.gpt import GPT, GPTConfig
from gpt2edu.model.pretrained import export, from_pretrained
from gpt2edu.text.corpus import stories
from gpt2edu.text.tokenizer import EOT, Tokenizer, from_transformers, get_tokenizer
from gpt2edu.train.log import RunLog, draw_loss

TEXT = "Hello 1234, it's <|pad|> née\n\n  two"


@pytest.fixture(scope="module")
def ours():
    return Tokenizer.train([s.text for s in stories(50)], 300, "ours")


@pytest.fixture
def folder(ours, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = GPT(GPTConfig(1, 1, 8, 32, ours.n_vocab))
    return export(model, ours, tmp_path / "hf")


def refused(capsys, command, *args):
    "Run a command that must end with one line and exit code 2."
    with pytest.raises(SystemExit) as e:
        getattr(commands, command)([*args])
    err = capsys.readouterr().err
    assert e.value.code == 2 and err.count("\n") == 1 and err.endswith("\n"), err
    return err


COMMANDS = {  # case 06
    "generate": ("--run", "hf"),
    "export": ("--run", "hf", "--out", "o"),
    "eval_": ("--model", "hf"),
    "train": ("--resume", "hf"),
    "plan": ("--resume", "hf"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_says_that_the_weights_are_missing(command, folder, capsys):
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    err = refused(capsys, command, *COMMANDS[command])
    missing = "hf/model.safetensors is missing; expected config.json, model.safetensors; "
    assert missing in err and "pytorch_model.bin can hold code and is not read" in err
    assert not Path("o").exists()


@pytest.mark.parametrize("command", ["train", "plan"])
def test_a_model_of_transformers_is_no_run(command, folder, capsys):
    err = refused(capsys, command, *COMMANDS[command])
    assert "hf is a model as transformers writes it, not a run" in err
    assert "gpt2edu_generate --run hf" in err


def test_it_is_never_the_latest_run(folder, tmp_path, capsys):
    (tmp_path / "runs").mkdir()
    shutil.move(folder, tmp_path / "runs" / "hf")
    assert "there is no run in runs/ yet" in refused(capsys, "generate")


def test_weights_and_config_without_a_tokenizer(folder, ours, tmp_path, capsys):
    "What `save_pretrained` of a model writes."
    hf = transformers.GPT2LMHeadModel.from_pretrained(folder)
    hf.save_pretrained(tmp_path / "alone")
    assert not (tmp_path / "alone" / "tokenizer.json").exists()
    model, none = from_pretrained("alone")
    assert none is None
    idx = torch.arange(16)[None]
    with torch.no_grad():
        torch.testing.assert_close(model(idx)[0], hf(idx).logits, rtol=1e-4, atol=1e-5)
    assert from_pretrained("alone", tokenizer=ours)[1] is ours
    capsys.readouterr()
    assert "alone has no tokenizer.json; name its tokenizer with --tokenizer" in refused(
        capsys, "generate", "--run", "alone"
    )
    few = ["--max_tokens", "5", "--seed", "1", "--prompt", "One"]
    commands.generate(["--run", "hf", *few])
    text = capsys.readouterr().out
    for own in ("hf", "hf/tokenizer.json", str(ours.save(tmp_path / "tok"))):
        commands.generate(["--run", "alone", "--tokenizer", own, *few])
        assert capsys.readouterr().out == text
    judge = ["--tasks", "stories", "--choice_items", "2", "--json"]
    assert "alone has no tokenizer.json" in refused(capsys, "eval_", "--model", "alone", *judge)
    commands.eval_(["--model", "alone", "--tokenizer", "hf", *judge])
    assert json.loads(capsys.readouterr().out)["model"] == "alone"
    for more in ([], ["--web"]):
        assert "alone has no tokenizer.json" in refused(capsys, "export", "--run", "alone", *more)
    begin = ["--init_from", "alone", "--dry_run"]
    assert "alone has no tokenizer.json" in refused(capsys, "train", *begin)
    commands.export(["--run", "alone", "--tokenizer", "hf", "--out", "whole"])
    same = ("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json")
    assert all(Path("whole", f).read_bytes() == Path("hf", f).read_bytes() for f in same)


def test_the_package_s_model_is_exported_and_another_name_gets_a_remedy(folder, capsys):
    commands.export(["--run", "tiny"])
    out = capsys.readouterr().out
    assert "next: gpt2edu_generate --run " in out and Path("exports/tiny/vocab.json").exists()
    commands.export(["--run", "exports/tiny", "--web"])
    assert Path("exports/tiny.safetensors").exists()
    for name, fix in {
        "exports/tiny.safetensors": "it is a file; name the folder of a model",
        "tiny-sft": "train it with: gpt2edu_train --preset tiny-sft --out_dir 'my runs'",
        "other": "make one with: gpt2edu_train --out_dir 'my runs'",
        "": "the name of the run is empty; name one, or leave it out for the latest",
    }.items():
        err = refused(capsys, "export", "--run", name, "--out_dir", "my runs")
        assert err.rstrip("\n").endswith(fix), err


def test_a_tokenizer_with_too_many_ids_is_refused(folder, tmp_path, capsys):
    (folder / "tokenizer.json").unlink()
    err = refused(capsys, "generate", "--run", "hf", "--tokenizer", "gpt2")
    assert "is less than the 50257 ids of its tokenizer" in err


def test_our_exports_tokenizer_is_a_tokenizer(folder, ours):
    for path in (folder, folder / "tokenizer.json", str(folder)):
        again = get_tokenizer(path)
        assert again.hash == ours.hash and again.name == "hf"


def within(kind, **more):
    "Put a pre-tokenizer in front of the one that is there."
    return lambda j: j.update(
        pre_tokenizer={
            "type": "Sequence",
            "pretokenizers": [{"type": kind, **more}, j["pre_tokenizer"]],
        }
    )


def add(content, **more):
    token = {"content": content, "id": 0, "single_word": False, "lstrip": False, "rstrip": False}

    def change(j):
        j["added_tokens"].append(
            token | {"normalized": False, "special": True, "id": len(j["model"]["vocab"])} | more
        )

    return change


TEMPLATE = {
    "type": "TemplateProcessing",
    "single": [
        {"SpecialToken": {"id": EOT, "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
    ],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
    "special_tokens": {EOT: {"id": EOT, "ids": [299], "tokens": [EOT]}},
}
OTHER = {  # case 07: what is changed, and the words that name it
    "prefix": (lambda j: j["pre_tokenizer"].update(add_prefix_space=True), "add_prefix_space=True"),
    "regex": (lambda j: j["pre_tokenizer"].update(use_regex=False), "use_regex=False"),
    "lower": (lambda j: j.update(normalizer={"type": "Lowercase"}), "normalizer='Lowercase'"),
    "nfc": (
        lambda j: j.update(normalizer={"type": "Sequence", "normalizers": [{"type": "NFC"}]}),
        "normalizer='NFC'",
    ),
    "digits": (
        within("Digits", individual_digits=True),
        "pre_tokenizer='Digits, ByteLevel'",
    ),
    "split": (
        within("Split", pattern={"String": "a"}, behavior="Isolated", invert=False),
        "pre_tokenizer='Split, ByteLevel'",
    ),
    "none": (lambda j: j.update(pre_tokenizer=None), "pre_tokenizer=None"),
    "white": (lambda j: j.update(pre_tokenizer={"type": "Whitespace"}), "pre_tokenizer='White"),
    "template": (
        lambda j: j.update(post_processor=TEMPLATE),
        "post_processor='TemplateProcessing'",
    ),
    "decoder": (lambda j: j.update(decoder={"type": "Fuse"}), "decoder='Fuse'"),
    "pad": (add("<|pad|>"), "added token='<|pad|>'"),
    "word": (add("Hello", special=False), "added token='Hello'"),
    "dropout": (lambda j: j["model"].update(dropout=0.5), "dropout=0.5"),
    "suffix": (lambda j: j["model"].update(end_of_word_suffix="</w>"), "end_of_word_suffix='</w>'"),
    "kind": (lambda j: j["model"].update(type="WordPiece"), "model='WordPiece'"),
}


@pytest.mark.parametrize("kind", OTHER)
def test_a_setting_that_we_do_not_reproduce_is_refused_by_name(kind, folder, capsys):
    file = folder / "tokenizer.json"
    plain = json.loads(file.read_text(encoding="utf-8"))
    change, words = OTHER[kind]
    change(plain)
    file.write_text(json.dumps(plain), encoding="utf-8")
    for load in (from_pretrained, get_tokenizer, lambda p: from_transformers(p / file.name, "x")):
        with pytest.raises(ValueError) as e:
            load(folder)
        assert f"{file}: {words}" in str(e.value) and "\n" not in str(e.value)
    err = refused(capsys, "generate", "--run", "hf", "--prompt", "x")
    assert words in err


@pytest.mark.parametrize(
    "name", ["add_prefix_space", "add_bos_token", "do_lower_case", "pad_token"]
)
def test_so_it_is_in_the_file_beside_it(name, folder):
    file = folder / "tokenizer_config.json"
    about = json.loads(file.read_text(encoding="utf-8"))
    about[name] = "[PAD]" if name == "pad_token" else True
    file.write_text(json.dumps(about), encoding="utf-8")
    words = "added token='\\[PAD\\]'" if name == "pad_token" else f"{name}=True"
    with pytest.raises(ValueError, match=words):
        from_pretrained(folder)


HARMLESS = {
    "template": lambda j: j.update(
        post_processor=TEMPLATE | {"special_tokens": {}, "single": TEMPLATE["single"][1:]}
    ),
    "bytes": lambda j: j.update(
        post_processor={"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False}
    ),
    "inside": lambda j: j.update(
        pre_tokenizer={"type": "Sequence", "pretokenizers": [j["pre_tokenizer"]]}
    ),
    "null": lambda j: j.update(normalizer=None, truncation=None, padding=None),
    "merges": lambda j: j["model"].update(merges=[m.split(" ") for m in j["model"]["merges"]]),
}


@pytest.mark.parametrize("kind", HARMLESS)
def test_what_changes_no_id_is_accepted(kind, folder):
    file = folder / "tokenizer.json"
    plain = json.loads(file.read_text(encoding="utf-8"))
    HARMLESS[kind](plain)
    file.write_text(json.dumps(plain), encoding="utf-8")
    _, tokenizer = from_pretrained(folder)
    assert tokenizer.encode(TEXT) == Judge.from_file(str(file)).encode(TEXT).ids


def test_what_transformers_saves_again_is_accepted(folder, ours, tmp_path):
    transformers.AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path / "again")
    assert get_tokenizer(tmp_path / "again").hash == ours.hash


@pytest.mark.parametrize("data", ["{}", "[]", "null", "1", '{"model": 1}', "[" * 100_000, "{"])
def test_an_altered_file_is_one_line(data, folder, capsys):
    (folder / "tokenizer.json").write_text(data, encoding="utf-8")
    assert "tokenizer.json" in refused(capsys, "generate", "--run", "hf")
    (folder / "tokenizer_config.json").write_text(data, encoding="utf-8")
    refused(capsys, "generate", "--run", "hf")


def test_training_takes_our_exports_tokenizer(folder, tmp_path):
    (tmp_path / "t.txt").write_text("\n\n".join(s.text for s in stories(80)), encoding="utf-8")
    small = "--n_layer 1 --n_head 1 --n_embd 8 --block_size 16 --total_batch 128 --micro_batch 8"
    small += " --max_steps 1 --choice_items 0 --val_tokens 64 --device cpu"
    args = ["train", "--dataset", "t.txt", "--tokenizer", "hf/tokenizer.json", *small.split()]
    command = [sys.executable, "-m", "gpt2edu.cli", *args]
    done = warm.run(command)
    assert done.returncode == 0, done.stderr
    assert Tokenizer.load(tmp_path / "runs" / "tiny").hash == get_tokenizer("hf").hash


# what is printed

SMALL = "--n_layer 1 --n_head 2 --n_embd 16 --block_size 32 --total_batch 256 --micro_batch 8"
SMALL += " --optimizer adamw --choice_items 0 --val_tokens 512 --vocab_size 300 --max_steps 1"
SMALL = [*SMALL.split(), "--device", "cpu"]
PARTS = [f"Paragraph {i}. " + "The quick brown fox jumps over the dog. " * 30 for i in range(30)]


PYTHON = shlex.quote(sys.executable)


def shell(line, **env):
    "Type a line in a shell, with `python -m gpt2edu.cli` for `gpt2edu_`."
    line = line.replace("gpt2edu_", f"{PYTHON} -m gpt2edu.cli ", 1)
    return warm.shell(line, env=os.environ | env)


def test_the_next_lines_are_quoted_and_name_the_run(tmp_path, monkeypatch):
    "Case 10: another run is there, and the folder's name has a blank."
    monkeypatch.chdir(tmp_path)
    Path("t.txt").write_text("\n\n".join(PARTS), encoding="utf-8")
    train = ["gpt2edu_train --dataset t.txt", *SMALL]
    assert shell(" ".join([*train, "--name old"])).returncode == 0
    name = "it's $(touch pwned) \\$x^2$"
    out = shell(" ".join([*train, "--out_dir 'my runs' --name", shlex.quote(name)]))
    assert out.returncode == 0 and out.stderr == "", out.stderr
    lines = re.findall(r"^next: (.*)$", out.stdout, re.M)
    assert len(lines) == 2 and "--prompt 'Paragraph" in lines[0]
    done = [shell(line) for line in lines]
    assert [d.returncode for d in done] == [0, 0], done
    assert "--- 3 of 3\nParagraph" in done[0].stdout and "step 2/2" in done[1].stdout
    run = Path("my runs") / name
    assert not Path("pwned").exists() and (run / "loss.png").exists()


FEW = "--device cpu --choice_items 4 --val_tokens 512 --max_steps 1"
ROWS = f"{FEW} --total_batch 1024 --micro_batch 4 --conversations 20"
MORE = {  # what is typed besides, so that a line is quick
    "gpt2edu_train --shards": f"{FEW} --vocab_size 300",
    "--preset tiny-sft": ROWS,
    "gpt2edu_train --out_dir": f"{FEW} --name first",
    "gpt2edu_chat": "--max_tokens 3",
    "gpt2edu_generate": "--max_tokens 3",
}
OUT, NAME = "--out_dir 'my runs'", '"it\'s"'
GRPO = f"gpt2edu_train --preset tiny-grpo --group 2 --answer_tokens 4 {ROWS} {OUT}"
TYPED = {  # lines; how many they print to type next, or the remedy of a mistake
    "texts": [
        (f"gpt2edu_generate {OUT}", r"make one with: (gpt2edu_train .*)$"),
        (f"gpt2edu_train --dataset t.txt {FEW} {OUT} --name {NAME}", 2),
        (f"gpt2edu_train --dataset t.txt --init_from {NAME} --lora_rank 2 {FEW} {OUT} --name l", 2),
        (f'gpt2edu_export --run l {OUT} --out "a copy\'s"', 2),
        (f"gpt2edu_export --run 'my runs/l/adapter' {OUT}", 2),
        (f"gpt2edu_chat --run {NAME} {OUT}", r"first: (gpt2edu_train .*)$"),
        ("gpt2edu_prepare --dataset t.txt --tokenizer train --vocab_size 300 --val_tokens 600 "
         '--data_dir "what\'s here"', 1),
    ],
    "answers": [
        (f"gpt2edu_train --preset tiny-sft --init_from tiny {ROWS} {OUT} --name {NAME}", 2),
        (f"gpt2edu_export --run {NAME} {OUT}", 2),
        ('gpt2edu_train --resume "exports/it\'s"', r"open it with: (gpt2edu_gen.*), or"),
        (f"gpt2edu_eval --run {NAME} {OUT} --tasks questions --choice_items 4", 0),
        (f"{GRPO} --init_from {NAME} --micro_batch 2 --name grpo", 2),
        (f"{GRPO} --init_from tiny", r"first: (gpt2edu_train .*)$"),
    ],
}  # fmt: skip


def follow(line, expected=0):
    "Type a line, and then those that it prints; return all of them."
    mistake = isinstance(expected, str)
    whole = line + "".join(f" {v}" for k, v in MORE.items() if k in line and not mistake)
    if line.startswith("transformers"):
        whole = f"{PYTHON} -c {shlex.quote('import transformers; ' + line)}"
    done = shell(f"{whole} <<< 'Where is it?'")
    assert done.returncode == (2 if mistake else 0), (line, done.stdout, done.stderr)
    fix = expected if mistake else r"^next: ((?:gpt2edu_|transformers).*)$"
    lines = re.findall(fix, done.stderr if mistake else done.stdout, re.M)
    assert len(lines) >= (1 if mistake else expected), (line, done.stdout, done.stderr)
    return [line] + [x for new in lines if mistake or "--resume" not in line for x in follow(new)]


@pytest.mark.slow
@pytest.mark.parametrize("kind", TYPED)
def test_every_line_to_type_next_can_be_typed(kind, tmp_path, monkeypatch):
    "After each command and each remedy, in a folder whose name has a blank and a quote."
    (here := tmp_path / "it's my $place").mkdir()
    monkeypatch.chdir(here)
    Path("t.txt").write_text("\n\n".join(s.text for s in stories(300)), encoding="utf-8")
    typed = [x for step in TYPED[kind] for x in follow(*step)]
    assert len(typed) > 12 and sum("my runs" in line for line in typed) > 8, typed


def test_a_token_and_control_characters_are_in_no_line(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "secret-of-mine")
    said = "illegal header value b'Bearer secret-of-mine\\n' \x1b[31m\x9b \u202e https://me:pw@x/"
    line = flags.in_one_line(ValueError(said))
    shown = flags.visible(line)
    assert "secret" not in shown and "pw" not in shown and shown.isprintable()
    assert "hf_" + "a" * 30 not in flags.visible("token hf_" + "a" * 30)
    assert flags.visible("runs/hf_model\tof\nmine") == "runs/hf_model\tof\nmine"


@pytest.mark.slow  # the hub's client asks again for 25 seconds
def test_a_password_of_the_mirror_is_in_no_line(tmp_path):
    "The hub's client logs the address with each attempt."
    hub = {"HF_ENDPOINT": "http://me:secret-of-mine@127.0.0.1:9", "HF_HOME": str(tmp_path)}
    done = shell("gpt2edu_generate --run gpt2", **hub)
    assert done.returncode == 2 and "Retrying" in done.stderr
    assert "secret-of-mine" not in done.stderr + done.stdout and "***@127.0.0.1:9" in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_standard_error_keeps_the_exit_code():
    assert shell("gpt2edu_train --lr abc 2>/dev/full").returncode == 2
    assert shell("gpt2edu_generate --run nowhere 2>/dev/full").returncode == 2


def test_one_column_is_enough_for_help_and_errors():
    done = shell("gpt2edu_train --help", COLUMNS="1")
    assert done.returncode == 0 and "--max_steps" in done.stdout
    assert shell("gpt2edu_train --lr abc", COLUMNS="1").stderr.count("\n") == 1


def test_a_name_of_no_mathematics(tmp_path):
    log = RunLog(tmp_path / "log.jsonl")
    log.write("train", step=1, loss=2.0)
    for name in ("$x^{$", "a$\\frac$b", "n" * 255):
        figure = draw_loss(log, name)
        figure.savefig(tmp_path / "loss.svg", metadata={"Date": None})
        title = figure.axes[0].title
        assert name[:59] in title.get_text() and not title.get_parse_math()
        drawn = (tmp_path / "loss.svg").read_text(encoding="utf-8")
        assert f"<!-- {title.get_text()} -->" in drawn  # as a text, and not as a formula


@pytest.mark.parametrize("name", ["../x.bin", "/etc/passwd", "a/b.bin", "a\\\\b.bin", "..", ""])
def test_a_manifest_names_files_of_its_folder_only(name, ours, tmp_path):
    write_shards([s.text for s in stories(200)], ours, tmp_path / "d", "d", val_tokens=100)
    file = tmp_path / "d" / "manifest.json"
    data = json.loads(file.read_text(encoding="utf-8"))
    data["shards"][0]["file"] = name
    file.write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(ValueError, match="is not the name of a file in this folder"):
        open_shards(tmp_path / "d", "train")


def test_eval_writes_nothing_where_a_config_says(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("t.txt").write_text("\n\n".join(PARTS), encoding="utf-8")
    commands.train(["--dataset", "t.txt", *SMALL])
    commands.eval_(["--tasks", "val"])
    file = Path("runs/tiny/config.json")
    data = json.loads(file.read_text(encoding="utf-8")) | {"data_dir": str(tmp_path / "else")}
    file.write_text(json.dumps(data), encoding="utf-8")
    capsys.readouterr()
    assert "the text of the run is not prepared there" in refused(capsys, "eval_", "--tasks", "val")
    assert not (tmp_path / "else").exists()


def test_a_name_of_255_bytes_is_exported(ours, tmp_path):
    for name in ("n" * 255, "字" * 85):
        export(GPT(GPTConfig(1, 1, 8, 32, ours.n_vocab)), ours, tmp_path / name)
        write_atomically(tmp_path / ("x" + name[1:]), b"x")
        assert from_pretrained(tmp_path / name)[1].hash == ours.hash
