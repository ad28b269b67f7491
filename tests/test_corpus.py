"""Stories of known probability, their items, documents from files.

The good comes through, the rest is named.
"""

import collections
import dataclasses
import gzip
import hashlib
import http.server
import importlib
import json
import math
import os
import re
import string
import subprocess
import sys
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import warm

import gpt2edu
from gpt2edu.data import cache as prepare
from gpt2edu.data.cache import prepare_data
from gpt2edu.data.config import DataConfig
from gpt2edu.data.shards import open_shards
from gpt2edu.text import corpus, grammar
from gpt2edu.text import stories as telling
from gpt2edu.text.corpus import documents, read_back, stories, story, story_items
from gpt2edu.text.grammar import SHAPES, Grammar

STORIES_SHA256 = (
    "a55d1379ed5d0b5010b39406799d71470f117d7b3c85e0d817b9ceb60aac6073"  # of the first 200 stories
)

SMALL = {
    "one of each": Grammar(
        girls=("Mia",), boys=("Tom",), food=("egg",), fragile=("cup",), toys=("kite",),
        rooms=("attic",), outside=("zoo",), spots=("in the box",), shortest=3, longest=3,
    ),
    "only girls, prefixes of one another": Grammar(
        girls=("Ann", "Anna"), boys=(), food=("egg",), fragile=("mug",), toys=(),
        rooms=("cave",), outside=("hill",), spots=("under the bed",), shortest=2, longest=3,
    ),
}  # fmt: skip


def one_line(excinfo, *parts):
    text = str(excinfo.value)
    assert "\n" not in text
    for part in parts:
        assert str(part) in text, f"{part!r} is not in {text!r}"


def sentences(text):
    "Count as the grammar does: an opening of two sentences is one, a question and its answer too."
    text = re.sub(r"^(There once was a \w+ called \w+)\. (?=She|He)", r"\1, ", text)
    text = re.sub(r' "Where is [^"]*\?" asked (\w+)\. "', r" Asked \1, ", text)
    return len(re.findall(r"[.?!](?=\s|$)", text))


# the grammar


def test_there_are_enough_words_and_each_is_there_once():
    g = Grammar()
    assert len(SHAPES) >= 40 and len({s.text for s in SHAPES}) == len(SHAPES)
    assert len(g.girls + g.boys) >= 30 and len(set(g.girls + g.boys)) == len(g.girls + g.boys)
    things = g.food + g.fragile + g.toys
    assert len(things) >= 60 and len(set(things)) == len(things)
    assert len(g.places) >= 25 and len(set(g.places)) == len(g.places)
    assert len(set(g.spots)) == len(g.spots)
    plain = set(string.ascii_letters + " ")
    assert all(
        set(word) <= plain
        for word in (*g.names, *things, *g.places, *g.spots)
        if isinstance(word, str)
    )


def test_every_shape_is_used(monkeypatch):
    used = collections.Counter()
    for name in ("BEGIN", "FIRST", "ACTS", "BOTH", "WORLD", "END"):
        watched = []
        for s in getattr(grammar, name):

            def effect(w, v, s=s):
                used[s.text] += 1
                s.effect(w, v)

            watched.append(s._replace(effect=effect))
        monkeypatch.setattr(telling, name, tuple(watched))
    for i in range(3000):
        telling.tell(telling.World(telling.Writer(f"0:{i}"), Grammar()))
    assert set(used) == {s.text for s in SHAPES}


def test_every_word_is_used():
    text = " ".join(s.text for s in stories(3000))
    g = Grammar()
    for word in (*g.girls, *g.boys, *g.places, *g.spots, *g.food, *g.fragile, *g.toys):
        assert re.search(rf"\b{word}\b", text), word


def test_stories_have_6_to_14_sentences():
    lengths = collections.Counter(sentences(s.text) for s in stories(2000))
    assert min(lengths) == 6 and max(lengths) <= 14 and max(lengths) >= 12


def test_stories_are_clean_english():
    for s in stories(2000):
        assert s.text == s.text.strip() and s.text.isascii() and "  " not in s.text
        assert s.text.endswith(".") and not re.search(r"[{}_\[\]]|None|<", s.text)
        assert not re.search(r"\ba [aeiou]|\ban [^aeiou]", s.text), s.text
        assert not re.search(r"[.?!]\"? [a-z]", s.text.replace('?" asked', "")), s.text
        assert not re.search(r"\b(no|0) \w+s\b", s.text), s.text


def test_stories_depend_on_seed_and_index_only():
    assert [s.text for s in stories(5, seed=3, start=10)] == [
        story(i, seed=3).text for i in range(10, 15)
    ]
    assert story(7, seed=0) != story(7, seed=1) != story(8, seed=1)
    assert story(10**12).text != story(10**12 + 1).text


def test_stories_are_the_same_everywhere():
    text = "\n".join(s.text for s in stories(200))
    assert hashlib.sha256(text.encode()).hexdigest() == STORIES_SHA256


# their probability


def check_read_back(n):
    texts = set()
    for s in stories(n):
        assert math.isclose(read_back(s.text), s.logprob, rel_tol=0, abs_tol=1e-9) and s.logprob < 0
        texts.add(s.text)
    assert len(texts) == n


def test_the_probability_is_read_back():
    check_read_back(2000)


@pytest.mark.slow
def test_the_probability_is_read_back_from_ten_thousand():
    check_read_back(10_000)


@pytest.mark.parametrize("name", SMALL)
def test_probabilities_of_a_small_grammar_sum_to_one(name):
    found = list(telling.every_story(SMALL[name]))
    assert len(found) > 100
    assert len({text for text, _ in found}) == len(found)
    assert math.isclose(math.fsum(math.exp(p) for _, p in found), 1, rel_tol=0, abs_tol=1e-9)
    for text, p in found[:: max(1, len(found) // 500)]:
        assert math.isclose(read_back(text, SMALL[name]), p, abs_tol=1e-9)


def test_frequencies_agree_with_the_probabilities():
    g = SMALL["only girls, prefixes of one another"]
    table = {text: math.exp(p) for text, p in telling.every_story(g)}
    n = 20_000
    seen = collections.Counter(story(i, grammar=g).text for i in range(n))
    assert set(seen) <= set(table)
    # by the first thing: enough in each for a chi-squared test
    groups = collections.defaultdict(lambda: [0.0, 0])
    for text, p in table.items():
        key = " ".join(text.split()[:7])
        groups[key][0] += n * p
        groups[key][1] += seen[text]
    chi2 = sum((got - want) ** 2 / want for want, got in groups.values())
    k = len(groups) - 1
    assert min(want for want, _ in groups.values()) > 5 and chi2 < k + 5 * math.sqrt(2 * k)


def test_at_every_point_exactly_one_choice_fits(monkeypatch):
    class Strict(telling.Reader):
        def pick(self, values, weights, write):
            fits = [v for v in values if self.text.startswith(write(v), self.at)]
            assert len(fits) == 1, (self.text, self.text[: self.at], fits)
            write(fits[0])
            return super().pick(values, weights, write)

    for s in stories(300, seed=5):
        reader = Strict(s.text)
        telling.tell(telling.World(reader, Grammar()))
        assert reader.at == len(s.text)


def test_what_is_no_story_is_refused():
    good = story(0).text
    first = good.split(".")[0]
    other = (
        good.replace(first, first.lower()),
        good.replace(" ", "  ", 1),
        f" {good}",
        good + "\n",
        first + ".",
    )
    for text in (
        "", "Hello.", good[:-1], good + ".", good + " The end.",
        "One day, Mia and Mia were in the attic.", *other,
    ):  # fmt: skip
        with pytest.raises(ValueError) as e:
            read_back(text)
        one_line(e, "not a story")


def test_a_story_that_contradicts_itself_is_refused():
    refused = 0
    for item in story_items(200, seed=9):
        for i, ending in enumerate(item["endings"]):
            whole = f"{item['ctx']} {ending}"
            if str(i) == item["label"]:
                assert read_back(whole) < 0
            else:
                with pytest.raises(ValueError):
                    read_back(whole)
                refused += 1
    assert refused == 600


# multiple choice


def test_items_have_hellaswags_fields_and_balanced_labels():
    items = story_items(1200)
    assert items == story_items(1200) and items != story_items(1200, seed=2)
    assert items[:100] == story_items(100)
    for i, item in enumerate(items):
        assert set(item) == {
            "ind", "activity_label", "ctx_a", "ctx_b", "ctx", "endings", "label", "split",
        }  # fmt: skip
        assert item["ind"] == i and item["label"] in ("0", "1", "2", "3") and item["split"] == "val"
        assert item["ctx"] == f"{item['ctx_a']} {item['ctx_b']}"
        assert len(set(item["endings"])) == 4 and all(
            e and e == e.strip() and e.endswith(".") for e in item["endings"]
        )
    labels = collections.Counter(item["label"] for item in items)
    assert all(250 < n < 350 for n in labels.values())  # 300 expected, standard deviation 15
    assert len({item["ctx"] for item in items}) == 1200


def test_items_are_no_training_stories():
    train = {s.text for s in stories(3000)}
    assert not any(f"{i['ctx']} {i['endings'][int(i['label'])]}" in train for i in story_items(500))


def test_no_ending_gives_itself_away():
    "By length, or by how often an ending of its text is right, guessing stays near chance."
    items = story_items(2000)
    for pick in (min, max):
        guess = [pick(range(4), key=lambda j, i=i: len(i["endings"][j])) for i in items]
        right = sum(str(g) == i["label"] for g, i in zip(guess, items, strict=True)) / len(items)
        assert right < 0.36, f"{pick.__name__} length: {right}"


# documents


def test_stories_and_pydocs():
    assert list(documents("stories", n_stories=3)) == [s.text for s in stories(3)]
    docs = list(documents("pydocs"))
    assert docs == list(documents(["pydocs"])) and len(docs) > 50 and sum(map(len, docs)) > 350_000
    assert all(isinstance(d, str) and d for d in docs)


def test_a_repeated_paragraph_is_kept_where_it_comes_first():
    a, b = (
        "The first of two long lines that nobody would write twice.",
        "Another line, as long as the first one is.",
    )
    assert list(corpus.without_repeats([a, f"short\n\n  {a}\n\n{b}", b, "short"])) == [
        a,
        f"short\n\n{b}",
        "short",
    ]
    assert list(corpus.without_repeats([f"{a}\n\n{a}"])) == [f"{a}\n\n{a}"]  # within one document


@pytest.mark.parametrize("name", corpus.EMBEDDED)
def test_held_out_and_training_text_share_no_long_line(tmp_path, name):
    "Defect: 36 % of the long lines of held-out pages of Python's manual were trained on."
    try:
        docs = list(documents(name, n_stories=5000, data_dir=tmp_path))
    except ValueError as e:
        if not re.search("could not download|SHA-256", str(e)):  # or a portal's page comes instead
            raise
        pytest.skip("no network")
    if name != "tinyshakespeare":  # any split by documents is a fair one
        seen = set()
        for lines in map(corpus.long_lines, docs):
            assert not lines & seen
            seen |= lines
    size = sum(map(len, docs))
    for share in (80, 40, 20, 10):  # the first documents, as write_shards takes them
        n, held = 0, 0
        while held < size / share:
            held += len(docs[n])
            n += 1
        val, train = (set().union(*map(corpus.long_lines, part)) for part in (docs[:n], docs[n:]))
        assert val and train and not val & train


def test_shards_of_pydocs_share_no_long_line(tmp_path):
    tokenizer, folder = prepare_data(
        DataConfig(dataset=("pydocs",), data_dir=str(tmp_path), vocab_size=300)
    )
    val, train = (
        corpus.long_lines(tokenizer.decode(open_shards(folder, split, tokenizer.hash)[:]))
        for split in ("val", "train")
    )
    assert len(val) > 50 and len(train) > 1000 and not val & train


def paragraphs(name, n=30):
    return [f"{name} paragraph {i}. " + "Some words follow here. " * 20 for i in range(n)]


def test_text_files_are_cut_at_blank_lines_and_nothing_is_lost(tmp_path):
    for name in ("b", "a"):
        (tmp_path / f"{name}.txt").write_text("\n\n".join(paragraphs(name)), encoding="utf-8")
    for dataset in (
        str(tmp_path),
        f"{tmp_path}/*.txt",
        [f"{tmp_path}/b.txt", f"{tmp_path}/a.txt", f"{tmp_path}/*.txt"],
    ):
        docs = list(documents(dataset))
        assert len(docs) > 4
        words = " ".join(docs).split()
        # sorted, each file once
        assert words == " ".join(paragraphs("a") + paragraphs("b")).split()
    assert all(d.startswith(("a paragraph", "b paragraph")) for d in docs)


def test_a_text_without_blank_lines_is_cut_too(tmp_path):
    for sep in ("\n", " "):
        (tmp_path / "a.txt").write_text(sep.join(paragraphs("a", 300)), encoding="utf-8")
        docs = list(documents(str(tmp_path / "a.txt")))
        if sep == "\n":
            assert len(docs) > 5
        assert " ".join(docs).split() == " ".join(paragraphs("a", 300)).split()


def test_jsonl(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"text": "one é", "n": 1}\n\n{"text": "two"}\n', encoding="utf-8")
    assert list(documents(str(path))) == ["one é", "two"]
    path.write_text('{"body": "one"}\n', encoding="utf-8")
    assert list(documents(str(path), text_key="body")) == ["one"]


@pytest.mark.parametrize(
    "content,parts",
    [
        ('{"text": "fine"}\n{"text": "cut', ["line 2", "not JSON"]),
        ('{"text": "fine"}\n\nhello\n', ["line 3", "not JSON"]),
        (
            '{"text": "fine"}\n{"body": "x", "n": 1}\n',
            ["line 2", "'text'", "body, n", "--text_key"],
        ),
        ('{"text": 5}\n', ["line 1", "'text'"]),
        ('["text"]\n', ["line 1", "list"]),
        ("{}\n", ["line 1", "'text'"]),
        ("[" * 100_000 + "\n", ["line 1", "not JSON"]),
    ],
)
def test_bad_jsonl_names_file_and_line(tmp_path, content, parts):
    path = tmp_path / "bad.jsonl"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError) as e:
        list(documents(str(path)))
    one_line(e, path, *parts)


def test_parquet(tmp_path):
    path = tmp_path / "x.parquet"
    texts = [f"document {i} é" for i in range(2500)]
    pq.write_table(pa.table({"text": [*texts, None, ""], "n": list(range(2502))}), path)
    assert list(documents(str(path))) == texts
    pq.write_table(pa.table({"body": pa.array(texts, pa.large_string())}), path)
    assert list(documents(str(path), text_key="body")) == texts
    for column in (list(range(10)), [["a"]] * 10, [b"\xff"] * 10):
        pq.write_table(pa.table({"text": column}), path)
        with pytest.raises(ValueError) as e:
            list(documents(str(path)))
        one_line(e, path, "text")
    pq.write_table(pa.table({"body": texts, "n": list(range(2500))}), path)
    with pytest.raises(ValueError) as e:
        list(documents(str(path)))
    one_line(e, path, "no column 'text'", "body, n", "--text_key")


def test_broken_parquet(tmp_path):
    path, whole = tmp_path / "x.parquet", tmp_path / "whole.parquet"
    pq.write_table(pa.table({"text": [f"document {i} of many" for i in range(5000)]}), whole)
    raw = whole.read_bytes()
    flipped = bytearray(raw)
    for i in range(200, 2000):
        flipped[i] ^= 0xFF
    for content in (
        raw[: len(raw) // 2],
        raw[:-4],
        raw[:3],
        b"not parquet at all, not at all",
        bytes(flipped),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError) as e:
            list(documents(str(path)))
        one_line(e, path)


FLIPPED = """
import sys
from pathlib import Path
from gpt2edu.text.files import read_parquet

path = Path(sys.argv[1])
raw = path.read_bytes()
contents = len(raw) - 8 - int.from_bytes(raw[-8:-4], "little")
for i in range(contents, contents + 64):
    path.write_bytes(raw[:i] + bytes([raw[i] ^ 2]) + raw[i + 1 :])
    try:
        print(len(list(read_parquet(path, "text"))))
    except ValueError as e:
        print(e)
"""


def test_a_flipped_bit_in_a_table_of_contents_is_one_line(tmp_path):
    """One of these flips makes the column `required`; asked for its sizes, pyarrow calls abort().

    So the files are read in a process of their own. pyarrow before 20 notices no contradiction.
    """
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"text": ["one", "two", None]}), path)
    child = [sys.executable, "-c", FLIPPED, str(path)]
    done = subprocess.run(child, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-500:]
    lines = done.stdout.splitlines()
    assert len(lines) == 64
    assert all(line == "2" or line.startswith(f"{path}") for line in lines), lines
    mismatch = f"{path}: not a whole parquet file (Definition level histogram size mismatch"
    noticed = any(line.startswith(mismatch) for line in lines)
    assert noticed or int(pa.__version__.split(".")[0]) < 20


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / "empty.txt").touch()
    (tmp_path / "latin.txt").write_bytes("caf\xe9\n".encode("latin-1"))
    (tmp_path / "latin.jsonl").write_bytes('{"text": "caf\xe9"}\n'.encode("latin-1"))
    (tmp_path / "x.pdf").write_text("x", encoding="utf-8")
    (tmp_path / "noname").write_text("x", encoding="utf-8")
    with gzip.open(tmp_path / "x.jsonl.gz", "wt") as f:
        f.write('{"text": "x"}\n')
    (tmp_path / "folder").mkdir()
    for name, error, parts in (
        ("empty.txt", ValueError, ["empty"]),
        ("latin.txt", ValueError, ["not UTF-8", "byte 3"]),
        ("latin.jsonl", ValueError, ["not UTF-8"]),
        ("x.pdf", ValueError, [".pdf", ".txt, .jsonl, .parquet"]),
        ("noname", ValueError, ["without suffix"]),
        ("x.jsonl.gz", ValueError, [".gz"]),
        ("nothere.txt", FileNotFoundError, ["no dataset"]),
        ("folder", FileNotFoundError, ["no dataset"]),
        ("nothere/*.txt", FileNotFoundError, ["no dataset"]),
    ):
        with pytest.raises(error) as e:
            list(documents(str(tmp_path / name)))
        one_line(e, tmp_path / name.split("*")[0], *parts)
    with pytest.raises(FileNotFoundError) as e:
        list(documents("storys"))
    one_line(e, "'storys'", "stories, pydocs, tinyshakespeare")


# issue 11, point 5: text as people have it


def notes_of(dataset, **kw):
    notes = []
    return list(documents(dataset, note=notes.append, **kw)), notes


STORIES = [f"Story {i}.\n\n" + "The fox jumps over the dog. " * 50 + "The end." for i in range(40)]


def test_endoftext_on_a_line_of_its_own_separates_documents(tmp_path):
    path = tmp_path / "stories.txt"
    text = "".join(f"{s}\n<|endoftext|>\n" for s in STORIES)
    path.write_text(text, encoding="utf-8")
    assert notes_of(str(path)) == (STORIES, [f"{path}: documents end at lines of <|endoftext|>"])
    path.write_text("<|endoftext|>\n" + text.replace("\n", "\r\n"), encoding="utf-8", newline="")
    assert list(documents(str(path))) == STORIES
    path.write_text(text.replace("<|endoftext|>", "---"), encoding="utf-8")
    assert list(documents(str(path), separator="---")) == STORIES
    # switched off, and inside of a line, it is text
    path.write_text(text, encoding="utf-8")
    docs, notes = notes_of(str(path), separator="")
    assert "\n\n".join(docs).count("<|endoftext|>") == 40 and not notes
    path.write_text("It is written <|endoftext|> for people.", encoding="utf-8")
    assert list(documents(str(path))) == ["It is written <|endoftext|> for people."]


def test_an_endless_line_is_cut_at_spaces_and_nothing_is_lost(tmp_path):
    path = tmp_path / "text8.txt"
    path.write_text("word " * 60_000, encoding="utf-8")
    docs = list(documents(str(path)))
    assert " ".join(docs).split() == ["word"] * 60_000
    assert 5 < len(docs) and max(map(len, docs)) <= 40_000
    path.write_text("ACGT" * 50_000, encoding="utf-8")
    docs = list(documents(str(path)))
    assert "".join(docs) == "ACGT" * 50_000 and 5 <= len(docs)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_a_byte_order_mark_and_utf_16(tmp_path, encoding):
    path = tmp_path / "a.txt"
    mark = "\ufeff" if encoding in ("utf-16-le", "utf-16-be") else ""
    path.write_bytes((mark + "One café.\r\nTwo.\r\n" * 5).encode(encoding))
    if encoding != "utf-32":
        assert list(documents(str(path))) == ["\n".join(["One café.", "Two."] * 5)]
    without = "One café.\n".encode("utf-16-le" if encoding != "utf-32" else "utf-32-le")
    for name in ("a.txt", "a.jsonl"):
        (tmp_path / name).write_bytes(without)
        with pytest.raises(ValueError) as e:
            list(documents(str(tmp_path / name)))
        one_line(e, tmp_path / name, "zero byte at 1", "UTF-8")


def test_every_refusal_says_the_true_place(tmp_path):
    "Case 13."
    good = '{"text": "' + "abc " * 50 + '"}\n'
    raw = {
        "a.txt": b"x \n" * 15_000 + b"caf\xe9",
        "endless.txt": b"x " * 15_000 + b"caf\xe9 " * 20_000,
        "a.jsonl": good.encode() * 200 + b'{"text":"caf\xe9"}\n',
        "bom.jsonl": b"\xef\xbb\xbf" + b'{"text":"caf\xe9"}\n',
    }
    lines = {"a.txt": 15_001, "endless.txt": 1, "a.jsonl": 201, "bom.jsonl": 1}
    for name, content in raw.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError) as e:
            list(documents(str(tmp_path / name)))
        at = content.index(b"\xe9")
        one_line(e, f"{tmp_path / name}, line {lines[name]}: not UTF-8 at byte {at};")
    path = tmp_path / "s.jsonl"
    path.write_text(good * 100 + '{"text":"bad \\ud83d here"}\n', encoding="utf-8")
    with pytest.raises(ValueError) as e:
        list(documents(str(path)))
    one_line(e, f"{path}, line 101: half a character", "'\\ud83d'", "at character 4")
    path = tmp_path / "b.parquet"
    data = [b"fine"] * 250 + [b"caf\xe9"] + [None] * 10
    texts = pa.array(data, pa.binary()).view(pa.string())
    for column in (texts, texts.dictionary_encode()):
        pq.write_table(pa.table({"text": column}), path, row_group_size=100)
        with pytest.raises(ValueError) as e:
            list(documents(str(path)))
        one_line(e, f"{path}, row 250: not UTF-8 at byte 3;")


def test_a_null_is_left_out_in_every_format(tmp_path):
    rows = ['{"text": "one"}', '{"text": null}', '{"text": ""}', '{"text": "two"}']
    (tmp_path / "x.jsonl").write_text("\n".join(rows), encoding="utf-8")
    pq.write_table(pa.table({"text": ["one", None, "", "two"]}), tmp_path / "x.parquet")
    for name in ("x.jsonl", "x.parquet"):
        path = tmp_path / name
        note = f"{path}: left out 2 rows whose 'text' is empty or null"
        assert notes_of(str(path)) == (["one", "two"], [note])


def test_hidden_files_and_folders_are_never_data(tmp_path):
    for name in (
        "a.txt",
        ".b.txt",
        "._a.txt",
        ".ipynb_checkpoints/a.txt",
        "in/c.TXT",
        "in/._c.TXT",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(f"text of {name}".encode() + b"\xff" * ("._" in name))
    for dataset in (str(tmp_path), f"{tmp_path}/**/*"):
        assert list(documents(dataset)) == ["text of a.txt", "text of in/c.TXT"]


def test_home_brackets_and_linked_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    odd = tmp_path / "texts [old] *"
    (odd / "more [2]").mkdir(parents=True)
    (odd / "a.txt").write_text("one", encoding="utf-8")
    (odd / "more [2]" / "b[1].txt").write_text("two", encoding="utf-8")
    (odd / "more [2]" / "back").symlink_to(odd, target_is_directory=True)  # a circle
    (odd / "gone.txt").symlink_to(odd / "nowhere.txt")
    (tmp_path / "linked").symlink_to(odd, target_is_directory=True)
    (tmp_path / "all").mkdir()
    (tmp_path / "all" / "link").symlink_to(odd, target_is_directory=True)
    for dataset in (str(odd), "~/texts [old] *", f"{tmp_path}/linked", "~/all", f"{odd}/**/*.txt"):
        assert sorted(set(documents(dataset))) == ["one", "two"], dataset
    for dataset in ("~/texts [old] */*.txt", f"{odd}/a.txt", f"{odd}/[ab].txt"):
        assert list(documents(dataset)) == ["one"], dataset
    assert list(documents(f"{odd}/more [2]/b[1].txt")) == ["two"]
    # shards and tokenizers too, under the name of such a folder
    (odd / "a.txt").write_text("\n\n".join(paragraphs("a", 80)), encoding="utf-8")
    where = {"vocab_size": 300, "data_dir": "~/data [1]", "val_tokens": 512}
    tokenizer, folder = prepare_data(DataConfig(dataset=("~/texts [old] *",), **where))
    assert folder.parent == tmp_path / "data [1]" and folder.name.startswith("texts _old_")
    given = {"shards": f"~/data [1]/{folder.name}", "tokenizer": f"~/data [1]/{folder.name}"}
    found, same = prepare_data(DataConfig(**given))
    assert (found.hash, same) == (tokenizer.hash, folder)
    assert len(open_shards(given["shards"], "train")) > 1000


def test_what_is_left_out_is_said(tmp_path):
    for name, text in (("a.txt", "one"), ("b.txt", ""), ("c.md", "three"), ("d", "four")):
        (tmp_path / name).write_text(text, encoding="utf-8")
    notes = [
        f"{tmp_path}: left out 2 other files (.md, without suffix)",
        f"{tmp_path / 'b.txt'}: left out, the file is empty",
    ]
    assert notes_of(str(tmp_path)) == (["one"], notes)
    assert notes_of([f"{tmp_path}/a.txt", f"{tmp_path}/b.txt"]) == (["one"], notes[1:])


TINY = """--n_layer 1 --n_head 2 --n_embd 16 --block_size 32 --total_batch 256 --micro_batch 8
--optimizer adamw --choice_items 0 --val_tokens 512 --vocab_size 300 --max_steps 2""".split()


def command(name, *args, cwd):
    run = [sys.executable, "-m", "gpt2edu.cli", name, *args]
    env = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    env |= {"PYTHONPATH": str(Path(gpt2edu.__file__).parents[1])}
    return warm.run(run, cwd=cwd, env=env)


def test_one_document_one_line_and_a_poem_train(tmp_path):
    "Case 01: each was refused, with advice that did not help."
    texts = {
        "one_line": "word " * 60_000,
        "poem": "\n".join(f"line {i} of a long poem" for i in range(450)),
        "short": "Once upon a time. " * 80,
    }
    for name, text in texts.items():
        (tmp_path / f"{name}.txt").write_text(text, encoding="utf-8")
        done = command("train", "--dataset", f"{name}.txt", *TINY, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    few = command("train", "--dataset", "poem.txt", *TINY, "--val_tokens", "1", cwd=tmp_path)
    assert few.returncode == 2 and few.stderr.endswith("at least; raise --val_tokens\n")
    # the preparation cuts no document, and says what is true
    flags = ["--tokenizer", "train", "--vocab_size", "300", "--num_proc", "1", "--out", "shards"]
    done = command("prepare", "--dataset", "poem.txt", *flags, cwd=tmp_path)
    assert done.returncode == 2
    why = r"shards: no document is left for training, got [\d,]+ tokens in all in 1 documents, "
    assert re.search(why + r"and validation takes whole ones until --val_tokens=267;", done.stderr)


def test_separators_are_said_and_can_be_switched_off(tmp_path):
    "Case 05, in both ways to make shards."
    text = "".join(f"{s}\n<|endoftext|>\n" for s in STORIES)
    (tmp_path / "stories.txt").write_text(text, encoding="utf-8")
    (tmp_path / "empty.txt").touch()
    lines = [
        "stories.txt: documents end at lines of <|endoftext|>",
        "empty.txt: left out, the file is empty",
    ]
    names = [str(tmp_path / name) for name in ("stories.txt", "empty.txt")]
    config = DataConfig(
        dataset=tuple(names), vocab_size=300, data_dir=str(tmp_path / "data"), val_tokens=512
    )
    said = []
    tokenizer, folder = prepare_data(config, said.append)
    for line in lines:
        assert said.count(f"data: {tmp_path}/{line}") == 1, said
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert sum(t["documents"] for t in manifest["totals"].values()) == 40
    assert prepare_data(config)[1] == folder
    plain = dataclasses.replace(config, separator="")
    assert prepare_data(plain, said.append)[1] != folder
    tokenizer.save(tmp_path / "t.json")
    flags = "--tokenizer t.json --num_proc 1 --val_tokens 512".split()
    done = command("prepare", "--dataset", *names, *flags, "--out", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for line in lines:
        assert (done.stdout + done.stderr).count(line) == 1, done.stdout + done.stderr
    other = json.loads((tmp_path / "out" / "manifest.json").read_text(encoding="utf-8"))
    assert [s["sha256"] for s in other["shards"]] == [s["sha256"] for s in manifest["shards"]]
    flags += ["--separator", "", "--out", "plain"]
    done = command("prepare", "--dataset", *names, *flags, cwd=tmp_path)
    assert done.returncode == 0 and lines[0] not in done.stdout + done.stderr
    flags[-1] = "out"
    done = command("prepare", "--dataset", *names, *flags, cwd=tmp_path)
    assert done.returncode == 2 and "out: holds other shards" in done.stderr, done.stderr


def test_bpe_says_how_far_it_is_in_a_run(tmp_path, monkeypatch):
    monkeypatch.setattr("gpt2edu.text.tokenizer.SAY_EVERY", 0)
    (tmp_path / "dna.txt").write_text("ACGTTGCA\n" * 300 + "CCATG" * 3000, encoding="utf-8")
    said = []
    where = {"data_dir": str(tmp_path / "data"), "val_tokens": 512}
    prepare_data(
        DataConfig(dataset=(str(tmp_path / "dna.txt"),), vocab_size=270, **where), said.append
    )
    assert any(re.fullmatch(r"data: tokenizer: \d+ of 13 merges", line) for line in said), said


# tinyshakespeare, through a real server

PLAY = "".join(
    f"FIRST CITIZEN {i}:\nBefore we proceed any further, hear me speak.\n\n" for i in range(500)
).encode()


@pytest.fixture
def server(monkeypatch):
    class Handler(http.server.BaseHTTPRequestHandler):
        asked, mode = 0, "good"

        def do_GET(self):
            Handler.asked += 1
            if Handler.mode == "404":
                return self.send_error(404)
            body = PLAY if Handler.mode != "other" else PLAY[:-1] + b"?"
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[:1000] if Handler.mode == "cut" else body)

        def log_message(self, *args):
            pass

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(corpus, "SHAKESPEARE", f"http://127.0.0.1:{httpd.server_port}/input.txt")
    monkeypatch.setattr(corpus, "SHAKESPEARE_SHA256", hashlib.sha256(PLAY).hexdigest())
    yield Handler
    httpd.shutdown()
    httpd.server_close()


def test_tinyshakespeare_is_downloaded_once(server, tmp_path):
    docs = list(documents("tinyshakespeare", data_dir=tmp_path))
    assert " ".join(docs).split() == PLAY.decode().split() and len(docs) > 10 and server.asked == 1
    assert list(documents("tinyshakespeare", data_dir=tmp_path)) == docs and server.asked == 1
    (kept,) = [p for p in (tmp_path / "downloads").rglob("*") if p.is_file()]
    kept.write_bytes(PLAY[:500])  # a damaged copy is not trusted
    assert list(documents("tinyshakespeare", data_dir=tmp_path)) == docs and server.asked == 2


@pytest.mark.parametrize(
    "mode,part", [("other", "SHA-256"), ("404", "404"), ("cut", "could not download")]
)
def test_a_bad_download_leaves_nothing(server, tmp_path, mode, part):
    server.mode = mode
    with pytest.raises(ValueError) as e:
        list(documents("tinyshakespeare", data_dir=tmp_path))
    one_line(e, part, corpus.SHAKESPEARE)
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_no_server(monkeypatch, tmp_path):
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as httpd:
        port = httpd.server_port
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(corpus, "SHAKESPEARE", f"http://127.0.0.1:{port}/input.txt")
    with pytest.raises(ValueError) as e:
        list(documents("tinyshakespeare", data_dir=tmp_path))
    one_line(e, "could not download", "refused", tmp_path)


def test_modules_of_the_corpus_have_no_state():
    "Importing again and in another order gives the same stories."
    before = story(0)
    importlib.reload(telling)
    importlib.reload(corpus)
    assert corpus.story(0) == before
    assert json.dumps(corpus.story_items(1)) == json.dumps(story_items(1))


@pytest.mark.parametrize("processes", [1, 2, 5])
def test_stories_of_many_processes_are_those_of_one(processes):
    assert prepare.all_stories(203, processes) == [s.text for s in stories(203)]


def test_a_process_that_fails_costs_no_story(monkeypatch):
    monkeypatch.setattr(prepare, "STRETCH", "import sys; print('[]'); sys.exit(1)")
    assert prepare.all_stories(40, processes=2) == [s.text for s in stories(40)]
