"Questions about stories: their answers are true, and the same on every platform."

import hashlib
import json
import re

import pytest

from gpt2edu.text.grammar import Grammar
from gpt2edu.text.questions import (
    FACTS,
    KINDS,
    NOBODY_KNOWS,
    SPLITS,
    WORDINGS,
    Question,
    exam,
    hold_out,
    questions,
    questions_about,
    read_questions,
    world_of,
)


def by_hand(story):
    "A story of the grammar as a test writes it, and the world at its end."
    return world_of(story, Grammar(shortest=3, longest=9))


STORY = (
    "One day, Mia and Tom were in the kitchen. Mia had a ball. Tom bought four plums. "
    "Mia gave the ball to Tom. Tom ate one plum, so now he had three. Mia went to the park. "
    "At last, Tom had three plums."
)


def test_the_answers_about_a_story_that_a_person_can_check():
    world = by_hand(STORY)
    said = {
        WORDINGS[kind][0].format(**fact.words): fact.answer
        for kind in FACTS
        for fact in FACTS[kind](world)
    }
    assert said == {
        "Where is the ball?": "It is with Tom.",
        "Who has the ball?": "It is with Tom.",
        "Where is Mia?": "She is at the park.",
        "Where is Tom?": "He is in the kitchen.",
        "Who is with Mia?": "She is alone.",
        "Who is with Tom?": "He is alone.",
        "How many plums does Tom have?": "He has three plums.",
        "Who gave the ball to Tom?": "It was Mia.",
    }


@pytest.mark.parametrize("split", SPLITS)
def test_each_answer_follows_from_the_text_alone(split):
    for q in questions(400, split):
        world = world_of(q.story, SPLITS[split])
        facts = {
            wording.format(**fact.words): fact.answer
            for kind in FACTS
            for fact in FACTS[kind](world)
            for wording in WORDINGS[kind]
        }
        assert facts.get(q.question, NOBODY_KNOWS) == q.answer
        assert (q.kind == "unknown") == (q.answer == NOBODY_KNOWS)


def test_splits_share_no_story_and_hold_their_wording_out():
    asked = {split: list(questions(1500, split)) for split in SPLITS}
    stories = {split: {q.story for q in found} for split, found in asked.items()}
    assert len(stories["train"] & stories["held-out"]) < 5  # the shortest can meet by chance
    assert set(KINDS) == {q.kind for q in asked["held-out"]}
    unseen = [re.compile(re.sub(r"\\{\w\\}", r"\\w+", re.escape(w[-1]))) for w in WORDINGS.values()]
    assert all(any(u.fullmatch(q.question) for u in unseen) for q in asked["wording"])
    assert not any(u.fullmatch(q.question) for q in asked["train"] for u in unseen)
    assert min(len(q.story) for q in asked["longer"]) > 200


def test_questions_are_the_same_everywhere():
    found = [q for i in range(300) for split in SPLITS for q in questions_about(i, split, 3)]
    digest = hashlib.sha256(json.dumps([q[:4] for q in found]).encode()).hexdigest()
    assert digest[:16] == "6f72c4c1d1a0292d"


def test_an_exam_mixes_the_three_splits_that_are_not_trained():
    splits = [q.split for q in exam(10)]
    assert splits == ["held-out"] * 6 + ["wording"] * 2 + ["longer"] * 2
    assert exam(4)[0] == next(questions(1, "held-out"))


def test_a_file_of_questions(tmp_path):
    file = tmp_path / "own.jsonl"
    rows = [{"question": "Who are you?", "answer": "A model."}]
    rows += [{"story": "Mia slept.", "question": "Who slept?", "answer": "Mia.", "kind": "sleep"}]
    file.write_text("\n\n".join(map(json.dumps, rows)), encoding="utf-8")
    a, b = read_questions(file)
    assert (a.kind, a.prompt, a.answer) == ("file", "Who are you?", "A model.")
    assert (b.kind, b.prompt) == ("sleep", "Mia slept. Who slept?")


BAD = {
    '{"question": "Who?"}': "answer is missing",
    '{"question": "  ", "answer": "I."}': 'question is "  ", expected text that is not blank',
    '{"question": "Who?", "answer": 3}': "answer is 3",
    '{"question": "Who?", "answer": "I.", "reply": "no"}': "reply is a key that does not belong",
    '["Who?", "I."]': "the whole is",
    '{"question": "a", "answer": "b", "kind": "a\\nval_loss 0.1"}': 'kind is "a\\nval_loss 0.1"',
    '{"question": "a", "answer": "b", "kind": "\\u202ea"}': "kind is",
    '{"question": "a", "answer": "b", "kind": "a.b"}': 'kind is "a.b", expected letters, digits, ',
    '{"question": "a", "answer": "b", "kind": "exact"}': 'kind is "exact", expected another word',
    '{"question": "a", "answer": "b", "kind": "held-out"}': 'kind is "held-out", expected another',
    '{"question": "a", "answer": "b", "kind": "error"}': 'kind is "error", expected another word',
    '{"question": "a", "answer": "b", "kind": "x_error"}': 'kind is "x_error", expected another',
    '{"question": "a", "answer": "b", "kind": "%s"}' % ("k" * 41): 'kind is "kkkk',
    '{"question": "Who?"': "not JSON",
    '{"question": "a", "answer": "b", "answer": "c"}': "not JSON (the key 'answer' is there twice)",
    '{"question": "a", "answer": "\\ud83d"}': 'answer is "\\ud83d", expected text',
    '{"question": "a", "answer": ' + "[" * 100_000: "not JSON (nested too deeply)",
}


@pytest.mark.parametrize("line", BAD)
def test_a_bad_line_is_named(tmp_path, line):
    file = tmp_path / "own.jsonl"
    file.write_text('{"question": "a?", "answer": "b"}\n' + line, encoding="utf-8")
    with pytest.raises(ValueError) as e:
        read_questions(file)
    assert str(e.value).startswith(f"{file}, line 2: {BAD[line]}")
    assert "\n" not in str(e.value)


def test_plain_kinds_are_taken(tmp_path):
    file = tmp_path / "own.jsonl"
    kinds = ["how many", "Grösse", "two-step_2", "terror", "k" * 40, " "]
    rows = [{"question": "a", "answer": "b", "kind": kind} for kind in kinds]
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    assert [q.kind for q in read_questions(file)] == [*kinds[:-1], "file"]


def test_a_wrong_byte_is_named_by_its_place_in_the_file(tmp_path):
    file = tmp_path / "own.jsonl"
    good = b'{"question": "a", "answer": "b"}\r\n'
    for start in (b"", b"\xef\xbb\xbf"):
        raw = start + good + b"\n" + b'  {"question": "\xe9", "answer": "b"}\n'
        file.write_bytes(raw)
        with pytest.raises(ValueError) as e:
            read_questions(file)
        at = raw.index(b"\xe9")
        assert str(e.value) == f"{file}, line 3: not UTF-8 at byte {at}; convert it first"


def test_utf_16_is_named(tmp_path):
    file = tmp_path / "own.jsonl"
    file.write_text('{"question": "a", "answer": "b"}\n', encoding="utf-16")
    with pytest.raises(ValueError) as e:
        read_questions(file)
    assert str(e.value) == f"{file}: is UTF-16; convert it to UTF-8 first"


def asked(words: str) -> list[Question]:
    return [Question("file", "", word, word) for word in words.split()]


def test_every_tenth_question_is_held_out():
    for n in (2, 9, 10, 19, 20, 35):
        found = asked(" ".join(map(str, range(n))))
        train, held = hold_out(found, "f")
        assert held == (found[9::10] if n > 9 else found[-1:])
        assert train == [q for q in found if q not in held]


def test_equal_questions_are_on_one_side():
    found = asked("a b c d e f g h i j k j a j")
    train, held = hold_out(found, "f")
    assert [q.question for q in held] == ["j"] * 3
    assert [q.question for q in train] == list("abcdefghika")
    train, held = hold_out(asked("a b b"), "f")
    assert [q.question for q in (*train, *held)] == ["a", "b", "b"] and len(held) == 2
    with pytest.raises(ValueError, match="f: holds one question, expected two at least"):
        hold_out(asked("a a a"), "f")


def test_no_file_and_an_empty_one(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"expected a \.jsonl file"):
        read_questions(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n", encoding="utf-8")
    with pytest.raises(ValueError, match="holds no questions"):
        read_questions(tmp_path / "empty.jsonl")


def test_what_is_no_split_and_no_story():
    with pytest.raises(ValueError, match="expected one of train, held-out, wording, longer"):
        questions_about(0, "test")
    with pytest.raises(ValueError, match="comes after its end"):
        by_hand(STORY + " And so on.")


def test_a_kind_that_is_left_out_is_never_asked_in_any_words():
    "Nor is what nobody can know asked in its words; the other kinds keep theirs."
    words = {
        kind: [re.compile(re.sub(r"\\{\w\\}", r"\\w+", re.escape(w))) for w in wordings]
        for kind, wordings in WORDINGS.items()
    }
    for without in (["holder", "count"], [*FACTS][:-1]):
        for split in SPLITS:
            found = [q for i in range(300) for q in questions_about(i, split, 4, without=without)]
            worded = {
                k for q in found for k, ws in words.items() for w in ws if w.fullmatch(q.question)
            }
            assert worded == {*FACTS} - {*without}
            assert {q.kind for q in found} == worded | {"unknown"}


@pytest.mark.parametrize("without", [["holders"], ["unknown"], [*FACTS], "holder"])
def test_kinds_that_cannot_be_left_out_are_named(without):
    with pytest.raises(ValueError, match=r"^cannot leave out .*; expected some of thing, "):
        questions_about(0, without=without)
