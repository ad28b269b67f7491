"""A law fitted to small runs, its floor compared with the true one, and a larger run predicted."""

# Made by tools/book.py from ../../book/tough/ch27_scaling.md: edit that, then `make book`.

# %% auto #0
__all__ = ['DELTA', 'HALVES', 'FIVES', 'STARTS', 'Law', 'misfit', 'improve', 'fit', 'bootstrap']

# %% ../../nbs/tough/ch27_scaling.ipynb #bd087aae
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

# %% ../../nbs/tough/ch27_scaling.ipynb #550d72f6
@dataclass(frozen=True)
class Law:
    "L(N, D) = E + A / N^alpha + B / D^beta, nats/token. Source: Hoffmann et al. 2022, section 3.3."

    E: float  # the loss that no size and no amount of text removes
    A: float
    alpha: float  # how fast the loss falls with parameters
    B: float
    beta: float  # how fast it falls with tokens

    def loss(
        self,
        n,  # parameters
        d,  # tokens
    ) -> np.ndarray:  # nats/token
        "Predict the loss of a model of n parameters after d tokens."
        n, d = np.asarray(n, float), np.asarray(d, float)
        return self.E + self.A / n**self.alpha + self.B / d**self.beta

    def frontier(
        self,
        flops: float,  # to spend, 6 n d
    ) -> tuple[float, float]:  # n, d
        "Split a budget of operations so that the predicted loss is smallest."
        ratio = self.alpha * self.A / (self.beta * self.B)
        n = (ratio * (flops / 6) ** self.beta) ** (1 / (self.alpha + self.beta))
        return n, flops / 6 / n

# %% ../../nbs/tough/ch27_scaling.ipynb #c6ede09c
DELTA = 1e-3  # of the Huber loss, in units of log L
# where to begin: alpha, beta, log A, log B, log E
HALVES = (0.0, 0.5, 1.0, 1.5, 2.0)
FIVES = (0.0, 5.0, 10.0, 15.0, 20.0, 25.0)
STARTS = np.array(list(product(HALVES, HALVES, FIVES, FIVES, (-1.0, -0.5, 0.0, 0.5, 1.0))))


def misfit(
    p: np.ndarray,  # (K, 5) alpha, beta, log A, log B, log E
    n: np.ndarray,  # (R,) parameters of the runs
    d: np.ndarray,  # (R,) tokens
    losses: np.ndarray,  # (R,) nats/token
    delta: float = DELTA,
) -> np.ndarray:  # (K,) sum of the Huber losses of log L
    "Say how badly laws fit some runs."
    alpha, beta, a, b, e = p.T[:, :, None]  # (K, 1) each
    log_law = np.logaddexp(np.logaddexp(a - alpha * np.log(n), b - beta * np.log(d)), e)  # (K, R)
    off = np.abs(log_law - np.log(losses))
    return np.where(off <= delta, off * off / 2, delta * (off - delta / 2)).sum(1)


def improve(
    start: np.ndarray,  # (5,) alpha, beta, log A, log B, log E
    n: np.ndarray,
    d: np.ndarray,
    losses: np.ndarray,
    delta: float = DELTA,
) -> tuple[float, np.ndarray]:  # misfit, parameters
    "Walk from a start to the bottom of its valley, by L-BFGS."
    import torch  # not at the top: reading flags must not load it

    log_n, log_d, log_loss = (torch.from_numpy(np.log(v)) for v in (n, d, losses))
    p = torch.tensor(start, dtype=torch.float64, requires_grad=True)
    options = {"tolerance_grad": 1e-10, "tolerance_change": 1e-14, "max_iter": 500}
    optimizer = torch.optim.LBFGS([p], line_search_fn="strong_wolfe", **options)

    def closure():
        optimizer.zero_grad()
        alpha, beta, a, b, e = p
        terms = torch.stack([a - alpha * log_n, b - beta * log_d, e.expand(len(log_n))])  # (3, R)
        found = terms.logsumexp(0)  # (R,) log L
        total = torch.nn.functional.huber_loss(found, log_loss, reduction="sum", delta=delta)
        total.backward()
        return total

    optimizer.step(closure)
    found = p.detach().numpy()
    return float(misfit(found[None], n, d, losses, delta)[0]), found


def fit(
    n: Sequence[float],  # parameters of each run
    d: Sequence[float],  # tokens of each run
    losses: Sequence[float],  # nats/token
    starts: np.ndarray = STARTS,  # (K, 5)
    best: int = 8,  # how many of the starts to improve
    delta: float = DELTA,
) -> Law:
    "Fit a law to runs. ValueError for fewer than five runs, or a loss that is not a number."
    n, d, losses = (np.array(v, dtype=float) for v in (n, d, losses))
    if len(losses) < 5:
        raise ValueError(f"got {len(losses)} runs for the five numbers of a law; train more")
    for name, values in (("n", n), ("d", d), ("losses", losses)):
        if len(values) != len(losses) or not (np.isfinite(values) & (values > 0)).all():
            want = f"{len(losses)} numbers above 0"
            raise ValueError(f"{name}: expected {want}; leave the runs that broke out")
    order = np.argsort(misfit(starts, n, d, losses, delta))[:best]
    tried = [improve(starts[i], n, d, losses, delta) for i in order]
    alpha, beta, a, b, e = min(tried, key=lambda t: t[0])[1].tolist()
    return Law(*np.exp([e, a]).tolist(), alpha, float(np.exp(b)), beta)

# %% ../../nbs/tough/ch27_scaling.ipynb #4d6b74c1
def bootstrap(
    law: Law,  # fitted to all runs: where each fit begins
    n: Sequence[float],
    d: Sequence[float],
    losses: Sequence[float],
    times: int = 50,
    seed: int = 0,
) -> list[Law]:
    "Fit the law again to runs that are drawn with replacement, to see how far it can be trusted."
    n, d, losses = (np.array(v, dtype=float) for v in (n, d, losses))
    logs = np.log([law.A, law.B, law.E])
    start = np.array([[law.alpha, law.beta, *logs]])
    rng = np.random.default_rng(seed)
    draws = [rng.integers(len(losses), size=len(losses)) for _ in range(times)]
    return [fit(n[i], d[i], losses[i], start) for i in draws]
