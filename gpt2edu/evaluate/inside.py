"""Read, patch and cut a trained model, where the grammar knows the cause of each answer."""

# Made by tools/book.py from ../../book/tough/ch28_inside.md: edit that, then `make book`.

# %% auto #0
__all__ = ['hook_stream', 'read_stream', 'logit_lens', 'logit_difference', 'answers_both',
           'restored', 'repeated_tokens', 'head_scores', 'without_head', 'fit_probe']

# %% ../../nbs/tough/ch28_inside.ipynb #a4da4bed
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor

from gpt2edu.model.gpt import GPT
from gpt2edu.text.pairs import StoryPair

# %% ../../nbs/tough/ch28_inside.ipynb #cf577a6f
@contextmanager
def hook_stream(
    model: GPT,
    depth: int,  # 0: what enters the first block; d: what leaves block number d
    f: Callable[[Tensor], Tensor | None],  # gets (B, T, C); its result, unless None, takes over
) -> Iterator[None]:
    "Read or change the residual stream while the `with` lasts. ValueError for a wrong depth."
    blocks = model.transformer.h
    if not 0 <= depth <= len(blocks):
        raise ValueError(
            f"depth={depth} is not in a model of {len(blocks)} blocks; "
            f"expected 0 (the embeddings) to {len(blocks)} (after the last block)"
        )

    def enter(block, args):
        x = f(args[0])
        return None if x is None else (x, *args[1:])

    if depth == 0:
        handle = blocks[0].register_forward_pre_hook(enter)
    else:
        handle = blocks[depth - 1].register_forward_hook(lambda block, args, x: f(x))
    try:
        yield
    finally:
        handle.remove()


@torch.no_grad()
def read_stream(
    model: GPT,
    idx: Tensor,  # (B, T) int64 token ids
) -> Tensor:  # (n_layer + 1, B, T, C) the stream at every depth
    "Run a model and keep its residual stream."
    kept = []
    with ExitStack() as hooks:
        for depth in range(len(model.transformer.h) + 1):
            hooks.enter_context(hook_stream(model, depth, kept.append))
        model(idx)
    return torch.stack(kept)


@torch.no_grad()
def logit_lens(
    model: GPT,
    stream: Tensor,  # (..., C) at any depth
) -> Tensor:  # (..., V) logits
    "Read the stream as if it were the last. Source: nostalgebraist (2020)."
    return model.lm_head(model.transformer.ln_f(stream))

# %% ../../nbs/tough/ch28_inside.ipynb #338e72c9
def logit_difference(
    model: GPT,
    idx: Tensor,  # (B, T) int64 token ids
    pair: StoryPair,
) -> Tensor:  # (B,) positive where the model prefers the first story's answer
    "Say which of a pair's two answers comes next, and how clearly."
    logits = model(idx, last_only=True)[0][:, -1]  # (B, V)
    return logits[:, pair.answer] - logits[:, pair.other]


@torch.no_grad()
def answers_both(model: GPT, pair: StoryPair) -> bool:
    "Say whether a model prefers the true answer in both stories."
    first, second = logit_difference(model, torch.tensor([pair.right, pair.wrong]), pair)
    return bool(first > 0 > second)

# %% ../../nbs/tough/ch28_inside.ipynb #b629636d
@torch.no_grad()
def restored(
    model: GPT,
    pair: StoryPair,
    depth: int,  # where the vector of the first story replaces the second's
    positions: list[int] | None = None,  # None: every one
) -> Tensor:  # (positions,) share of the logit difference; 0: nothing, 1: all of it
    "Patch one position at a time. Source: Meng et al. (2022); metric: Wang et al. (2022)."
    right, wrong = torch.tensor([pair.right]), torch.tensor([pair.wrong])  # (1, T)
    where = torch.arange(len(pair.right)) if positions is None else torch.tensor(positions)
    theirs = read_stream(model, right)[depth, 0]  # (T, C)
    first, second = (logit_difference(model, x, pair) for x in (right, wrong))

    def put(x):
        x = x.clone()
        x[torch.arange(len(where)), where] = theirs[where]
        return x

    with hook_stream(model, depth, put):
        patched = logit_difference(model, wrong.expand(len(where), -1), pair)
    return (patched - second) / (first - second)

# %% ../../nbs/tough/ch28_inside.ipynb #7c5268bc
def repeated_tokens(
    vocabulary: Tensor,  # (n,) int64 ids to draw from, each at most once in a copy
    P: int,  # tokens of a copy
    B: int = 32,
    seed: int = 0,
) -> Tensor:  # (B, 2 P) int64
    "Draw rows of random tokens, each followed by a copy of itself."
    g = torch.Generator().manual_seed(seed)
    rows = [vocabulary[torch.randperm(len(vocabulary), generator=g)[:P]] for _ in range(B)]
    return torch.stack(rows).repeat(1, 2)  # (B, 2 P)


def head_scores(
    model: GPT,
    idx: Tensor,  # (B, 2 P) from `repeated_tokens`
    back: int,  # how many positions: 1: the previous token; P - 1: induction
) -> Tensor:  # (n_layer, n_head) mean attention to that position, in the second copy
    "Score heads by where they look. Source: Olsson et al. (2022)."
    P = idx.shape[1] // 2
    weights = model.attention_weights(idx)  # (L, B, nh, T, T)
    rows = torch.arange(P, 2 * P)
    return weights[..., rows, rows - back].mean((1, 3))

# %% ../../nbs/tough/ch28_inside.ipynb #8f99dc1b
@contextmanager
def without_head(
    model: GPT,
    layer: int,  # from 0
    head: int,  # from 0
    zero: bool = False,  # put in zeros, not the mean over the batch
) -> Iterator[None]:
    "Knock out one head while the `with` lasts: it says the same at every position."
    attn = model.transformer.h[layer].attn
    hs = model.config.n_embd // model.config.n_head
    part = slice(head * hs, (head + 1) * hs)

    def silence(c_proj, args):
        y = args[0].clone()  # (B, T, C) heads side by side
        y[..., part] = 0 if zero else y[..., part].mean((0, 1))
        return (y,)

    handle = attn.c_proj.register_forward_pre_hook(silence)
    try:
        yield
    finally:
        handle.remove()

# %% ../../nbs/tough/ch28_inside.ipynb #e5e6990d
def fit_probe(
    x: Tensor,  # (N, C) vectors of the stream
    labels: Tensor,  # (N,) int64, from 0
    n_labels: int,
    ridge: float = 1.0,  # keeps the weights small
) -> Callable[[Tensor], Tensor]:  # (M, C) -> (M,) labels
    "Fit a linear probe by least squares."
    mean, std = x.mean(0), x.std(0) + 1e-6

    def widen(x):  # (N, C) -> (N, C + 1)
        return torch.cat([(x - mean) / std, torch.ones(len(x), 1)], 1).double()

    a = widen(x)
    targets = torch.eye(n_labels, dtype=torch.float64)[labels]  # (N, n_labels)
    square = a.t() @ a + ridge * torch.eye(a.shape[1], dtype=torch.float64)
    weight = torch.linalg.solve(square, a.t() @ targets)  # (C + 1, n_labels)
    return lambda x: (widen(x) @ weight).argmax(1)
