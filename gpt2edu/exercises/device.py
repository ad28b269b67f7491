"""Checks for floats in bits, rounding to bf16, the loss scaler and tiles of attention."""

# Made by tools/book.py from ../../book/exercises/device.md: edit that, then `make book`.

# %% auto #0
__all__ = ['quiz', 'check_decode', 'check_round_bf16', 'check_next_scale', 'check_merge_tiles']

# %% ../../nbs/exercises/device.ipynb #3b1f6631
import math
import random

import numpy as np

from gpt2edu.exercises.core import close, exercise, fail
from gpt2edu.exercises.quiz import Question, Quiz

# %% ../../nbs/exercises/device.ipynb #e5e76bb6
quiz = Quiz(
    Question(
        "All weights are cast to bf16, and after some steps the loss stands still. Why?",
        right=(
            "the steps are smaller than half a gap between neighbours",
            "Near 1 the next bf16 number is 0.008 away, so a step of 0.001 is rounded away.",
        ),
        wrong=(
            (
                "small gradients become zero, since bf16 has a short range",
                "That is fp16. bf16 has the exponent of fp32, and so nearly its range.",
            ),
            (
                "bf16 needs a loss scaler, which was left out of the loop",
                "Scaling helps against vanishing. It does not help a sum that is rounded.",
            ),
        ),
    ),
    Question(
        "A T4 says that it supports bf16, and still `auto` takes fp16 with a scaler. Why?",
        right=(
            "there bf16 is emulated, so it is slow",
            "Its tensor cores multiply fp16 only. PyTorch counts an emulation as support.",
        ),
        wrong=(
            (
                "fp16 has more digits, so it learns better",
                "Where bf16 is in hardware it is preferred, digits or not: it needs no scaler.",
            ),
            (
                "bf16 would need more of the T4's memory",
                "Both have 16 bits a number, so they take the same memory.",
            ),
        ),
    ),
    Question(
        "A kernel returns gradients that are 1 % too long. "
        "Rounding moves a bf16 gradient by 1 % as well. How can a test tell them apart?",
        right=(
            "along the right gradient, rounding nearly cancels",
            "Rounding has no direction; the kernel's error points along the gradient and stays.",
        ),
        wrong=(
            (
                "by the loss, which only a wrong kernel changes",
                "The loss is from the forward pass, so a wrong backward pass leaves it right.",
            ),
            (
                "by a second run, which repeats rounding errors only",
                "On the same numbers both errors are the same again, rounding and kernel.",
            ),
        ),
    ),
)

# %% ../../nbs/exercises/device.ipynb #757e5118
@exercise(
    hint="Split at spaces; int(text, 2) reads binary; "
    "the mantissa counts 1024ths; treat exponent 00000 apart."
)
def check_decode(answer):
    "Reads normal and subnormal fp16 numbers of either sign."
    for sign in "01":
        for e in (random.randint(16, 29), random.randint(1, 14), 0):
            m = random.randint(1, 1023)
            text = f"{sign} {e:05b} {m:010b}"
            word = int(text.replace(" ", ""), 2)
            want = float(np.array(word, dtype=np.uint16).view(np.float16))
            got = answer(text)
            if got == want:
                continue
            if close(got, -want, 1e-12):
                fail(f"{text} has the other sign: the first digit is the sign, 1 means minus")
            if e and close(got / want, (m / 1024) / (1 + m / 1024)):
                fail(f"{text}: the hidden 1 before the mantissa is missing")
            if e and close(got / want, (1 + m / 512) / (1 + m / 1024)):
                fail(f"{text}: the mantissa has ten digits, so it counts 1024ths")

            if e and close(got / want, 2.0 ** (15 - 127)):
                fail(f"{text}: 127 is the bias of fp32 and bf16; fp16 has 15")
            if not e and close(got / want, (1 + m / 1024) / (m / 1024) / 2):
                fail(f"{text} is subnormal: its hidden digit is 0, and the exponent counts as 1")
            if not e and close(got / want, 0.5):
                fail(f"{text} is subnormal: its exponent counts as 1, not 0")
            fail(f"{text} should be {want!r}, got {got!r}")
    for text, want in (
        ("0 00000 0000000000", 0.0),
        ("0 00000 0000000001", 2.0**-24),
        ("0 00001 0000000000", 2.0**-14),
        ("1 01111 0000000000", -1.0),
        ("0 11110 1111111111", 65504.0),
    ):
        if (got := answer(text)) != want:
            fail(f"at the border: {text} should be {want!r}, got {got!r}")

# %% ../../nbs/exercises/device.ipynb #64d8ea18
@exercise(
    hint="Above 0x8000 add one to the upper half, below do not; "
    "at 0x8000 itself only if the upper half is odd."
)
def check_round_bf16(answer):
    "Rounds to nearest, and ties to even."
    upper = 2 * random.randint(0x1000, 0x1FFF)  # even, a normal number
    upper += random.choice([0, 0x8000])  # of either sign
    down = [(upper, 0x7FFF, 0), (upper + 1, 1, 0), (upper, 0x8000, 0)]
    cases = [*down, (upper, 0x8001, 1), (upper + 1, 0xFFFF, 1), (upper + 1, 0x8000, 1)]
    wrong = [(u, low, up) for u, low, up in cases if answer(u << 16 | low) != u + up]
    if not wrong:
        return
    if len(wrong) == 3 and all(up for _, _, up in wrong):
        fail("you cut the lower half off: 1.9 became 1; look at it before you drop it")
    if len(wrong) == 3 and not any(up for _, _, up in wrong):
        fail("you always round up: a lower half below 0x8000 is dropped")
    if all(answer(u << 16 | low) == (u + up) << 16 for u, low, up in cases):
        fail("the upper half is right, but still in its old place: shift it down by 16")
    if all(low == 0x8000 for _, low, _ in wrong):
        u, low, up = wrong[0]
        fail(f"ties go to the even neighbour: 0x{u << 16 | low:08x} should give 0x{u + up:04x}")
    u, low, up = wrong[0]
    fail(f"0x{u << 16 | low:08x} should give 0x{u + up:04x}, got {answer(u << 16 | low)!r}")

# %% ../../nbs/exercises/device.ipynb #171d1d1b
@exercise(
    hint="Three cases: overflow; the good step that completes the interval; any other good step."
)
def check_next_scale(answer):
    "Drops a step that overflowed, halves, counts, doubles."
    scale = 2.0 ** random.randint(8, 16)
    interval = random.randint(3, 9)
    step, new, good = answer(scale, interval - 1, True, interval)
    if (step, new, good) == (True, scale * 2, 0):
        fail("you did not look at `overflow`: an interval ends with good steps only")
    if step:
        fail("the gradients overflowed, and you let the optimiser use them")
    if new == scale * 2 or new == scale:
        fail("after an overflow the scale must fall, or the next step overflows too")
    if good != 0:
        fail("an overflow ends the row of good steps: the count starts at 0 again")
    if new != scale / 2:
        fail(f"scale {scale} should fall to {scale / 2}, got {new}")
    got = answer(scale, interval - 1, False, interval)
    if tuple(got)[:2] == (True, scale):
        fail(f"step {interval} in a row is the one that completes the interval: double now")
    if got[1] == scale * 2 and got[2] != 0:
        fail("after doubling the count starts at 0 again")
    if tuple(got) != (True, scale * 2, 0):
        fail(
            f"good step number {interval} of {interval}: "
            f"expected {(True, scale * 2, 0)}, got {tuple(got)}"
        )
    got = answer(scale, 0, False, interval)
    if tuple(got) != (True, scale, 1):
        fail(f"a good step in the middle: expected {(True, scale, 1)}, got {tuple(got)}")
    if (got := tuple(answer(scale, 0, False, 1))) != (True, scale * 2, 0):
        fail(f"with an interval of 1 every good step doubles; got {got}")
    if (got := tuple(answer(scale, 0, True, interval))) != (False, scale / 2, 0):
        fail(f"two overflows one after another halve twice; got {got}")

# %% ../../nbs/exercises/device.ipynb #31f95e7f
@exercise(
    hint="m is the larger of the two; "
    "a triple comes to it when its s and o are multiplied by exp(own m - m)."
)
def check_merge_tiles(answer):
    "Two halves give the softmax of the whole."
    rng = np.random.default_rng()
    scores, values = rng.normal(size=8), rng.normal(size=8)
    scores[5] = scores[:5].max() + rng.choice([-1, 1]) * rng.uniform(0.5, 2)  # both halves count

    def triple(part):
        m = scores[part].max()
        e = np.exp(scores[part] - m)
        return float(m), float(e.sum()), float(e @ values[part])

    a = triple(slice(0, 5))
    b = triple(slice(5, 8))
    want = triple(slice(0, 8))
    got = tuple(answer(a, b))
    if not close(got, want):
        _name_merge(got, a, b, want)
    empty = (-math.inf, 0.0, 0.0)
    far = (a[0] - 5000, *a[1:]), (a[0] + 5000, *b[1:])
    for x, y, result, message in (
        (b, a, want, "with the halves the other way round, the answer should be the same"),
        (empty, b, b, "an empty tile (m = -inf, s = 0, o = 0) should change nothing"),
        (a, empty, a, "an empty tile in the second place should change nothing either"),
        (*far, far[1], "a half that is 10,000 below has no weight left"),
    ):
        if not close(tuple(answer(x, y)), result):
            fail(message)


def _name_merge(got, a, b, want):
    if close(got, a) or close(got, b):
        fail("that is one of the two halves: both have to count")
    up = (
        want[0],
        *(a[i] * math.exp(want[0] - a[0]) + b[i] * math.exp(want[0] - b[0]) for i in (1, 2)),
    )
    if close(got, up):
        fail("the exponent has the wrong sign: the half with the smaller m shrinks, exp(m_own - m)")
    if close(got[0], min(a[0], b[0])):
        fail("m is the larger of the two: with the smaller one an exponential may overflow")
    if close(got[0], a[0] + b[0]):
        fail("m is the largest score of both, not the sum of two largest")
    if close(got, (want[0], a[1] + b[1], a[2] + b[2])):
        fail("you added sums that were taken with different m: shrink them to the same m first")
    if close(got, (want[0], want[1], a[2] + b[2])):
        fail("s is right; o has to be shrunk by the same factors")
    if close(got, (want[0], want[1], want[2] / want[1])):
        fail("you divided by s already; the triple is merged again later, divide at the very end")
    fail(f"expected (m, s, o) = {want}, got {got}")
