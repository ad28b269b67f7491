"""Rows about text: into shards with several processes, and the tokenizer alone."""

import os
import random
import re
import threading
import time
from pathlib import Path

from benchmarks.timing import Subject, each, in_turn, ratio, spread


def web_pages(n_bytes: int, seed: int = 0) -> list[str]:
    "Make documents of log-normal length from CPython's prose, with one word in ten new."
    from pydoc_data.topics import topics

    rng = random.Random(seed)
    words = " ".join(topics[k] for k in sorted(topics)).split(" ")
    pages, size = [], 0
    while size < n_bytes:
        n, at = max(20, int(rng.lognormvariate(6.2, 1.0))), rng.randrange(len(words))
        page = (words[at:] + words)[:n]
        text = " ".join(
            w + rng.choice("abcdefghij") + rng.choice("aeiou") if rng.random() < 0.1 else w
            for w in page
        )
        pages.append(text)
        size += len(text.encode())
    return pages


def resident(pids: list) -> int:  # bytes; a process that has gone counts nothing
    "Sum up the memory of processes, on Linux."
    total = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/statm").read_text(encoding="utf-8").split()
            total += int(fields[1]) * os.sysconf("SC_PAGE_SIZE")
        except (OSError, IndexError, ValueError):
            continue
    return total


def our_workers(n_bytes: int, processes: int = 2):
    "Make a subject: documents become uint16 ids in order, by the workers of gpt2edu_prepare."
    from gpt2edu.data.encode import Workers, make_batches
    from gpt2edu.text.tokenizer import get_tokenizer

    tokenizer = get_tokenizer("gpt2")
    utf8 = [t.encode() for t in web_pages(n_bytes)]
    workers = Workers(tokenizer, processes).__enter__()
    pids = [os.getpid(), *(p.pid for p in workers.processes)]
    peak, done = [0], threading.Event()

    def watch():
        while not done.wait(0.02):
            peak[0] = max(peak[0], resident(pids))

    threading.Thread(target=watch, daemon=True).start()

    def work() -> dict:
        batches = ((0, *b) for b in make_batches(utf8, tokenizer))
        tokens = sum(len(ids) for _, ids in workers.encode(batches))
        return {"tokens": tokens - len(utf8), "resident": peak[0]}

    return work


def tiktoken_batch(n_bytes: int, threads: int = 2):
    "Make a subject: tiktoken's own batch function, which ends with lists of ints."
    import tiktoken

    from gpt2edu.text.tokenizer import get_tokenizer

    ours, texts = get_tokenizer("gpt2"), web_pages(n_bytes)
    options = {"pat_str": ours.pattern, "mergeable_ranks": ours.ranks, "special_tokens": {}}
    theirs = tiktoken.Encoding("gpt2", **options)

    def work() -> dict:
        ids = theirs.encode_ordinary_batch(texts, num_threads=threads)
        return {"tokens": sum(map(len, ids))}

    return work


def text_to_shards(asked) -> dict:
    "Text to uint16 ids in order by two processes, beside two threads of tiktoken."
    n_bytes = 200_000 if asked.tiny else 32 << 20
    subjects = {
        "ours": Subject("text:our_workers", n_bytes=n_bytes),
        "tiktoken": Subject("text:tiktoken_batch", n_bytes=n_bytes),
    }
    found = in_turn(subjects, 3 if asked.tiny else 5)
    tokens = {f["value"]["tokens"] for f in found.values()}
    assert len(tokens) == 1, f"the two give {tokens} tokens"
    figures = {
        f"{k}, MB/s": each(f["seconds"], lambda t: n_bytes / t / 1e6) for k, f in found.items()
    }
    figures["ours, resident MB"] = spread([found["ours"]["value"]["resident"] / 1e6])
    return {
        "figures": figures,
        "ratios": {"tiktoken": ratio(found["tiktoken"]["seconds"], found["ours"]["seconds"])},
        "settings": {"bytes": n_bytes, "tokens": tokens.pop()},
    }


# the tokenizer alone


def varied_topics(n_bytes: int) -> list[str]:
    "CPython's prose, then the same again with a suffix on one long word in ten."
    from pydoc_data.topics import topics

    rng, found, size, again = random.Random(0), [], 0, False

    def vary(match) -> str:
        if rng.random() < 0.1:
            return match[0] + rng.choice("abcdefghij") + rng.choice("aeiou")
        return match[0]

    while True:
        for text in topics.values():
            found.append(re.sub(r"\b[a-z]{4,}\b", vary, text) if again else text)
            size += len(found[-1].encode())
            if size >= n_bytes:
                return found
        again = True


def encoder(way: str, n_bytes: int):
    "Make a subject: train 1,024 merges, or encode the same text in one of four ways."
    import tiktoken

    from gpt2edu.text.tokenizer import EOT, encode_plain, get_tokenizer, train_bpe

    docs, gpt2 = varied_topics(n_bytes), get_tokenizer("gpt2")
    special = {EOT: gpt2.eot}
    theirs = tiktoken.Encoding(
        "peer", pat_str=gpt2.pattern, mergeable_ranks=gpt2.ranks, special_tokens=special
    )
    ways = {
        "train": lambda: len(train_bpe(docs, 257 + 1024)),
        "encode": lambda: sum(len(gpt2.encode(d)) for d in docs),
        "encode_batch": lambda: sum(map(len, gpt2.encode_batch(docs))),
        "encode_plain": lambda: sum(len(encode_plain(d, gpt2.ranks)) for d in docs[:10]),
        "tiktoken": lambda: sum(len(theirs.encode_ordinary(d)) for d in docs),
    }
    size = sum(len(d.encode()) for d in (docs[:10] if way == "encode_plain" else docs))

    def work() -> list[float]:  # what it gives, MB/s
        began = time.perf_counter()
        return [ways[way](), size / (time.perf_counter() - began) / 1e6]

    return work


def bpe(asked) -> dict:
    "Training 1,024 merges, and encoding with our tokenizer and tiktoken's."
    n_bytes = 50_000 if asked.tiny else 2_000_000
    figures, seconds = {}, {}
    ways = ("train", "encode", "encode_batch", "encode_plain", "tiktoken")
    subjects = {w: Subject("text:encoder", way=w, n_bytes=n_bytes) for w in ways}
    for way, f in in_turn(subjects, 3).items():
        seconds[way] = f["seconds"]
        figures[f"{way}, MB/s"] = spread([f["value"][1]])
        figures[f"{way}, s"] = spread(f["seconds"])
    return {
        "figures": figures,
        "ratios": {"tiktoken": ratio(seconds["tiktoken"], seconds["encode"])},
        "settings": {"bytes": n_bytes},
    }
