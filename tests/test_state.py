"""State that is read back: every key of every file altered, and each time one line.

The files are those of tests/old, so what an earlier version wrote is read as well.
"""

import contextlib
import copy
import io
import json
import random
import shutil
from pathlib import Path

import pytest

from gpt2edu.cli import commands

OLD = Path(__file__).parent / "old"
RUN = Path("runs/tiny")
SHARDS = Path("data/stories-4f9e60b2bd6c")

# what each value becomes; a text of JSON as it is
GONE = object()
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
ALTERATIONS = ["absent", "extra", *RAW]


def kind(value) -> str:
    "The kind of a value of JSON; whole numbers and others are told apart."
    return "null" if value is None else type(value).__name__


def keys(value, path=()):
    "Every place in a file, by the keys that lead there; of a list the first and the last."
    if path:
        yield path
    if isinstance(value, dict):
        for k in value:
            yield from keys(value[k], (*path, k))
    elif isinstance(value, list) and value and path:
        for i in {0, len(value) - 1}:
            yield from keys(value[i], (*path, i))


def altered(content, path, how: str, indent=1) -> str:
    "The file's text with one place altered."
    content = copy.deepcopy(content)
    at = content
    for k in path[:-1]:
        at = at[k]
    if how == "absent":
        del at[path[-1]]
    elif how == "extra":
        if not isinstance(at, dict):
            at.insert(0, {"surplus": 1})
        else:
            at["surplus"] = 1
    else:
        at[path[-1]] = "@@here@@"
    return json.dumps(content, indent=indent).replace('"@@here@@"', RAW.get(how, ""))


def new_kind(how: str) -> str:
    "What kind the altered value is of."
    try:
        return kind(json.loads(RAW[how]))
    except (ValueError, RecursionError, KeyError):
        return "none"


def ours(argv: list[str], monkeypatch) -> tuple[int, str, str]:
    "Run a command in this process: exit code, stdout, stderr. A traceback is a failed test."
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = getattr(commands, argv[0])(argv[1:])
        except SystemExit as e:
            code = e.code
    return code or 0, out.getvalue(), err.getvalue()


# each file, the command that reads it, and the places where another kind or key is no mistake

FILES = {"config.json": (RUN / "config.json", ["train", "--resume", "tiny", "--dry_run"])}


def may_be_silent(name: str, path: tuple, how: str, old) -> bool:
    "Whether an alteration may pass: the same kind, or a place that is not read."
    same = new_kind(how) == kind(old) or (kind(old), new_kind(how)) == ("float", "int")
    optional = "shards max_steps max_tokens num_epochs hellaswag tracker name".split()
    return same or (path[0] in optional and how in ("null", "text", "empty", "control", "long"))


@pytest.fixture(scope="module")
def old_place(tmp_path_factory):
    place = tmp_path_factory.mktemp("state")
    shutil.copytree(OLD / "run", place / RUN)
    shutil.copytree(OLD / "shards", place / SHARDS)
    shutil.copy(OLD / "stories.txt", place)
    return place


def trials(content) -> list[tuple[tuple, str]]:
    "All alterations of a file."
    return [(path, how) for path in keys(content) for how in ALTERATIONS]


def run_trial(name: str, place: Path, path: tuple, how: str, monkeypatch):
    file, argv = FILES[name]
    whole = (place / file).read_bytes()
    content = json.loads(whole)
    old = content
    for k in path:
        old = old[k]
    text = altered(content, path, how)
    try:
        (place / file).write_bytes(text.encode())
        code, _, err = ours(argv, monkeypatch)
    finally:
        (place / file).write_bytes(whole)
    where = f"{name} {'.'.join(map(str, path))} {how}"
    assert code in (0, 2), where
    last = err.rstrip("\n").split("\n")[-1]
    if code == 2:
        assert "Traceback" not in err and last.startswith("gpt2edu_"), (where, err)
        if name != "config.json" or how not in ("control", "long"):  # names of files, as they are
            assert len(last) < 600 and last.isprintable(), (where, last)
    else:
        assert may_be_silent(name, path, how, old), f"{where}: not refused"


@pytest.mark.parametrize("name", FILES)
def test_what_an_earlier_version_wrote_is_read(old_place, monkeypatch, name):
    "Otherwise the tests below would see nothing but refusals of something else."
    monkeypatch.chdir(old_place)
    code, _, err = ours(FILES[name][1], monkeypatch)
    assert code == 0, err


def contents(name: str, place: Path):
    return json.loads((place / FILES[name][0]).read_bytes())


@pytest.mark.parametrize("name", FILES)
def test_an_altered_state_is_one_line(old_place, monkeypatch, name):
    "A sample of each file; all of them in the slow test."
    monkeypatch.chdir(old_place)
    all_of_it = trials(contents(name, old_place))
    for path, how in random.Random(name).sample(all_of_it, 60):
        run_trial(name, old_place, path, how, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_every_alteration_of_every_key_is_one_line(old_place, monkeypatch, name):
    monkeypatch.chdir(old_place)
    for path, how in trials(contents(name, old_place)):
        run_trial(name, old_place, path, how, monkeypatch)


def test_there_are_at_least_20_alterations_of_each_key(old_place):
    counts = {name: len(trials(contents(name, old_place))) for name in FILES}
    assert len(ALTERATIONS) >= 20 and sum(counts.values()) >= 1000, counts


ENCODINGS = {
    "UTF-16": ('{"a": 1}'.encode("utf-16"), "not UTF-8 at byte 0"),
    "latin": (b'{"a": "\xe9"}', "not UTF-8 at byte 7"),
    "empty": (b"", "not JSON ("),
    "cut": (b'{"a": 1', "not JSON ("),
    "no object": (b"[]", "the whole is [], expected an object"),
    "zeros": (bytes(100), "not JSON ("),
}


@pytest.mark.parametrize("how", ENCODINGS)
@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_no_json_is_one_line(old_place, monkeypatch, name, how):
    monkeypatch.chdir(old_place)
    file, argv = FILES[name]
    whole = file.read_bytes()
    try:
        file.write_bytes(ENCODINGS[how][0])
        code, _, err = ours(argv, monkeypatch)
    finally:
        file.write_bytes(whole)
    last = err.splitlines()[-1]
    assert code == 2 and ENCODINGS[how][1] in last and str(file) in last, err
