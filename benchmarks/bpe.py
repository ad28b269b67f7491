"""How fast are training and encoding? Prints JSON.

    python benchmarks/bpe.py

Trains 1,024 merges on 2 MB: CPython's own prose (`pydoc_data.topics`), repeated with words varied,
so that the number of different pieces grows as in real text. Then encodes the same 2 MB with
`Tokenizer.encode`, `Tokenizer.encode_batch`, `encode_plain`, and with tiktoken's own construction
of GPT-2's encoding. Best of three.
"""

import json
import os
import platform
import pydoc_data.topics
import random
import re
import time

import tiktoken
from tiktoken_ext.openai_public import r50k_pat_str

from gpt2edu.text.tokenizer import EOT, Tokenizer, encode_plain, get_tokenizer, train_bpe

MEGABYTE = 1_000_000


def texts(n_bytes, seed=0):
    "Real prose, then the same prose again with one word in ten changed by a suffix."
    rng, out, size = random.Random(seed), [], 0
    varied = False
    while True:
        for text in pydoc_data.topics.topics.values():
            if varied:
                text = re.sub(
                    r"\b[a-z]{4,}\b",
                    lambda m: (
                        m[0] + rng.choice("abcdefghij") + rng.choice("aeiou")
                        if rng.random() < 0.1
                        else m[0]
                    ),
                    text,
                )
            out.append(text)
            size += len(text.encode())
            if size >= n_bytes:
                return out
        varied = True


def best(f, repeats=3):
    seconds = []
    for _ in range(repeats):
        t0 = time.perf_counter()
        f()
        seconds.append(time.perf_counter() - t0)
    return min(seconds)


def main():
    docs = texts(2 * MEGABYTE)
    n_bytes = sum(len(d.encode()) for d in docs)
    merges = train_bpe(docs, 257 + 1024)
    assert len(merges) == 1024
    train_s = best(lambda: train_bpe(docs, 257 + 1024))
    ours = Tokenizer("benchmark", merges)
    gpt2 = get_tokenizer("gpt2")
    peer = tiktoken.Encoding(
        "peer", pat_str=r50k_pat_str, mergeable_ranks=gpt2.ranks, special_tokens={EOT: gpt2.eot}
    )
    few = docs[:10]
    few_bytes = sum(len(d.encode()) for d in few)
    assert [gpt2.encode(d) for d in docs] == [peer.encode_ordinary(d) for d in docs]

    def speed(f, size=n_bytes):
        return round(size / MEGABYTE / best(f), 2)

    print(
        json.dumps(
            {
                "text_bytes": n_bytes,
                "train_1024_merges_seconds": round(train_s, 2),
                "encode_MB_per_s": {
                    "Tokenizer.encode, our 1,281 ids": speed(
                        lambda: [ours.encode(d) for d in docs]
                    ),
                    "Tokenizer.encode, gpt2": speed(lambda: [gpt2.encode(d) for d in docs]),
                    "Tokenizer.encode_batch, gpt2, 2 threads": speed(
                        lambda: gpt2.encode_batch(docs)
                    ),
                    "tiktoken, gpt2": speed(lambda: [peer.encode_ordinary(d) for d in docs]),
                    "encode_plain, gpt2": speed(
                        lambda: [encode_plain(d, gpt2.ranks) for d in few], few_bytes
                    ),
                },
                "machine": f"{platform.machine()}, {os.cpu_count()} cores",
                "python": platform.python_version(),
                "tiktoken": tiktoken.__version__,
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
