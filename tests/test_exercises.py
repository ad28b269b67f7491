"""A check names the mistake that was made, and gives its hint on the second failure."""

import importlib
import importlib.util
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CASES, RIGHT = [], []
for path in sorted((HERE / "exercise_mistakes").glob("*.py")):
    spec = importlib.util.spec_from_file_location(f"mistakes_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    CASES += [
        (path.stem, check, i, *case)
        for check, cases in module.MISTAKES.items()
        for i, case in enumerate(cases)
    ]
    RIGHT += [
        (path.stem, check, i, answer)
        for check, answers in getattr(module, "RIGHT", {}).items()
        for i, answer in enumerate(answers)
    ]


@pytest.mark.parametrize(
    "topic,check,i,wrong,phrase", CASES, ids=[f"{c[0]}-{c[1]}-{c[2]}" for c in CASES]
)
def test_message_names_the_mistake(topic, check, i, wrong, phrase):
    verdict = getattr(importlib.import_module(f"gpt2edu.exercises.{topic}"), check)(wrong)
    assert not verdict.passed
    assert phrase in verdict.message


@pytest.mark.parametrize(
    "topic,check,i,answer", RIGHT, ids=[f"{c[0]}-{c[1]}-{c[2]}" for c in RIGHT]
)
def test_a_right_answer_in_another_style_passes(topic, check, i, answer):
    verdict = getattr(importlib.import_module(f"gpt2edu.exercises.{topic}"), check)(answer)
    assert verdict.passed, verdict.message


@pytest.mark.parametrize("topic", sorted({c[0] for c in CASES}))
def test_every_check_has_two_mistakes_and_a_hint(topic):
    module = importlib.import_module(f"gpt2edu.exercises.{topic}")
    for name in [n for n in vars(module) if n.startswith("check_")]:
        assert len([c for c in CASES if c[:2] == (topic, name)]) >= 2, (
            f"{name}: two classic mistakes are needed"
        )
        check = getattr(module, name)
        first, second = check(None), check(None)
        assert not first.passed and not second.passed
        assert second.hint == check.hint != ""
