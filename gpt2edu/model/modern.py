"""Write the three small parts that attention needs in a block of today."""

# Made by tools/book.py from ../../book/medium/ch08b_modern.md: edit that, then `make book`.

# %% auto #0
__all__ = ['THETA', 'EPS', 'turns', 'rotate', 'share', 'make_norm']

# %% ../../nbs/medium/ch08b_modern.ipynb #a51f59ab
import torch
from torch import Tensor, nn

# %% ../../nbs/medium/ch08b_modern.ipynb #d65a1a66
THETA = 10_000.0  # base of the angles: Su et al. 2021, section 3.2.2


def turns(
    positions: Tensor,  # (T,), or (B, T) where each row counts by itself; int64
    hs: int,  # width of a head, even
) -> tuple[Tensor, Tensor]:  # cosines and sines, (T, 1, hs / 2) or (B, T, 1, hs / 2), fp32
    "Compute by how much each pair of numbers is turned at each position."
    i = torch.arange(0, hs, 2, device=positions.device).float()  # (hs / 2,) 0, 2, 4, …
    # the same for all heads: (…, T, 1, 1) * (hs / 2,) -> (…, T, 1, hs / 2)
    angles = positions[..., None, None].float() * THETA ** (-i / hs)
    return angles.cos(), angles.sin()


def rotate(
    x: Tensor,  # (B, T, nh, hs) queries or keys
    turn: tuple[Tensor, Tensor],  # from `turns`
) -> Tensor:  # (B, T, nh, hs), of x's dtype
    """Turn each pair of numbers, number i with number i + hs / 2, as Llama's code does.

    Source: Su et al. 2021 (arXiv 2104.09864), equation 34.
    """
    cos, sin = turn
    a, b = x.float().chunk(2, dim=-1)  # (B, T, nh, hs / 2) twice
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1).to(x.dtype)

# %% ../../nbs/medium/ch08b_modern.ipynb #560493ce
def share(
    x: Tensor,  # (B, n_kv_head, S, hs) keys or values
    n_head: int,  # nh; a multiple of n_kv_head
) -> Tensor:  # (B, nh, S, hs)
    "Repeat each head for the queries of its group."
    times = n_head // x.shape[1]
    return x if times == 1 else x.repeat_interleave(times, dim=1)

# %% ../../nbs/medium/ch08b_modern.ipynb #8388e4a2
EPS = 1e-5  # keeps a vector of zeros from dividing by zero


def make_norm(
    n: int,  # numbers to normalise
    kind: str = "layer",  # or rms
    bias: bool = True,  # of a LayerNorm; an RMSNorm has none
) -> nn.Module:
    "Make a LayerNorm or an RMSNorm."
    return nn.RMSNorm(n, eps=EPS) if kind == "rms" else nn.LayerNorm(n, eps=EPS, bias=bias)
