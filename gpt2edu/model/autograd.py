"""A number that remembers how it was computed, and the gradients of a network by hand."""

# Made by tools/book.py from ../../book/medium/ch07_backprop.md: edit that, then `make book`.

# %% auto #0
__all__ = ['Value', 'as_value', 'recorded']

# %% ../../nbs/medium/ch07_backprop.ipynb #4182ce50
import math

# %% ../../nbs/medium/ch07_backprop.ipynb #879fe598
class Value:
    "A number that remembers how it was computed, so that its gradient can be found."

    def __init__(
        self,
        data: float,  # the number
        parents: tuple["Value", ...] = (),  # what it was computed from; none for a leaf
        slopes: tuple[float, ...] = (),  # d data / d parent, one for each parent
        name: str = "",  # shown in figures: w1, +, tanh
    ):
        self.data = data
        self.parents = parents
        self.slopes = slopes
        self.name = name
        self.grad = 0.0  # d (what `backward` was called on) / d data

    def __add__(self, other):
        other = as_value(other)
        return Value(self.data + other.data, (self, other), (1.0, 1.0), "+")

    def __mul__(self, other):
        other = as_value(other)
        return Value(self.data * other.data, (self, other), (other.data, self.data), "×")

    def __pow__(self, n: float):
        return Value(self.data**n, (self,), (n * self.data ** (n - 1),), f"^{n}")

    def tanh(self):
        t = math.tanh(self.data)
        return Value(t, (self,), (1 - t * t,), "tanh")

    def __sub__(self, other):
        other = as_value(other)
        return Value(self.data - other.data, (self, other), (1.0, -1.0), "−")

    __radd__ = __add__  # 2 + value
    __rmul__ = __mul__  # 2 * value

    def __repr__(self):
        return f"Value({self.data:.4f}, grad={self.grad:.4f})"

    def backward(self) -> None:
        "Add to the `grad` of each leaf how steeply this value reacts to it."
        order = recorded(self)
        for value in order:
            if value.parents:  # not a leaf: its gradient belongs to this pass alone
                value.grad = 0.0
        self.grad = 1.0  # a value follows itself with slope 1
        for value in reversed(order):
            for parent, slope in zip(value.parents, value.slopes, strict=True):
                parent.grad += slope * value.grad  # the chain rule


def as_value(x: "Value | float") -> Value:
    "Wrap a plain number."
    return x if isinstance(x, Value) else Value(x)


def recorded(
    root: Value,  # the last result
) -> list[Value]:  # every value that took part, each after all of its parents; root is last
    "List a computation in the order in which it could be repeated."
    order, seen = [], set()

    def visit(value):
        if value not in seen:
            seen.add(value)
            for parent in value.parents:
                visit(parent)
            order.append(value)

    visit(root)
    return order
