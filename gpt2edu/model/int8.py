"""Store each weight in one byte and generate faster, with an error that has a bound."""

# Made by tools/book.py from ../../book/medium/ch12a_int8.md: edit that, then `make book`.

# %% auto #0
__all__ = ['FEW', 'quantise', 'has_kernel', 'Int8Linear', 'int8_model']

# %% ../../nbs/medium/ch12a_int8.ipynb #3f356521
import copy

import torch
from torch import Tensor, nn

from gpt2edu.model.gpt import GPT
from gpt2edu.model.linear import multiply

# %% ../../nbs/medium/ch12a_int8.ipynb #1f843014
def quantise(
    weight: Tensor,  # (n_out, n_in)
) -> tuple[Tensor, Tensor]:  # marks (n_out, n_in) int8; scale of each row (n_out,) bf16
    "Round every weight to one of 255 marks of its row, at most half a mark away."
    largest = weight.abs().amax(dim=1).clamp(min=1e-30)  # (n_out,) of a row; one of zeros too
    scale = (largest * (1 + 2**-7) / 127).bfloat16()  # rounding cannot make it too small
    marks = (weight / scale.float()[:, None]).round().to(torch.int8)
    return marks, scale

# %% ../../nbs/medium/ch12a_int8.ipynb #a931cb74
FEW = 8  # rows up to which the kernel is faster than reading the matrix back


def has_kernel(
    device: str | torch.device,
    n_in: int = 16,  # length of a row
) -> bool:
    "Say whether PyTorch multiplies with int8 weights of such rows here."
    if torch.device(device).type != "cpu" or not hasattr(torch, "_weight_int8pack_mm"):
        return False
    return torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512") and n_in % 16 == 0


class Int8Linear(nn.Module):
    "A linear layer with a byte for each weight; for use without gradients."

    def __init__(
        self,
        weight: Tensor,  # (n_out, n_in)
        bias: Tensor | None,  # (n_out,)
    ):
        super().__init__()
        marks, scale = quantise(weight.detach())
        self.register_buffer("marks", marks)  # (n_out, n_in) int8
        self.register_buffer("scale", scale)  # (n_out,) bf16
        self.register_buffer("bias", None if bias is None else bias.detach())  # (n_out,)

    @property
    def weight(self) -> Tensor:  # (n_out, n_in) fp32
        "Read the matrix back."
        return self.marks * self.scale.float()[:, None]

    def matrix(self) -> Tensor:  # (n_out, n_in) fp32
        "Read the matrix back, for the loss."
        return self.weight

    def forward(
        self,
        x: Tensor,  # (..., n_in)
    ) -> Tensor:  # (..., n_out) fp32
        "Compute `x @ weight.T + bias`, with input and product rounded to bf16."
        rows = x.reshape(-1, x.shape[-1]).bfloat16()  # (M, n_in)
        if len(rows) <= FEW and has_kernel(x.device, x.shape[-1]):
            y = torch._weight_int8pack_mm(rows, self.marks, self.scale)  # (M, n_out)
        else:
            y = multiply(rows.float(), self.weight).bfloat16()  # (M, n_out)
        y = y.float() if self.bias is None else y + self.bias  # fp32
        return y.view(*x.shape[:-1], -1)

# %% ../../nbs/medium/ch12a_int8.ipynb #342eaa5d
@torch.no_grad()
def int8_model(
    model: GPT,  # fp32; stays as it is
) -> GPT:  # for generation and evaluation, not for training
    "Copy a model with its linear layers in int8; embeddings and LayerNorms are shared."
    copied = copy.deepcopy(model, {id(p): p for p in model.parameters()})
    for layer in [m for m in copied.modules() if not isinstance(m, nn.Linear)]:
        for name, part in layer.named_children():
            if isinstance(part, nn.Linear):
                weight = part.matrix()  # (n_out, n_in) an adapter adds to its layer's weight
                centre = weight.mean(dim=0) if name == "lm_head" else 0.0  # (n_in,)
                setattr(layer, name, Int8Linear(weight - centre, part.bias))
    return copied
