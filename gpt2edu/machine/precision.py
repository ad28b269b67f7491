"""Ask a processor or a GPU whether it multiplies bf16 in hardware; only there is bf16 fast."""

# Made by tools/book.py from ../../book/medium/ch10a_precision.md: edit that, then `make book`.

# %% auto #0
__all__ = ['BF16_FLAGS', 'cpu_flags', 'fast_dtype']

# %% ../../nbs/medium/ch10a_precision.ipynb #c3d109bc
import torch

# %% ../../nbs/medium/ch10a_precision.ipynb #20bdf617
BF16_FLAGS = ("amx_bf16", "avx512_bf16")  # x86 instructions that multiply bf16 numbers


def cpu_flags() -> frozenset[str]:
    "Ask PyTorch which of `BF16_FLAGS` this processor has; none where it may not use AVX-512."
    if torch.backends.cpu.get_cpu_capability() in ("AVX2", "DEFAULT", "NO AVX"):
        return frozenset()
    if hasattr(torch.cpu, "get_capabilities"):
        return frozenset(f for f in BF16_FLAGS if torch.cpu.get_capabilities().get(f))
    probes = (torch.cpu._is_amx_tile_supported, torch.cpu._is_avx512_bf16_supported)  # PyTorch 2.9
    return frozenset(f for f, probe in zip(BF16_FLAGS, probes, strict=True) if probe())


def fast_dtype(
    device: str | torch.device,
) -> torch.dtype:  # bf16 or fp32
    "Name the precision of the fastest products: bf16 where it is in hardware, else fp32."
    device = torch.device(device)
    if device.type == "cuda":
        in_hardware = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        # Apple's and other processors: fp32
        in_hardware = device.type == "cpu" and bool(cpu_flags())
    return torch.bfloat16 if in_hardware else torch.float32
