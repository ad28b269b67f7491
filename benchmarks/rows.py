"""The rows of the table: what is measured, against whom, what is asked of it, and what is known.

`tried` and `limited_by` stand in RESULTS.md beside a bound that is not reached.
"""

import importlib
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Bound:
    "What a ratio of a row should be."

    key: str  # of the row's ratios
    against: str  # as the table says it
    limit: float
    least: bool = True  # whether it should be that or more; False: that or less
    unit: str = " ×"

    def holds(self, value: float) -> bool:
        return value >= self.limit if self.least else value <= self.limit

    def __str__(self):
        return f"{'≥' if self.least else '≤'} {self.limit:g}{self.unit}"


@dataclass(frozen=True)
class Row:
    "One benchmark."

    name: str  # of --only
    title: str
    work: str  # "module:function"
    bounds: tuple[Bound, ...] = ()
    tried: str = ""  # for a bound that was not reached
    limited_by: str = ""
    asked_for: bool = False  # runs only where it is named

    def run(self, asked: "Asked") -> dict:
        module, function = self.work.split(":")
        return getattr(importlib.import_module(f"benchmarks.{module}"), function)(asked)


@dataclass
class Asked:
    "What a row is told."

    nanogpt: str | None = None  # a checkout
    auto: str = "fp32"  # the precision that `auto` takes here
    limits: dict = field(default_factory=dict)  # of the machine, measured in this run
    tiny: bool = False  # small sizes and few turns, to try the benchmarks themselves

    def __post_init__(self):
        if self.nanogpt:
            self.nanogpt = str(Path(self.nanogpt).resolve())


def both(key: str, against: str, limit: float, **options) -> tuple[Bound, ...]:
    "The same bound in fp32 and in bf16."
    return tuple(Bound(f"{key} {d}".strip(), f"{against}, {d}", limit, **options) for d in PAIR)


PAIR = ("fp32", "bf16")
ROWS = (
    Row(
        "shakespeare",
        "Time to validation loss 1.88, characters of tiny Shakespeare, 4 layers, 128 wide, T 64",
        "training:shakespeare",
        (
            *both("nanoGPT", "nanoGPT's documented CPU run", 0.35, least=False),
            *both("loss", "the highest loss of three seeds", 1.88, least=False, unit=" nats"),
        ),
        tried="Muon in place of AdamW, and a shorter schedule: with 450 steps the worst of three "
        "seeds ended at 1.8814 in bf16, so it has 480.",
        limited_by="The rounding of bf16 costs about 0.01 nats at this length.",
    ),
    Row(
        "small-step",
        "A training step of that small model, B 12",
        "training:small_step",
        both("nanoGPT", "nanoGPT's step", 0.85, least=False),
        tried="Fused AdamW; fp32 products by oneDNN where MKL does not use AVX-512.",
        limited_by="Products of matrices: about half of the step in fp32, and on Intel's "
        "processors they are the same MKL's on both sides. GELU's tanh, "
        "whose kernel is slower than that of erf, which nanoGPT takes: five times on AMD's EPYC, "
        "1.6 times on Intel's Xeon, where that is 7 % of the step.",
    ),
    Row(
        "step-124m",
        "Tokens/s of a step of GPT-2 124M, B 1, T 512",
        "training:step_124m",
        (
            Bound("nanoGPT fp32", "nanoGPT, fp32", 1.15),
            Bound("transformers fp32", "transformers with fused AdamW, fp32", 1.3),
            Bound("nanoGPT README", "nanoGPT as its README runs it (fp32), ours bf16", 2.3),
            Bound("nanoGPT bf16", "nanoGPT under bf16 autocast", 1.15),
        ),
        tried="Fused AdamW, chunked loss, freed memory kept, fp32 products by oneDNN where MKL "
        "does not use AVX-512.",
        limited_by="Products of matrices: three quarters of the step in fp32 and 56 % in bf16, at "
        "B 4 on AMD's EPYC; on Intel's processors they are the same MKL's on all sides.",
    ),
    Row(
        "memory-124m",
        "Peak memory of that step, B 4",
        "training:memory_124m",
        (
            *both("nanoGPT", "nanoGPT", 0.8, least=False),
            *both("transformers", "transformers", 0.8, least=False),
        ),
        tried="Chunked loss, whose softmax and gradient take the place of the logits, a "
        "sixteenth of a chunk at a time; the result of the GELU is computed again in the "
        "backward pass of a large batch. The figures of AMD EPYC are older than both.",
        limited_by="Weights, gradients and AdamW's moments are 2 GB on every side. The peak lies "
        "in the loss, while the activations of all blocks are still there.",
    ),
    Row(
        "peak-fraction",
        "Fraction of the measured matmul peak in that step, B 4",
        "training:peak_fraction",
        tuple(Bound(d, f"the machine, {d}", 0.8, unit="") for d in PAIR),
        tried="Fused AdamW, chunked loss, freed memory kept, fp32 products by oneDNN where MKL "
        "does not use AVX-512. The peak is that of the faster library: the same step in fp32 is "
        "about 1.5 of what MKL reaches on AMD's AVX-512.",
        limited_by="On AMD's AVX-512, the fused attention, 15 % of the step in fp32 (its products "
        "are MKL's, at a third of the peak) and 20 % in bf16; casts between fp32 and bf16, 8 %.",
    ),
    Row(
        "decode-124m",
        "Decoding GPT-2 124M, batch 1, 32 → 96 tokens, greedy, fp32",
        "inference:decode_124m",
        (
            Bound("transformers", "transformers with its cache", 2.5),
            Bound("nanoGPT", "nanoGPT", 10),
            Bound("bytes", "bandwidth ÷ bytes of weights", 0.6, unit=""),
        ),
        tried="A cache of keys and values; logits of the last position only; one row times a "
        "weight as a batched product of 16 blocks. In vain: mv and addmv, a transposed copy, "
        "the packed weights of MKL and oneDNN, a pool of threads. The likeliest token is found "
        "without V probabilities.",
        limited_by="The memory: each token reads all weights, and the last of the figures below "
        "is what the bandwidth allows. Ten times nanoGPT's rate lies above it on AMD EPYC and on "
        "Intel's Xeon, and on the Xeon 2.5 times that of transformers, whose products MKL reads at "
        "that speed too. Then a few ms of Python and dispatch a token, and the prompt, whose rows "
        "are counted in the time but write nothing.",
    ),
    Row(
        "decode-int8",
        "Decoding with int8 weights (per channel, weight-only)",
        "inference:decode_int8",
        (Bound("fp32", "our fp32", 1.8),),
        tried="PyTorch's weight-only int8 product, with bf16 activations: with fp32 ones it is "
        "ten times slower. In vain: a product of fp32 activations compiled by PyTorch, which on "
        "the Xeon was no faster.",
        limited_by="PyTorch's kernel: on the Xeon it reads cold weights at 8 GB/s, a third of what "
        "fp32 products reach, and one buffer for all of them changed nothing. Then what is no "
        "product of matrices, which costs the same as in fp32, and the prompt, whose weights are "
        "read back to fp32.",
    ),
    Row(
        "hellaswag",
        "HellaSwag, items/s, GPT-2 124M, fp32",
        "inference:hellaswag",
        (Bound("padded", "four padded rows with full logits, transformers", 3),),
        tried="The context once for its four endings; logits only where they count.",
    ),
    Row(
        "text-to-shards",
        "Text to ids for shards, 2 processes",
        "text:text_to_shards",
        (Bound("tiktoken", "tiktoken's `encode_ordinary_batch`, 2 threads", 0.9),),
        tried="Batches of pieces, ids as bytes through pipes.",
    ),
    Row(
        "muon",
        "A whole step with Muon against one with AdamW, preset `tiny`",
        "training:muon",
        both("muon", "AdamW", 1.15, least=False),
        tried="Batched Newton-Schulz over matrices of one shape; the Gram matrix where it pays.",
        limited_by="Muon's own work: 3 to 5 ms of a step of 70 to 90 ms on one busy core.",
    ),
    Row(
        "startup",
        "Start of light commands",
        "startup:startup",
        (
            Bound("import gpt2edu", "`import gpt2edu`", 0.15, least=False, unit=" s"),
            Bound("gpt2edu_train --help", "`gpt2edu_train --help`", 0.7, least=False, unit=" s"),
            Bound("gpt2edu_plan", "`gpt2edu_plan`", 1.0, least=False, unit=" s"),
        ),
        tried="PyTorch is not loaded; names are found when they are asked for.",
        limited_by="On a busy machine the other work: 0.03, 0.32 and 0.47 s of the processor were "
        "counted.",
    ),
    # asked for by name: what pages quote, and what helps to decide
    Row(
        "chunked-loss",
        "Peak memory of a 124M step, B 4, T 1024: chunked over plain cross-entropy",
        "training:chunked_loss",
        (Bound("plain", "plain cross-entropy", 0.75, least=False),),
        asked_for=True,
    ),
    Row(
        "attention",
        "The fused attention of a CPU: bf16 over fp32",
        "training:attention",
        asked_for=True,
    ),
    Row(
        "freed-memory",
        "A step of `tiny` where freed memory is kept, over one where it is given back",
        "training:freed_memory",
        asked_for=True,
    ),
    Row(
        "overhead",
        "The trainer's own share of a step of `small-cpu`",
        "training:overhead",
        asked_for=True,
    ),
    Row("bpe", "The tokenizer: training and encoding", "text:bpe", asked_for=True),
    Row(
        "plan-memory",
        "Peak memory that `gpt2edu_plan` predicts, over what a step took",
        "plan:plan_memory",
        asked_for=True,
    ),
    Row(
        "plan-speed",
        "Tokens/s that the timed parts of a step predict, over those of the trainer",
        "plan:plan_speed",
        asked_for=True,
    ),
)
BY_NAME = {row.name: row for row in ROWS}
