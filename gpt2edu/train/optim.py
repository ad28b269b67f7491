"""AdamW written by hand, the schedule, clipping, and the optimisers that train GPT-2."""

# Made by tools/book.py from ../../book/medium/ch10_optim.md: edit that, then `make book`.

# %% auto #0
__all__ = ['ROUNDS', 'AT_ONCE', 'SHARED_FROM', 'KINDS', 'decay_groups', 'lr_at', 'orthogonalise',
           'orthogonalise_wide', 'whole_tensor', 'split_like', 'shared_among_ranks', 'Muon',
           'block_matrices', 'build_optimizers', 'set_lr', 'load_states']

# %% ../../nbs/medium/ch10_optim.ipynb #e17d428a
import math
from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch import Tensor, nn

from gpt2edu.machine.precision import fast_dtype

# %% ../../nbs/medium/ch10_optim.ipynb #eb3dd574
def decay_groups(
    model: nn.Module,  # any model; a tied weight counts once
    weight_decay: float,  # per unit of learning rate; 0.1 for GPT-2
) -> list[dict]:  # two parameter groups: the tensors that decay, then those that do not
    "Split a model's parameters: matrices and embeddings decay, biases and LayerNorm gains do not."
    params = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in params if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in params if p.ndim < 2], "weight_decay": 0.0},
    ]

# %% ../../nbs/medium/ch10_optim.ipynb #a36db494
def lr_at(
    step: int,  # steps taken so far: 0 before the first update
    max_lr: float,  # the peak, reached when the warmup ends; 1.0 for fractions of a peak
    min_lr: float,  # the value at `max_steps` and after
    warmup_steps: int,  # length of the linear climb; 0 for none
    max_steps: int,  # where the cosine ends
) -> float:  # learning rate of this step
    "Give a step's rate: linear warmup, then half a cosine. Source: GPT-3 (arXiv 2005.14165), B."
    if step < warmup_steps:
        return max_lr * (step + 1) / warmup_steps
    if step >= max_steps:
        return min_lr
    done = (step - warmup_steps) / (max_steps - warmup_steps)  # 0 → 1
    return min_lr + 0.5 * (1 + math.cos(math.pi * done)) * (max_lr - min_lr)

# %% ../../nbs/medium/ch10_optim.ipynb #c2a9da75
ROUNDS = ((3.4445, -4.7750, 2.0315),) * 5  # a, b, c of each round; Jordan 2024


def orthogonalise(
    G: Tensor,  # (..., A, B) matrices of one shape
    rounds: tuple[tuple[float, float, float], ...] = ROUNDS,  # a, b, c of each
) -> Tensor:  # (..., A, B) in G's precision
    "Keep each matrix's directions, bring its singular values near 1 (Newton-Schulz iteration)."
    # (..., n, m), n <= m: the Gram matrix is the small one
    X = G.mT if G.shape[-2] > G.shape[-1] else G
    X = X / X.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)  # singular values are at most 1 now
    for a, b, c in rounds:
        S = X @ X.mT  # (..., n, n) Gram matrix: the squares of the singular values
        X = a * X + (b * S + c * S @ S) @ X  # (..., n, m)  s -> a s + b s³ + c s⁵
    return X.mT if G.shape[-2] > G.shape[-1] else X

# %% ../../nbs/medium/ch10_optim.ipynb #8c48444d
def orthogonalise_wide(
    G: Tensor,  # (..., A, B) matrices of one shape
    rounds: tuple[tuple[float, float, float], ...] = ROUNDS,  # a, b, c of each
) -> Tensor:  # (..., A, B) in G's precision
    "Do what `orthogonalise` does, on the small Gram matrix; for fp32, since squares need digits."
    X = G.mT if G.shape[-2] > G.shape[-1] else G  # (..., n, m), n <= m
    X = X / X.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    S = X @ X.mT  # (..., n, n)
    P = None  # (..., n, n) the product of the left factors so far
    for i, (a, b, c) in enumerate(rounds, start=1):
        Q = b * S + c * S @ S
        Q.diagonal(dim1=-2, dim2=-1).add_(a)
        P = Q if P is None else Q @ P
        if i < len(rounds):
            S = Q @ S @ Q
    X = P @ X  # (..., n, m)
    return X.mT if G.shape[-2] > G.shape[-1] else X

# %% ../../nbs/medium/ch10_optim.ipynb #e95d6cbe
def whole_tensor(
    t: Tensor,  # whole, or split over the ranks by `fully_shard`
) -> Tensor:  # whole
    "Put a split tensor together; every rank has to call it."
    return t.full_tensor() if hasattr(t, "full_tensor") else t


def split_like(
    t: Tensor,  # whole, the same on every rank
    like: Tensor,  # whole, or split over the ranks
) -> Tensor:  # whole, or this rank's part
    "Split a tensor as another one is split; each rank takes its part of what it has."
    if not hasattr(like, "placements"):
        return t
    from torch.distributed.tensor import distribute_tensor

    where = like.device_mesh, like.placements
    return distribute_tensor(t.to(like.device), *where, src_data_rank=None)

# %% ../../nbs/medium/ch10_optim.ipynb #5953b13b
AT_ONCE = 2**26  # numbers to stack for one batched product: 256 MiB in fp32


SHARED_FROM = 512  # short side of a matrix: below it, sending costs more than multiplying


def shared_among_ranks(
    work: Callable[[Tensor], Tensor],  # what to do with each matrix of a stack
    G: Tensor,  # (n, A, B), the same on every rank
) -> Tensor:  # (n, A, B), the same on every rank
    "Let each process compute its part of a stack, and send the parts to all."
    from torch import distributed

    ranks, n = distributed.get_world_size(), len(G)
    each = -(-n // ranks)  # matrices of a rank; the last ones may be padding
    first = distributed.get_rank() * each
    mine = G.new_zeros(each, *G.shape[1:])
    if part := len(G[first : first + each]):
        mine[:part] = work(G[first : first + each])
    parts = [torch.empty_like(mine) for _ in range(ranks)]
    distributed.all_gather(parts, mine)
    return torch.cat(parts)[:n]


class Muon(torch.optim.Optimizer):
    """Orthogonalise the momentum of every matrix and step along it.

    Takes the steps of `torch.optim.Muon` with Nesterov momentum and
    `adjust_lr_fn="match_rms_adamw"`, and loads its state. Raises ValueError for a parameter that is
    not a matrix. Sources: Jordan et al. 2024 (kellerjordan.github.io/posts/muon); its scale: Liu et
    al. 2025 (arXiv 2502.16982), section 2.2.
    """

    def __init__(
        self,
        params: Iterable,  # matrices (A, B), or parameter groups of them
        lr: float = 1e-3,  # in AdamW's scale: the root mean square of a step is about 0.2 lr
        weight_decay: float = 0.1,  # per unit of learning rate
        momentum: float = 0.95,  # share of the old mean that stays
        rounds: tuple[tuple[float, float, float], ...] = ROUNDS,  # a, b, c of each round
        dtype: torch.dtype | None = None,  # of the polynomial; None: each device's `fast_dtype`
        share: bool = False,  # under torchrun: each rank computes a part of the large matrices
    ):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        self.rounds = rounds
        self.share = share
        self.dtype = dtype  # not part of the state: a run may be resumed on another machine
        for p in (p for group in self.param_groups for p in group["params"]):
            if p.ndim != 2:
                raise ValueError(
                    f"Muon got a tensor of shape {tuple(p.shape)}, expected matrices; "
                    "give the rest to AdamW"
                )

    def orthogonalised(
        self,
        means: list[Tensor],  # matrices of one shape (A, B) on one device
    ) -> Tensor:  # (len(means), A, B), fp32
        "Stack matrices and bring their singular values near 1, in the precision of this optimiser."
        G = torch.stack(means).to(self.dtype or fast_dtype(means[0].device))
        short, long = sorted(G.shape[1:])
        wide = G.dtype == torch.float32 and long >= 2 * short
        work = partial(orthogonalise_wide if wide else orthogonalise, rounds=self.rounds)
        if self.share and short >= SHARED_FROM:
            return shared_among_ranks(work, G).float()
        return work(G).float()

    def means(
        self,
        group: dict,  # of parameters; those without a gradient are left out
    ) -> dict[tuple, list]:  # (device, short side, long side) → [(matrix, its mean, lying)]
        "Take each gradient into its mean; matrices of one shape come together to share a product."
        alike = {}
        for p in (p for p in group["params"] if p.grad is not None):
            if "momentum_buffer" not in self.state[p]:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p)
            mean = self.state[p]["momentum_buffer"].lerp_(p.grad, 1 - group["momentum"])
            # Nesterov: where the mean will be one step further
            ahead = p.grad.lerp(mean, group["momentum"])
            lying = ahead if p.shape[0] <= p.shape[1] else ahead.mT  # (short, long)
            alike.setdefault((p.device, *lying.shape), []).append((p, lying))
        return alike

    def move(
        self,
        items: list[tuple[nn.Parameter, Tensor]],  # matrices of one shape, and their means
        group: dict,  # for its learning rate and decay
    ) -> None:
        "Step along the orthogonalised means."
        lr = group["lr"]
        directions = self.orthogonalised([whole_tensor(mean) for _, mean in items])
        for (p, _), d in zip(items, directions, strict=True):
            p.mul_(1 - lr * group["weight_decay"])
            step = split_like(d if p.shape == d.shape else d.mT, p)  # (A, B)
            p.add_(step, alpha=-lr * 0.2 * d.shape[1] ** 0.5)

    @torch.no_grad()
    def step(self, closure=None):
        "Take one step along the gradients; matrices without one stay."
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for (_, short, long), items in self.means(group).items():
                n = max(1, AT_ONCE // (short * long))
                for start in range(0, len(items), n):
                    self.move(items[start : start + n], group)
        return loss

# %% ../../nbs/medium/ch10_optim.ipynb #c761b59d
def block_matrices(
    model: nn.Module,  # weights carry GPT-2's names: transformer.h.0.attn.c_attn.weight
) -> list[nn.Parameter]:  # four matrices per block, in the model's order
    "List the matrices inside the transformer blocks: what Muon trains."
    return [
        p
        for name, p in model.named_parameters()
        if "transformer.h." in name and p.ndim == 2 and p.requires_grad
    ]

# %% ../../nbs/medium/ch10_optim.ipynb #66d75cc9
KINDS = ("adamw", "muon")  # Muon is for the blocks' matrices, with AdamW for the rest


def build_optimizers(
    model: nn.Module,  # weights carry GPT-2's names, already on their device
    kind: str = "adamw",  # "adamw", or "muon": Muon for the blocks' matrices, AdamW for the rest
    lr: float = 1e-3,  # peak learning rate of AdamW
    weight_decay: float = 0.1,  # for matrices and embeddings
    betas: tuple[float, float] = (0.9, 0.95),  # memory of gradients, Muon's too; of their squares
    muon_lr: float | None = None,  # peak learning rate of Muon, in AdamW's scale; None: `lr`
    fused: bool | None = None,  # AdamW in one kernel; None: yes on CPU and CUDA
    dtype: torch.dtype | None = None,  # of Muon's products; None: what the device does fastest
    share: bool = False,  # under torchrun: the ranks share Muon's products
) -> list[torch.optim.Optimizer]:  # step and zero every one of them
    """Build what updates the weights; every parameter group carries its `peak_lr`.

    Raises ValueError for an unknown kind. Sources: AdamW (arXiv 1711.05101), Muon
    (kellerjordan.github.io/posts/muon), its scale (arXiv 2502.16982).
    """
    if kind not in KINDS:
        raise ValueError(f"optimizer {kind!r} is unknown; use {' or '.join(map(repr, KINDS))}")
    groups = decay_groups(model, weight_decay)
    if fused is None:
        fused = next(model.parameters()).device.type in ("cpu", "cuda")
    optimizers = []
    if kind == "muon":
        matrices = block_matrices(model)
        theirs = {id(p) for p in matrices}
        for group in groups:
            group["params"] = [p for p in group["params"] if id(p) not in theirs]
        muon_lr = lr if muon_lr is None else muon_lr
        if matrices:  # they may be frozen
            options = {"momentum": betas[0], "dtype": dtype, "share": share}
            optimizers.append(Muon(matrices, muon_lr, weight_decay, **options))
    optimizers.append(torch.optim.AdamW(groups, lr=lr, betas=betas, eps=1e-8, fused=fused))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak_lr"] = group["lr"]
    return optimizers

# %% ../../nbs/medium/ch10_optim.ipynb #3d414d78
def set_lr(
    optimizers: Iterable[torch.optim.Optimizer],  # from `build_optimizers`
    fraction: float,  # of each group's peak: `lr_at` with a `max_lr` of 1
) -> None:
    "Set the learning rate of every parameter group to a fraction of its peak."
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * fraction


def load_states(
    optimizers: Iterable[torch.optim.Optimizer],  # from `build_optimizers`
    states: list[dict],  # their state_dicts, as saved
) -> None:
    "Load the optimisers' states; peaks stay as built, so a run can resume with another rate."
    for optimizer, state in zip(optimizers, states, strict=True):
        peaks = [group["peak_lr"] for group in optimizer.param_groups]
        params = [p for group in optimizer.param_groups for p in group["params"]]
        kept = {
            i: {k: split_like(t, params[i]) if t.ndim else t for k, t in entry.items()}
            for i, entry in state["state"].items()
        }
        optimizer.load_state_dict(state | {"state": kept})
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["peak_lr"] = peak
