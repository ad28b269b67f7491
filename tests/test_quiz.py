"""The quizzes: one right answer, a reason for each, and no wording that gives it away."""

import importlib
import re
import statistics
from pathlib import Path

import pytest

from gpt2edu.exercises.quiz import Question, Quiz

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted(p.stem for p in (ROOT / "book" / "exercises").glob("*.md"))
QUIZZES = {}
for name in MODULES:
    module = importlib.import_module(f"gpt2edu.exercises.{name}")
    if name != "quiz" and hasattr(module, "quiz"):
        QUIZZES[name] = module.quiz
QUESTIONS = [(name, q) for name, quiz in QUIZZES.items() for q in quiz.questions]
IDS = [f"{name}-{i % 3 + 1}" for i, (name, _) in enumerate(QUESTIONS)]


def words(text):
    return set(re.findall(r"\w{4,}", text.lower()))


@pytest.mark.parametrize("name", QUIZZES)
def test_three_questions_that_the_chapter_asks(name):
    assert len(QUIZZES[name].questions) == 3
    asks = f"from gpt2edu.exercises import {name} as ex"
    chapters = [p.read_text(encoding="utf-8") for p in (ROOT / "book").glob("*/ch*.md")]
    (chapter,) = [text for text in chapters if asks in text]
    assert chapter.count("\nex.quiz()\n") == 1


@pytest.mark.parametrize("name,question", QUESTIONS, ids=IDS)
def test_a_question_has_one_right_answer_and_a_reason_for_each(name, question):
    answers = question.answers()
    texts = [re.sub(r"\W+", " ", text.lower()).strip() for text, _ in answers]
    assert len(answers) in (3, 4) and len(set(texts)) == len(texts), "answers say the same"
    assert question.text.strip().endswith("?")
    assert all(len(reason.split()) >= 4 for _, reason in answers)
    assert len({reason for _, reason in answers}) == len(answers)
    assert all(not re.match(r"(all|none|both) of ", text.lower()) for text, _ in answers)


@pytest.mark.parametrize("name,question", QUESTIONS, ids=IDS)
def test_the_length_of_an_answer_does_not_give_it_away(name, question):
    right, wrong = len(question.right[0]), [len(text) for text, _ in question.wrong]
    assert min(wrong) / 1.4 - 6 <= right <= max(wrong) * 1.2 + 6


@pytest.mark.parametrize("name,question", QUESTIONS, ids=IDS)
def test_no_answer_alone_repeats_the_words_of_the_question(name, question):
    shared = len(words(question.right[0]) & words(question.text))
    others = max(len(words(text) & words(question.text)) for text, _ in question.wrong)
    assert shared <= others + 1


def test_neither_place_nor_length_finds_the_right_answers():
    letters = [q.letter() for _, q in QUESTIONS]
    assert letters, "no quiz was found"
    for letter in "abc":  # a guesser who always says the same gets no more than chance allows
        allowed = len(letters) / 3 + 2.5 * (len(letters) * 2 / 9) ** 0.5
        assert letters.count(letter) <= allowed
    longest = [len(q.right[0]) > max(len(text) for text, _ in q.wrong) for _, q in QUESTIONS]
    assert statistics.mean(longest) <= 0.45


def test_a_quiz_asks_judges_and_refuses():
    quiz = Quiz(
        Question("Is `a` < b?", ("yes", "Since a is less."), (("no", "It is."), ("maybe", "No.")))
    )
    letter = quiz.questions[0].letter()
    assert f"{letter}) yes" in repr(quiz())
    assert repr(quiz(letter)) == "1. Right. Since a is less.\n1 of 1 right"
    others = [quiz(other) for other in "abc" if other != letter]
    assert [judged.right for judged in others] == [0, 0]
    shown = quiz._repr_html_()
    assert shown.count("<details>") == 3 and shown.count("Right.") == 1
    assert "Is <code>a</code> &lt; b?" in shown
    with pytest.raises(ValueError, match="question 1 has the answers a, b, c, got 'z'"):
        quiz("z")
    with pytest.raises(ValueError, match="2 answers to 1 questions; give one each"):
        quiz("a", "b")
