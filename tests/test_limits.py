"Small files that unfold to gigabytes, and sizes beyond the machine: refused in one line."

import io
import json
import os
import pickle
import re
import shutil
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from gpt2edu.cli import commands
from gpt2edu.data.config import MOST_IDS
from gpt2edu.data.shards import MAX_VOCAB, read_shard
from gpt2edu.data.sources import local_source, read_ahead
from gpt2edu.model.generate import complete, complete_batch
from gpt2edu.model.gpt import GPT, GPTConfig
from gpt2edu.model.pretrained import export, from_pretrained
from gpt2edu.text.files import LONGEST, read_jsonl, read_parquet
from gpt2edu.text.tokenizer import Tokenizer, from_transformers, get_tokenizer
from gpt2edu.train.config import preset
from gpt2edu.train.runs import load_run
from gpt2edu.train.setup import check_step

# what a child process says when it is done: its own peak, in bytes. On Linux getrusage counts
# what the parent held when the child was made, and /proc does not
PEAK = """
import re, resource, sys
from pathlib import Path
if sys.platform == "linux":
    kilobytes = int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
else:
    unit = 1 if sys.platform == "darwin" else 1024
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit // 1024
print("peak", 1024 * kilobytes)
"""
ALONE = """
import sys
from pathlib import Path
from gpt2edu.text.files import read_file
n = 0
try:
    for text in read_file(Path(sys.argv[1]), "text"):
        n += len(text)
except ValueError as e:
    print(f"refused: {e}")
print("read", n)
"""
PREPARE = """
import sys
from gpt2edu.cli import commands
try:
    commands.prepare(["--dataset", sys.argv[1], "--num_proc", "1", "--val_tokens", "8"])
except SystemExit as e:
    assert e.code == 2
"""


def child(tmp_path, script, path):
    "Run a script on a file in a child process: what it says, and its peak of memory in bytes."
    args = [sys.executable, "-c", script + PEAK, str(path)]
    done = subprocess.run(
        args, cwd=tmp_path, capture_output=True, encoding="utf-8", timeout=300, env=os.environ
    )
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    said, _, peak = done.stdout.rpartition("peak ")
    return said + done.stderr, int(peak)


def written(path, texts, rows=None, **options):
    "Write a parquet file; with `rows`, the texts are a dictionary that each row points into."
    column = pa.array(texts, pa.large_string())
    if rows is not None:
        column = pa.DictionaryArray.from_arrays(pa.array(rows, pa.int32()), pa.array(texts))
    options = {"compression": "zstd", "dictionary_pagesize_limit": 1 << 30} | options
    pq.write_table(pa.table({"text": column}), path, **options)
    return path


def bomb(kind, folder):
    "Make a small file that unfolds to gigabytes."
    path = folder / f"{kind}.parquet"
    long = "ab " * (3 << 20)  # 9 MB
    many = [f"x{i} " * (1 << 18) for i in range(100)]  # 130 MB
    if kind == "one text in every row":
        return written(path, [long], [0] * 1_000_000, store_schema=False)
    if kind == "a dictionary by its schema":
        return written(path, [long], [0] * 1_000_000)
    if kind == "a hundred texts":
        return written(path, many, [i % 100 for i in range(1_000_000)], store_schema=False)
    if kind == "each the one before and a word":
        texts = [long[: 3 << 20] + str(i) for i in range(600)]
        encoding = {"text": "DELTA_BYTE_ARRAY"}
        return written(path, texts, use_dictionary=False, column_encoding=encoding)
    if kind == "one page":
        return written(path, ["ab " * (60 << 20)], use_dictionary=False)
    return written(path, [long] * 40, use_dictionary=False)  # many pages


KINDS = (
    "one text in every row, a dictionary by its schema, a hundred texts, one page, many pages, "
    "each the one before and a word"
)


@pytest.mark.parametrize("kind", KINDS.split(", "))
def test_a_parquet_bomb_keeps_its_memory_under_a_gigabyte(kind, tmp_path):
    path = bomb(kind, tmp_path)
    assert path.stat().st_size < 50_000
    said, peak = child(tmp_path, ALONE, path)
    assert f"refused: {path}: row group 0 unfolds from" in said
    assert said.count("\n") == 2 and peak < 1e9, f"{peak / 1e6:.0f} MB"


@pytest.mark.parametrize(
    "kind", ["one text in every row", pytest.param("a hundred texts", marks=pytest.mark.slow)]
)
def test_so_it_is_under_a_preparation(kind, tmp_path):
    path = bomb(kind, tmp_path)
    said, peak = child(tmp_path, PREPARE, path)
    assert f"gpt2edu_prepare: {path}: row group 0 unfolds from" in said
    assert peak < 1e9, f"{peak / 1e6:.0f} MB"


def test_texts_that_repeat_each_other_are_read(tmp_path):
    texts = [f"text {i} " * 2000 for i in range(50)]
    rows = [i % 50 for i in range(1000)]
    path = written(tmp_path / "a.parquet", texts, rows, store_schema=False)
    assert [str(t, "utf-8") for t in read_parquet(path, "text")] == [texts[i] for i in rows]
    ahead = read_ahead(local_source((str(path),), {}, 0).units((0, 0)), skip=3)
    assert [str(t, "utf-8") for _, ds in ahead for t in ds] == [texts[i] for i in rows[3:]]


def test_a_unit_larger_than_it_says_is_not_held(tmp_path):
    "100 megabytes of text in a dictionary of one: each document is given when it is its turn."
    words = " ".join(str(i * 7919) for i in range(400_000))  # 3.6 MB
    path = written(tmp_path / "a.parquet", [words], [0] * 60, store_schema=False)
    ((_, documents),) = read_ahead(local_source((str(path),), {}, 0).units((0, 0)), skip=2)
    assert not isinstance(documents, list)
    assert [len(d) for d in documents] == [len(words)] * 58


def test_a_line_of_gigabytes(tmp_path):
    path = tmp_path / "a.jsonl"
    with open(path, "wb") as f:
        f.write(b'{"text": "short"}\n{"text": "' + b"a" * 8192)
        f.truncate(20 << 30)  # a hole takes no room on the disk
    said, peak = child(tmp_path, ALONE, path)
    assert f"refused: {path}, line 2: longer than 512 MiB" in said and "read 5" in said
    assert LONGEST == 512 << 20 and peak < 1e9, f"{peak / 1e6:.0f} MB"


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
def test_packed_lines_are_not_unpacked(kind, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(pa.Codec(kind).compress(b'{"text": "a"}\n' * 10_000_000, asbytes=True))
    said, peak = child(tmp_path, ALONE, path)
    assert f"refused: {path}" in said and said.count("\n") == 2 and peak < 5e8


def test_lists_in_lists(tmp_path):
    kind, value = pa.string(), "x"
    for _ in range(30):
        kind, value = pa.list_(kind), [value]
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": pa.array([value], kind)}), path)
    with pytest.raises(ValueError, match=r"column 'text' holds list<.*expected text"):
        list(read_parquet(path, "text"))
    for _ in range(200):
        kind, value = pa.list_(kind), [value]
    pq.write_table(pa.table({"text": pa.array([value], kind)}), path)
    with pytest.raises(ValueError, match=r"not a whole parquet file .*too deeply nested"):
        list(read_parquet(path, "text"))
    (tmp_path / "b.jsonl").write_text('{"text": ' + "[" * 100_000 + "}\n", encoding="utf-8")
    with pytest.raises(ValueError, match="nested too deeply"):
        list(read_jsonl(tmp_path / "b.jsonl", "text"))


# shards of NumPy


def npy(shape, more=b"\0" * 64):
    "A .npy file whose header names a shape."
    head = f"{{'descr': '<u2', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head + more


def zipped():
    np.savez(file := io.BytesIO(), a=np.zeros(3, np.uint16))
    return file.getvalue()


SHAPES = ["(10**12,)", "(1000000000000,)", "(4611686018427387904,)", f"({'9' * 30},)", "(-5,)"]
SHAPES += ["(4294967296, 4294967296, 4294967296)", "(1.5,)", "(True,)", "(" * 3000, "()", "(0,)"]
NOT_SHARDS = {"zip": zipped(), "pickle": pickle.dumps([1, 2] * 100), "empty": b""}
NOT_SHARDS["a header of gigabytes"] = b"\x93NUMPY\x02\x00" + b"\xff" * 4 + b"x" * 100
NOT_SHARDS |= {shape[:30]: npy(shape) for shape in SHAPES}


@pytest.mark.parametrize("kind", NOT_SHARDS)
@pytest.mark.filterwarnings("error")
def test_a_file_that_is_no_npy_is_one_line(kind, tmp_path):
    path = tmp_path / "a_train_000000.npy"
    path.write_bytes(NOT_SHARDS[kind])
    with pytest.raises(ValueError, match=re.escape(str(path))) as e:
        read_shard(path)
    assert "\n" not in str(e.value)


# a tokenizer


def test_a_foreign_regular_expression_is_not_run(tmp_path):
    made = Tokenizer.train(["a few words"], 260, "ours")
    other = Tokenizer("other", made.merges, pattern=r"(a+)+$|[\s\S]")  # its hash is its own
    file = other.save(tmp_path)
    with pytest.raises(ValueError, match=r"pattern is .* expected GPT-2's: no other is run"):
        Tokenizer.load(file)


def test_a_tokenizer_of_a_million_merges_is_not_built(tmp_path):
    file = Tokenizer.train(["a few words"], 260, "ours").save(tmp_path)
    data = json.loads(file.read_bytes())
    file.write_text(json.dumps(data | {"merges": ["a b"] * 1_000_001}), encoding="utf-8")
    with pytest.raises(ValueError, match=r"merges has 1,000,001 entries, expected 1,000,000"):
        Tokenizer.load(file)


def test_a_tokenizer_of_a_gigabyte_is_not_read(tmp_path):
    file = tmp_path / "tokenizer.json"
    with open(file, "wb") as f:
        f.write(b'{"model": {}, "merges": ["')
        f.truncate(1 << 30)
    for load in (get_tokenizer, Tokenizer.load, lambda p: from_transformers(p, "x")):
        with pytest.raises(ValueError, match="1,073,741,824 bytes, expected a tokenizer of"):
            load(file)


def test_a_header_that_claims_a_terabyte(tmp_path):
    model = GPT(GPTConfig(1, 1, 8, 16, 300))
    folder = export(model, Tokenizer.train(["a few words"], 260, "ours"), tmp_path / "hf")
    (folder / "model.safetensors").write_bytes((10**12).to_bytes(8, "little") + b"{}" * 100)
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        from_pretrained(folder)


# sizes


SMALL = "--n_head 1 --device cpu --choice_items 0 --max_steps 1 --total_batch 4096"
TOO_LARGE = {
    "--n_layer 1e18": "needs at least",
    "--n_embd 1e18": "needs at least",
    "--n_layer 9e18 --n_embd 9e18": "needs at least",
    "--n_layer 1e9 --n_embd 1": "needs at least",
    "--micro_batch 1e9 --block_size 1 --total_batch 1e9": "try --micro_batch",
    "--block_size 1e12 --micro_batch 1 --total_batch 1e12": "needs at least",
    "--block_size 1 --micro_batch 9e18 --total_batch 9e18": "needs at least",
    "--vocab_size 1e18": "must be 65,536 or less",
    "--choice_items 9e18": "must be 1,000,000 or less",
    "--micro_batch 8e18 --total_batch 9e18": "try --micro_batch",
}


def refused(run, args, capsys):
    "Run a command that must end with one line and exit code 2."
    with pytest.raises(SystemExit) as e:
        run(args)
    err = capsys.readouterr().err
    assert e.value.code == 2 and err.count("\n") == 1, err
    return err


@pytest.mark.parametrize("flags", TOO_LARGE)
def test_a_size_beyond_the_machine_is_refused_before_anything_is_built(
    flags, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    names = re.findall(r"--\w+", flags)
    pairs = re.findall(r"--\w+ \S+", SMALL)
    small = [word for p in pairs if p.split()[0] not in names for word in p.split()]
    err = refused(commands.train, [*small, *flags.split()], capsys)
    assert TOO_LARGE[flags] in err
    assert [*tmp_path.rglob("*.bin")] == [] and not (tmp_path / "runs" / "tiny").exists()


def test_a_step_of_years_is_refused():
    with pytest.raises(ValueError, match=r"total_batch=\d+ tokens takes .* years"):
        check_step(preset("tiny", total_batch=4096 * 10**15), 1e-7)
    check_step(preset("tiny"), 1e-7)


def test_a_model_beyond_the_memory():
    for sizes in ((10**9, 1, 1, 1, 300), (1, 1, 10**18, 16, 300), (1, 1, 8, 10**18, 300)):
        with pytest.raises(ValueError, match=r"needs at least .* GB of memory, there are"):
            GPT(GPTConfig(*sizes))
    with torch.device("meta"):  # without numbers, any model that can be listed
        GPT(GPTConfig(2, 25, 1600 * 64, 1024, 50257))
    with pytest.raises(ValueError, match="n_layer=True must be a whole number"):
        GPTConfig(n_layer=True)
    with pytest.raises(ValueError, match="must be a whole number"):
        GPTConfig(n_embd=10**30)


def test_the_planner_divides_any_batch(capsys):
    sizes = "--gpu a100 --block_size 1 --micro_batch 1 --total_batch 9e18 --json"
    commands.plan(sizes.split())
    assert '"largest_micro_batch"' in capsys.readouterr().out


def test_two_floors_agree_on_what_a_shard_holds():
    assert MOST_IDS == MAX_VOCAB


# counts, and a model that is not what its config says


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    "A folder with a run and its export."
    folder = tmp_path_factory.mktemp("trained")
    flags = "--n_layer 1 --n_head 1 --n_embd 8 --block_size 32 --vocab_size 300 --total_batch 256"
    flags += " --micro_batch 8 --max_steps 2 --val_tokens 512 --device cpu --choice_items 0"
    (folder / "a.txt").write_text("a few words\n\nand more\n\n" * 200, encoding="utf-8")
    with pytest.MonkeyPatch.context() as m:
        m.chdir(folder)
        commands.train(["--dataset", "a.txt", *flags.split()])
        commands.export(["--run", "tiny", "--out", "hf"])
    return folder


HUGE_COUNTS = {
    "generate --num_seq 9e18": "num_seq=9000000000000000000 must be from 1 to 1,000,000; try 3",
    "generate --num_seq 0": "num_seq=0 must be from 1 to 1,000,000; try 3",
    "generate --num_seq 1e19": "expected less than 2^63",
    "generate --max_tokens 1e19": "expected less than 2^63",
    "eval_ --batch_size 9e18": "try --batch_size",
    "eval_ --choice_items 9e18": "must be 1,000,000 or less; try 400",
}


@pytest.mark.parametrize("line", HUGE_COUNTS)
def test_a_count_beyond_every_need_is_refused(line, trained, monkeypatch, capsys):
    monkeypatch.chdir(trained)
    command, *args = line.split()
    assert HUGE_COUNTS[line] in refused(getattr(commands, command), args, capsys)


def test_a_count_that_means_all_there_is_ends(trained, monkeypatch, capsys):
    "At most as many tokens, and at most the first items: the context and the file end before."
    monkeypatch.chdir(trained)
    commands.generate(["--max_tokens", "9e18", "--seed", "1", "--top_k", "9e18"])
    written = capsys.readouterr().out
    assert 1 < len(written) < 32 * 100
    commands.eval_(["--tasks", "val", "--val_tokens", "9e18", "--limit", "9e18", "--json"])
    assert 400 < json.loads(capsys.readouterr().out)["val_tokens"] < 10_000


def test_more_sequences_than_fit_are_refused_before_the_first_step():
    model = GPT(GPTConfig(2, 1, 64, 32, 300))
    tokenizer = Tokenizer.train(["a few words"], 260, "ours")
    for number in (10**12, 2**62, 10**30):
        for ask in (complete, lambda *a, **k: complete_batch(a[0], a[1], ["a", "few"], **k)):
            with pytest.raises(ValueError, match=rf"num_seq={number} needs at least .* GB") as e:
                ask(model, tokenizer, "a", num_seq=number)
            assert "take fewer at a time" in str(e.value) and "\n" not in str(e.value)
    (texts,) = complete_batch(model, tokenizer, ["a"], num_seq=3, max_tokens=10**30)
    assert len(texts) == 3


@pytest.mark.parametrize("key", ["n_layer", "n_head", "n_embd", "block_size", "vocab_size"])
@pytest.mark.parametrize("number", [10**9, 2**62, 10**30])
def test_a_config_that_claims_a_giant(key, number, trained, tmp_path, monkeypatch, capsys):
    "Refused by what the weights are, before a model of these sizes is built."
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)

    def alter(file, key):
        config = json.loads(file.read_text(encoding="utf-8"))
        assert key in config
        file.write_text(json.dumps(config | {key: number}), encoding="utf-8")

    alter(tmp_path / "hf/config.json", {"block_size": "n_positions"}.get(key, key))
    with pytest.raises(ValueError, match="hf") as e:
        from_pretrained("hf")
    assert "\n" not in str(e.value)
    refused(commands.generate, ["--run", "hf"], capsys)
    alter(tmp_path / "runs/tiny/config.json", key)
    if key != "vocab_size":  # the tokenizer's own counts
        with pytest.raises(ValueError) as e:
            load_run("runs/tiny")
        assert "\n" not in str(e.value)
        refused(commands.generate, ["--run", "tiny"], capsys)
    refused(commands.train, ["--resume", "tiny", "--max_steps", "3"], capsys)


@pytest.mark.parametrize("kind", ["PLAIN", "DELTA_LENGTH_BYTE_ARRAY", "DELTA_BYTE_ARRAY"])
def test_every_encoding_of_text_is_read(kind, tmp_path):
    options = {"use_dictionary": False, "column_encoding": {"text": kind}}
    path = written(tmp_path / "a.parquet", ["a", None, "", "bc", "bcd"] * 9, **options)
    assert [str(t, "utf-8") for t in read_parquet(path, "text")] == ["a", "bc", "bcd"] * 9
