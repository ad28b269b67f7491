"""Refuse a number of heads that does not divide the width, and name the nearest ones that do."""

# Made by tools/book.py from ../../book/medium/ch09a_heads.md: edit that, then `make book`.

# %% auto #0
__all__ = ['divisors', 'near_heads', 'check_heads']

# %% ../../nbs/medium/ch09a_heads.ipynb #d6933987
import math

# %% ../../nbs/medium/ch09a_heads.ipynb #292b43b3
def divisors(n: int) -> list[int]:
    "List the divisors of a number, except pairs of which both are above 100,000."
    small = [d for d in range(1, min(math.isqrt(n), 100_000) + 1) if n % d == 0]
    return sorted({*small, *(n // d for d in small)})


def near_heads(
    n_head: int,  # asked for
    n_embd: int,  # C, the width
) -> str:  # "6, 8 or 12"
    "Name the three numbers of heads that divide the width and are nearest to the one asked for."
    nearest = sorted(divisors(n_embd), key=lambda d: abs(math.log(d / n_head)))
    *others, last = sorted(nearest[:3])
    return f"{', '.join(map(str, others))} or {last}" if others else str(last)


def check_heads(
    n_head: int,  # 1 or more
    n_embd: int,  # C, the width, 1 or more
) -> None:
    "Raise ValueError, one line with advice, unless the heads divide the width."
    if n_embd % n_head:
        fits = near_heads(n_head, n_embd)
        raise ValueError(f"n_head={n_head} must divide n_embd={n_embd}; try {fits}")
