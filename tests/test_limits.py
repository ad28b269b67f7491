"Small files that unfold to gigabytes, and sizes beyond the machine: refused in one line."

import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gpt2edu.data.sources import local_source, read_ahead
from gpt2edu.text.files import LONGEST, read_jsonl, read_parquet

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
    if kind == "one page":
        return written(path, ["ab " * (60 << 20)], use_dictionary=False)
    return written(path, [long] * 40, use_dictionary=False)  # many pages


KINDS = "one text in every row, a dictionary by its schema, a hundred texts, one page, many pages"


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
    with pytest.raises(ValueError, match="not a whole parquet file .*too deeply nested"):
        list(read_parquet(path, "text"))
    (tmp_path / "b.jsonl").write_text('{"text": ' + "[" * 100_000 + "}\n", encoding="utf-8")
    with pytest.raises(ValueError, match="nested too deeply"):
        list(read_jsonl(tmp_path / "b.jsonl", "text"))
