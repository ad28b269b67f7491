"""Text from a model: temperature, top-k, top-p, an exact cache, batches, streams, stop strings."""

# Made by tools/book.py from ../../book/medium/ch12_generate.md: edit that, then `make book`.

# %% auto #0
__all__ = ['GREEDY', 'DIVERGED', 'pick', 'check_sampling', 'next_token_probs', 'likeliest',
           'check_room', 'check_prompts', 'generate_batch', 'generate', 'TextStream',
           'encode_prompt', 'complete_batch', 'complete', 'stream_text']

# %% ../../nbs/medium/ch12_generate.ipynb #c686944b
import codecs
from collections.abc import Iterator, Sequence
from itertools import zip_longest

import torch
from torch import Tensor

from gpt2edu.machine.limits import need_memory
from gpt2edu.model.attention import KVCache
from gpt2edu.model.variants import kv_width

# %% ../../nbs/medium/ch12_generate.ipynb #9dbd4f96
def pick(
    probs: Tensor,  # (B, n) rows sum to 1, rounding aside
    u: Tensor,  # (B, m) float64 in [0, 1): m draws for each row
) -> Tensor:  # (B, m) int64 ids, on CPU
    "Pick the token in whose share of the unit interval u falls, never one of probability 0."
    cdf = probs.cpu().double().cumsum(1)  # (B, n) right ends of the shares
    return torch.searchsorted(cdf, u * cdf[:, -1:], right=True)  # first id with cdf > u

# %% ../../nbs/medium/ch12_generate.ipynb #bacc4584
GREEDY = 1e-6  # temperatures below it take the likeliest token
DIVERGED = "the model's logits are nan: its training diverged; use an earlier checkpoint"


def check_sampling(
    temperature: float,  # 0 is greedy
    top_k: int | None,  # None keeps every token
    top_p: float | None,  # None keeps every token
) -> None:
    "Raise a one-line ValueError for a knob that is out of its range."
    if not 0 <= temperature < float("inf"):
        raise ValueError(f"temperature={temperature} must be 0 (greedy) or more; try 0.8")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k={top_k} must be 1 or more; leave it out to keep every token")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p={top_p} must be above 0 and at most 1; try 0.9")

# %% ../../nbs/medium/ch12_generate.ipynb #93125f96
def next_token_probs(
    logits: Tensor,  # (B, V) of the last position
    temperature: float = 1.0,  # below 1 sharper, above 1 flatter, 0 all on the largest
    top_k: int | None = None,  # keep the k most likely tokens
    top_p: float | None = None,  # then keep the fewest tokens that hold this much probability
    n_vocab: int | None = None,  # ids of the tokenizer; the padding above is cut off; None: V
) -> Tensor:  # (B, n_vocab) rows sum to 1
    """Turn logits into the probabilities that are sampled from.

    Raises ValueError for a knob out of range and for logits that are nan.
    Source of top-p: arXiv 1904.09751.
    """
    check_sampling(temperature, top_k, top_p)
    logits = logits[:, :n_vocab].float()  # (B, n_vocab)
    if logits.isnan().any():
        raise ValueError(DIVERGED)
    if temperature < GREEDY:  # the largest has it all; float32 could not divide by less
        return torch.zeros_like(logits).scatter_(1, logits.argmax(1, keepdim=True), 1.0)
    # the largest becomes 0: a small temperature cannot overflow
    logits = (logits - logits.amax(1, keepdim=True)) / temperature
    if top_k is None and top_p is None:
        return logits.softmax(1)
    ranked, ids = logits.sort(dim=1, descending=True, stable=True)  # (B, n_vocab) most likely first
    if top_k is not None:
        ranked[:, top_k:] = -torch.inf
    probs = ranked.softmax(1)
    if top_p is not None and top_p < 1:
        before = probs.cumsum(1) - probs  # probability of all that is ranked higher
        before[:, 0] = -1.0  # the first stays, however small top_p is
        probs = probs.masked_fill(before >= top_p, 0.0)
        probs = probs / probs.sum(1, keepdim=True)
    return torch.zeros_like(probs).scatter_(1, ids, probs)  # back to the order of ids

# %% ../../nbs/medium/ch12_generate.ipynb #ee78d835
def likeliest(
    logits: Tensor,  # (B, V) of the last position
    n_vocab: int | None,  # ids of the tokenizer; None: V
) -> Tensor:  # (B, 1) int64 ids, on the CPU
    "Take the largest logit: what sampling does at temperature 0, without V probabilities."
    largest, new = logits[:, :n_vocab].max(1, keepdim=True)  # nan counts as the largest
    if largest.isnan().any():
        raise ValueError(DIVERGED)
    return new.cpu()


@torch.inference_mode()
def _grow(model, idx, max_tokens, generators, eot, **knobs):
    "Grow rows of equal length, idx (B, n), by a token per step, each with its own generator."
    caches = [KVCache(idx.shape[1] + max_tokens) for _ in model.transformer.h]
    alive = [True] * len(idx)
    for _ in range(max_tokens):
        logits, _ = model(idx, caches=caches, last_only=True)  # (B, 1, V)
        if knobs["temperature"] < GREEDY:
            new = likeliest(logits[:, -1], knobs["n_vocab"])  # (B, 1)
        else:
            draws = [torch.rand(1, 1, dtype=torch.float64, generator=g) for g in generators]
            probs = next_token_probs(logits[:, -1], **knobs)  # (B, n_vocab)
            new = pick(probs, torch.cat(draws))  # (B, 1)
        alive = [a and i != eot for a, i in zip(alive, new[:, 0].tolist(), strict=True)]
        if not any(alive):
            return
        yield [i if a else None for a, i in zip(alive, new[:, 0].tolist(), strict=True)]
        idx = new.to(idx.device)

# %% ../../nbs/medium/ch12_generate.ipynb #a6209894
def check_room(
    model,  # a GPT
    prompts: Sequence[list[int]],  # token ids
    max_tokens: int,  # new tokens for each sequence
    num_seq: int,  # sequences for each prompt
) -> None:
    "Raise a one-line ValueError if the caches are larger than the memory."
    c, wte = model.config, model.transformer.wte.weight
    one = 2 * c.n_layer * kv_width(c) * wte.element_size()  # bytes of a position: key and value
    positions = sum(min(len(ids) + max_tokens, c.block_size + 1) for ids in prompts)
    memory = None
    if wte.is_cuda:
        memory = torch.cuda.get_device_properties(wte.device).total_memory
    need_memory(num_seq * positions * one, f"num_seq={num_seq}", "take fewer at a time", memory)

# %% ../../nbs/medium/ch12_generate.ipynb #a80e17c7
def check_prompts(
    prompts: Sequence[list[int]],  # token ids
    longest: int,  # tokens that the context holds
) -> None:
    "Raise a one-line ValueError for a prompt that is empty or longer than the context."
    for ids in prompts:
        if not ids:
            raise ValueError("the prompt has no tokens; start it with the tokenizer's eot")
        if len(ids) > longest:
            raise ValueError(
                f"the prompt has {len(ids)} tokens and the context holds {longest}; "
                f"shorten it by {len(ids) - longest} tokens"
            )


def generate_batch(
    model,  # a GPT: not compiled, not wrapped
    prompts: Sequence[list[int]],  # token ids, of any lengths up to the context
    max_tokens: int,  # new tokens for each sequence; fewer if the context ends before
    *,
    num_seq: int = 1,  # sequences for each prompt
    temperature: float = 1.0,  # 0 is greedy
    top_k: int | None = None,  # None keeps every token
    top_p: float | None = None,  # None keeps every token
    eot: int | None = None,  # id that ends a sequence; it is not yielded
    n_vocab: int | None = None,  # ids that the tokenizer knows; None: the model's vocabulary
    generator: torch.Generator | None = None,  # on CPU; gives num_seq seeds; None: a fresh one
) -> Iterator[list[int | None]]:  # each step: len(prompts) * num_seq ids; None once one has ended
    """Continue many prompts; each gets what it would get alone from a generator in the same state.

    Prompts of equal length share a forward pass, others do not, so nothing is padded. The text
    never slides out of the context: a prompt of n tokens gets at most block_size - n + 1. Raises
    ValueError for a prompt that is empty or longer than the context, for a knob out of range and
    for more sequences than fit into the memory, before the first step.
    """
    check_sampling(temperature, top_k, top_p)
    longest = model.config.block_size
    if max_tokens < 1 or num_seq < 1:
        raise ValueError(f"max_tokens={max_tokens} and num_seq={num_seq} must be 1 or more")
    check_prompts(prompts, longest)
    check_room(model, prompts, max_tokens, num_seq)
    if generator is None:
        generator = torch.Generator()
        generator.seed()  # from the operating system; torch's global generator is not touched
    seeds = torch.randint(2**62, (num_seq,), generator=generator).tolist()
    rows = [(ids, seed) for ids in prompts for seed in seeds]
    by_length = {}
    for i, (ids, _) in enumerate(rows):
        by_length.setdefault(len(ids), []).append(i)
    device = model.transformer.wte.weight.device
    knobs = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "n_vocab": n_vocab}
    groups = []
    for n, places in by_length.items():
        idx = torch.tensor([rows[i][0] for i in places], device=device)  # (B, n)
        generators = [torch.Generator().manual_seed(rows[i][1]) for i in places]
        room = min(max_tokens, longest - n + 1)
        groups.append(_grow(model, idx, room, generators, eot, **knobs))
    order = [i for places in by_length.values() for i in places]

    def steps():
        nothing = [[None] * len(places) for places in by_length.values()]
        for step in zip_longest(*groups):
            ids = [i for got, none in zip(step, nothing, strict=True) for i in got or none]
            yield [i for _, i in sorted(zip(order, ids, strict=True), key=lambda pair: pair[0])]

    return steps()

# %% ../../nbs/medium/ch12_generate.ipynb #d3e46bc1
def generate(
    model,  # a GPT: not compiled, not wrapped
    ids: list[int],  # the prompt
    max_tokens: int,  # new tokens for each sequence; fewer if the context ends before
    **options,  # of `generate_batch`: num_seq, temperature, top_k, top_p, eot, n_vocab, generator
) -> Iterator[list[int | None]]:  # per step an id for each of num_seq; None once it has ended
    "Continue one prompt, `num_seq` times side by side."
    return generate_batch(model, [ids], max_tokens, **options)

# %% ../../nbs/medium/ch12_generate.ipynb #999815ea
class TextStream:
    "Turn ids that come one by one into text: whole characters, nothing from a stop string on."

    def __init__(
        self,
        tokenizer,  # has `decode_bytes`, and may have `special`
        stop: str | Sequence[str] = (),  # text that ends the sequence and is not shown
    ):
        self.tokenizer = tokenizer
        self.stop = (stop,) if isinstance(stop, str) else tuple(stop)
        if "" in self.stop:
            raise ValueError(
                "a stop string is empty; leave it out to stop only at the end of the text"
            )
        self.utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self.ends = {*getattr(tokenizer, "special", {}).values()}  # nor are those of a chat text
        self.held = ""  # decoded, but it may be the beginning of a stop string
        self.ended = False

    def feed(
        self,
        i: int | None,  # the next id, or None at the end
    ) -> str:  # what can be shown now, often ""
        "Take one id, give the text that is certain."
        if self.ended:
            return ""
        i = None if i in self.ends else i
        new = b"" if i is None else self.tokenizer.decode_bytes([i])
        self.held += self.utf8.decode(new, final=i is None)
        found = [at for s in self.stop if (at := self.held.find(s)) >= 0]
        self.ended = bool(found) or i is None
        if self.ended:
            keep = min(found, default=len(self.held))
        else:  # hold the longest end that some stop string begins with
            starts = (s[:n] for s in self.stop for n in range(1, len(s)))
            back = max((len(s) for s in starts if self.held.endswith(s)), default=0)
            keep = len(self.held) - back
        out = self.held[:keep]
        self.held = self.held[keep:]
        return out

# %% ../../nbs/medium/ch12_generate.ipynb #42a43daf
def encode_prompt(
    tokenizer,  # has `eot` and `encode`
    prompt: str,  # the beginning of a document; may be empty
) -> list[int]:  # ids, `eot` first, as every training document has it
    "Turn a prompt into ids."
    return [tokenizer.eot, *tokenizer.encode(prompt)]

# %% ../../nbs/medium/ch12_generate.ipynb #9b4c6270
def complete_batch(
    model,  # a GPT
    tokenizer,  # the one that the model was trained with
    prompts: Sequence[str],  # beginnings of documents
    max_tokens: int = 100,  # new tokens for each sequence
    *,
    stop: str | Sequence[str] = (),  # text that ends a sequence and is not shown
    **options,  # as for `generate_batch`: num_seq, temperature, top_k, top_p, generator
) -> list[list[str]]:  # for each prompt, num_seq continuations without the prompt
    "Continue prompts to a stop string, `<|endoftext|>`, max_tokens or the end of the context."
    num_seq = options.get("num_seq", 1)
    ids = [encode_prompt(tokenizer, p) for p in prompts]
    known = {"eot": tokenizer.eot, "n_vocab": tokenizer.n_vocab}
    steps = generate_batch(model, ids, max_tokens, **known, **options)  # refuses what cannot be
    streams = [TextStream(tokenizer, stop) for _ in range(len(prompts) * num_seq)]
    texts = [""] * len(streams)
    for step in steps:
        triples = zip(texts, streams, step, strict=True)
        texts = [text + stream.feed(i) for text, stream, i in triples]
        if all(stream.ended for stream in streams):
            break
    texts = [text + stream.feed(None) for text, stream in zip(texts, streams, strict=True)]
    return [texts[i : i + num_seq] for i in range(0, len(texts), num_seq)]

# %% ../../nbs/medium/ch12_generate.ipynb #91afca12
def complete(
    model,  # a GPT
    tokenizer,  # the one that the model was trained with
    prompt: str,  # the beginning of a document; may be empty
    max_tokens: int = 100,  # new tokens for each sequence
    **options,  # as for `complete_batch`: stop, num_seq, temperature, top_k, top_p, generator
) -> list[str]:  # num_seq continuations without the prompt
    "Continue one prompt, `num_seq` times."
    return complete_batch(model, tokenizer, [prompt], max_tokens, **options)[0]

# %% ../../nbs/medium/ch12_generate.ipynb #e1985579
def stream_text(
    model,  # a GPT
    tokenizer,  # the one that the model was trained with
    prompt: str,  # the beginning of a document; may be empty
    max_tokens: int = 100,  # new tokens
    *,
    stop: str | Sequence[str] = (),  # text that ends the stream and is not shown
    **options,  # as for `generate_batch`: temperature, top_k, top_p, generator
) -> Iterator[str]:  # pieces of text as they become certain, never empty
    "Stream one continuation; k streams of one generator give what `complete(num_seq=k)` gives."
    text = TextStream(tokenizer, stop)
    ids = encode_prompt(tokenizer, prompt)
    known = {"eot": tokenizer.eot, "n_vocab": tokenizer.n_vocab}
    steps = generate(model, ids, max_tokens, **known, **options)

    def pieces():
        for (i,) in steps:
            if piece := text.feed(i):
                yield piece
            if text.ended:
                return
        if piece := text.feed(None):
            yield piece

    return pieces()
