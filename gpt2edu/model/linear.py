"""Multiply a few rows as fast as a CPU reads the matrix, many by the faster of two libraries."""

# Made by tools/book.py from ../../book/medium/ch08a_linear.md: edit that, then `make book`.

# %% auto #0
__all__ = ['LARGE', 'FEW', 'BLOCKS', 'made_by_amd', 'onednn_is_faster', 'OneDNN', 'multiply',
           'few_rows', 'Linear']

# %% ../../nbs/medium/ch08a_linear.ipynb #213f6399
import torch
from torch import Tensor, nn
from torch.nn import functional as F

# %% ../../nbs/medium/ch08a_linear.ipynb #6f5fad5b
LARGE = 2**22  # multiplications from which the choice of a library counts


def made_by_amd() -> bool:
    "Say whether this processor is AMD's, which MKL does not know well."
    asked = getattr(torch.cpu, "get_capabilities", dict)()  # nothing in PyTorch 2.9
    return asked.get("cpu_name", "").startswith("AMD")


def onednn_is_faster(
    x: Tensor,  # (..., n_in)
    weight: Tensor,  # (n_out, n_in)
) -> bool:
    "Say whether oneDNN multiplies these faster than MKL: AVX-512 on a processor of AMD's."
    if torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu"):
        return False
    if x.device.type != "cpu" or not x.dtype == weight.dtype == torch.float32:
        return False
    if x.numel() * len(weight) < LARGE or not torch.backends.mkl.is_available():
        return False
    return torch.backends.cpu.get_cpu_capability() == "AVX512" and made_by_amd()


class OneDNN(torch.autograd.Function):
    "Compute `x @ weight.T + bias` by oneDNN, and so its gradients."

    @staticmethod
    def product(x, weight, bias=None):
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")

    @staticmethod
    def forward(ctx, x, weight, bias):  # (M, n_in), (n_out, n_in), (n_out,)
        ctx.save_for_backward(x, weight)
        return OneDNN.product(x, weight, bias)  # (M, n_out)

    @staticmethod
    def backward(ctx, dy):  # (M, n_out)
        x, weight = ctx.saved_tensors
        dx = dw = db = None
        if ctx.needs_input_grad[0]:
            dx = OneDNN.product(dy, weight.t())  # (M, n_out) @ (n_out, n_in) -> (M, n_in)
        if ctx.needs_input_grad[1]:
            dw = OneDNN.product(dy.t(), x.t())  # (n_out, M) @ (M, n_in) -> (n_out, n_in)
        if ctx.needs_input_grad[2]:
            db = dy.sum(0)
        return dx, dw, db


def multiply(
    x: Tensor,  # (..., n_in)
    weight: Tensor,  # (n_out, n_in)
    bias: Tensor | None = None,  # (n_out,)
) -> Tensor:  # (..., n_out)
    "Compute `x @ weight.T + bias` by the library that is faster for it."
    if not onednn_is_faster(x, weight):
        return F.linear(x, weight, bias)
    y = OneDNN.apply(x.flatten(0, -2), weight, bias)  # (M, n_out)
    return y.view(*x.shape[:-1], -1)

# %% ../../nbs/medium/ch08a_linear.ipynb #6892e940
FEW = 4  # rows up to which blocks are faster, on AMD's processors
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
    "`nn.Linear`, which generates faster on a CPU, and trains by the faster library."

    def blocks(
        self,
        x: Tensor,  # (..., n_in)
    ) -> int | None:  # None: leave it to `multiply`
        "Say into how many blocks the matrix is cut for this input."
        if torch.is_grad_enabled() or x.numel() > FEW * self.in_features:
            return None
        if x.device.type != "cpu" or not x.dtype == self.weight.dtype == torch.float32:
            return None
        if torch.is_autocast_enabled("cpu") or not torch.backends.mkl.is_available():
            return None
        if not made_by_amd():  # elsewhere PyTorch's own way reaches the memory's speed
            return None
        return next((n for n in BLOCKS if self.out_features % n == 0), None)

    def forward(
        self,
        x: Tensor,  # (..., n_in)
    ) -> Tensor:  # (..., n_out)
        "Compute `x @ weight.T + bias`."
        n = self.blocks(x)
        if n is None:
            return multiply(x, self.weight, self.bias)
        y = few_rows(x.reshape(-1, self.in_features), self.weight, self.bias, n)  # (M, n_out)
        return y.view(*x.shape[:-1], -1)

    def matrix(self) -> Tensor:  # (n_out, n_in)
        "Give the matrix for a loss that multiplies by itself; an adapter adds to it."
        return self.weight
