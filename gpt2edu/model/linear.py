"""Multiply a row or a few with a matrix as fast as a CPU reads the matrix."""

# Made by tools/book.py from ../../book/medium/ch08a_linear.md: edit that, then `make book`.

# %% auto #0
__all__ = ['FEW', 'BLOCKS', 'few_rows', 'Linear']

# %% ../../nbs/medium/ch08a_linear.ipynb #213f6399
import torch
from torch import Tensor, nn

# %% ../../nbs/medium/ch08a_linear.ipynb #d3164ec2
FEW = 4  # rows up to which blocks are faster
BLOCKS = range(16, 129)  # into how many a matrix may be cut


def few_rows(
    x: Tensor,  # (M, n_in)
    weight: Tensor,  # (n_out, n_in)
    bias: Tensor | None,  # (n_out,)
    n: int,  # blocks; divides n_out
) -> Tensor:  # (M, n_out) x @ weight.T + bias, up to rounding
    "Multiply a few rows with a matrix, cut into blocks, which the cores share."
    blocks = weight.view(n, -1, weight.shape[1])  # (n, n_out / n, n_in)
    columns = x.t().expand(n, -1, -1)  # (n, n_in, M) the same for each block
    if bias is None:
        y = torch.bmm(blocks, columns)  # (n, n_out / n, M)
    else:
        y = torch.baddbmm(bias.view(n, -1, 1), blocks, columns)  # (n, n_out / n, M)
    return y.view(-1, len(x)).t().contiguous()  # (M, n_out)


class Linear(nn.Linear):
    "`nn.Linear`, which generates faster on a CPU; in training it is `nn.Linear`."

    def blocks(
        self,
        x: Tensor,  # (..., n_in)
    ) -> int | None:  # None: leave it to `nn.Linear`
        "Say into how many blocks the matrix is cut for this input."
        if torch.is_grad_enabled() or x.numel() > FEW * self.in_features:
            return None
        if x.device.type != "cpu" or not x.dtype == self.weight.dtype == torch.float32:
            return None
        if torch.is_autocast_enabled("cpu") or not torch.backends.mkl.is_available():
            return None
        return next((n for n in BLOCKS if self.out_features % n == 0), None)

    def forward(
        self,
        x: Tensor,  # (..., n_in)
    ) -> Tensor:  # (..., n_out)
        "Compute `x @ weight.T + bias`."
        n = self.blocks(x)
        if n is None:
            return super().forward(x)
        y = few_rows(x.reshape(-1, self.in_features), self.weight, self.bias, n)  # (M, n_out)
        return y.view(*x.shape[:-1], -1)
