"""Three questions at the end of a chapter, with a reason for every answer, right or wrong."""

# Made by tools/book.py from ../../book/exercises/quiz.md: edit that, then `make book`.

# %% auto #0
__all__ = ['Question', 'Quiz', 'Judged']

# %% ../../nbs/exercises/quiz.ipynb #895eb7d8
import hashlib
import html
import re
from dataclasses import dataclass
from string import ascii_lowercase

# %% ../../nbs/exercises/quiz.ipynb #afe75be8
@dataclass(frozen=True)
class Question:
    "A question, one right answer, and wrong ones; each answer is a pair of text and reason."

    text: str
    right: tuple[str, str]
    wrong: tuple[tuple[str, str], ...]

    def answers(self) -> list[tuple[str, str]]:  # (text, reason), in the order that is shown
        "Mix the right answer with the wrong ones, for every reader in the same way."

        def place(answer):
            return hashlib.sha256((self.text + answer[0]).encode()).digest()

        return sorted([self.right, *self.wrong], key=place)

    def letter(self) -> str:
        "Name the right answer by its letter."
        return ascii_lowercase[self.answers().index(self.right)]

# %% ../../nbs/exercises/quiz.ipynb #98b0b414
class Quiz:
    "Questions that are asked together."

    def __init__(self, *questions: Question):
        self.questions = questions

    def __call__(self, *letters: str):  # one for each question, or none to see the questions
        "Ask the questions, or judge the answers."
        return Judged(self.questions, letters) if letters else self

    def __repr__(self):
        lines = []
        for n, question in enumerate(self.questions, 1):
            lines.append(f"{n}. {question.text}")
            answers = zip(ascii_lowercase, question.answers(), strict=False)
            lines += [f"   {letter}) {text}" for letter, (text, _) in answers]
        example = ", ".join(f'"{letter}"' for letter in "abcabc"[: len(self.questions)])
        return "\n".join([*lines, f"Answer with letters: quiz({example})"])

    def _repr_html_(self):
        return f'<div class="quiz">{"".join(map(_as_html, enumerate(self.questions, 1)))}</div>'


def _as_html(numbered):
    number, question = numbered
    parts = [f'<p class="question"><strong>{number}.</strong> {_marked(question.text)}</p>']
    for text, reason in question.answers():
        verdict = "Right." if (text, reason) == question.right else "Not so."
        parts.append(
            f"<details><summary>{_marked(text)}</summary>"
            f"<p><strong>{verdict}</strong> {_marked(reason)}</p></details>"
        )
    return "".join(parts)


def _marked(text):
    "Escape text for HTML; what stands between backticks is code."
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text, quote=False))

# %% ../../nbs/exercises/quiz.ipynb #eb83a8fb
class Judged:
    "What the answers to a quiz are worth."

    def __init__(self, questions: tuple[Question, ...], letters: tuple[str, ...]):
        if len(letters) != len(questions):
            raise ValueError(f"{len(letters)} answers to {len(questions)} questions; give one each")
        self.lines, self.right = [], 0
        for n, (question, given) in enumerate(zip(questions, letters, strict=True), 1):
            by_letter = dict(zip(ascii_lowercase, question.answers(), strict=False))
            if str(given).lower() not in by_letter:
                known = ", ".join(by_letter)
                raise ValueError(f"question {n} has the answers {known}, got {given!r}")
            answer = by_letter[str(given).lower()]
            self.right += answer == question.right
            verdict = "Right." if answer == question.right else "Not so."
            self.lines.append(f"{n}. {verdict} {answer[1]}")

    def __repr__(self):
        return "\n".join([*self.lines, f"{self.right} of {len(self.lines)} right"])
