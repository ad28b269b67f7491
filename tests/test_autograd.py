"""The scalar autograd against PyTorch's, on random graphs, and its few rules."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gpt2edu.model.autograd import Value, as_value, recorded

NUMBER = st.floats(0.5, 1.5)
STEP = st.tuples(st.sampled_from("+-*^t"), st.integers(0, 99), st.integers(0, 99))


def compute(leaves, steps):
    "Grow a graph from its leaves; any two earlier results may meet, a result with itself too."
    values = list(leaves)
    for kind, i, j in steps:
        a, b = values[i % len(values)], values[j % len(values)]
        match kind:
            case "+":
                values.append(a + b)
            case "-":
                values.append(a - 0.3 * b)
            case "*":
                values.append((0.5 * a) * b)
            case "^":
                values.append((a**2) * 0.1)
            case "t":
                values.append(a.tanh() + 2)
    return values[-1] + values[0]


@given(numbers=st.lists(NUMBER, min_size=2, max_size=4), steps=st.lists(STEP, max_size=12))
def test_gradients_are_those_of_pytorch(numbers, steps):
    ours = [Value(x) for x in numbers]
    theirs = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in numbers]
    result, wanted = compute(ours, steps), compute(theirs, steps)
    result.backward()
    wanted.backward()
    assert math.isclose(result.data, wanted.item(), rel_tol=1e-12)
    for value, tensor in zip(ours, theirs, strict=True):
        grad = 0.0 if tensor.grad is None else tensor.grad.item()
        # the same products, added in another order
        assert math.isclose(value.grad, grad, rel_tol=1e-10, abs_tol=1e-12)


def test_a_second_pass_adds_to_the_leaves_and_to_nothing_else():
    "Defect of small engines: what lies between keeps its gradient, and the second pass is wrong."
    a = Value(2.0)
    between = a * a
    end = between * 3
    for times in (1, 2):
        end.backward()
        assert (a.grad, between.grad, end.grad) == (12 * times, 3, 1)


def test_the_record_lists_each_value_once_and_after_its_parents():
    a = Value(1.0, name="a")
    b = a + a
    c = b * a
    end = c + b
    assert recorded(end) == [a, b, c, end]


@pytest.mark.parametrize("expression", [lambda v: 2 + v, lambda v: 2 * v, lambda v: v - 2])
def test_plain_numbers_may_stand_on_either_side(expression):
    v = Value(3.0)
    expression(v).backward()
    assert expression(v).data == expression(3.0) and v.grad in (1, 2)
    assert as_value(v) is v
