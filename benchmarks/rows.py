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
        tried="Muon in place of AdamW, and a shorter schedule.",
        limited_by="Not yet looked into.",
    ),
    Row(
        "small-step",
        "A training step of that small model, B 12",
        "training:small_step",
        both("nanoGPT", "nanoGPT's step", 0.85, least=False),
        tried="Fused AdamW.",
        limited_by="Not yet looked into.",
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
        tried="Fused AdamW, chunked loss, freed memory kept.",
        limited_by="Not yet looked into.",
    ),
    Row(
        "memory-124m",
        "Peak memory of that step, B 4",
        "training:memory_124m",
        (
            *both("nanoGPT", "nanoGPT", 0.8, least=False),
            *both("transformers", "transformers", 0.8, least=False),
        ),
        tried="Chunked loss.",
        limited_by="Not yet looked into; weights, gradients and AdamW's moments are 2 GB "
        "on every side.",
    ),
    Row(
        "peak-fraction",
        "Fraction of the measured matmul peak in that step, B 4",
        "training:peak_fraction",
        tuple(Bound(d, f"the machine, {d}", 0.8, unit="") for d in PAIR),
        tried="Fused AdamW, chunked loss, freed memory kept.",
        limited_by="Not yet looked into.",
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
        "the packed weights of MKL and oneDNN, a pool of threads.",
        limited_by="About 1.2 ms of Python and dispatch a token, and the prompt, whose rows are "
        "counted in the time but write nothing.",
    ),
    Row(
        "decode-int8",
        "Decoding with int8 weights (per channel, weight-only)",
        "inference:decode_int8",
        (Bound("fp32", "our fp32", 1.8),),
        tried="PyTorch's weight-only int8 product, with bf16 activations: with fp32 ones it is "
        "ten times slower.",
        limited_by="What is not a product of matrices costs the same as in fp32, and fp32 itself "
        "has become faster.",
    ),
    Row(
        "hellaswag",
        "HellaSwag, items/s, GPT-2 124M, fp32",
        "inference:hellaswag",
        (Bound("padded", "four padded rows with full logits, transformers", 3),),
        tried="The context once for its four endings; logits only where they count.",
        limited_by="Not yet looked into.",
    ),
    Row(
        "text-to-shards",
        "Text to ids for shards, 2 processes",
        "text:text_to_shards",
        (Bound("tiktoken", "tiktoken's `encode_ordinary_batch`, 2 threads", 0.9),),
        tried="Batches of pieces, ids as bytes through pipes.",
        limited_by="Not yet looked into.",
    ),
    Row(
        "muon",
        "A whole step with Muon against one with AdamW, preset `tiny`",
        "training:muon",
        both("muon", "AdamW", 1.15, least=False),
        tried="Batched Newton-Schulz over matrices of one shape; the Gram matrix where it pays.",
        limited_by="Not yet looked into.",
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
        limited_by="Not yet looked into.",
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
