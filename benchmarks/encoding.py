"""How fast is text encoded, and in how much memory? Prints JSON.

    python benchmarks/encoding.py            32 MB of text, best of three, in turns
    python benchmarks/encoding.py 64 5       64 MB, best of five

Two processes of `gpt2edu.data.encode` against two threads of tiktoken's `encode_ordinary_batch`, on
the same documents: CPython's prose with words varied, cut to the lengths of web pages. The time of
ours holds everything from UTF-8 documents to uint16 ids in order: batches, pipes, <|endoftext|>.
tiktoken's ends with lists of ints; turning them into uint16 is measured apart. On a machine that
does other work too, the clock says little; processor seconds, of all processes and threads
together, say more. Resident memory is that of this process (which holds the text) and its workers
together, sampled every 20 ms while ours runs.
"""

import json
import os
import platform
import random
import sys
import threading
import time
from pathlib import Path

import numpy as np
import tiktoken

from gpt2edu.data.encode import Workers, make_batches
from gpt2edu.text.tokenizer import get_tokenizer

PAGE = os.sysconf("SC_PAGE_SIZE")


def web_pages(n_bytes, seed=0):
    "Documents of log-normal length, of prose in which one word in ten is new."
    from pydoc_data.topics import topics

    rng = random.Random(seed)
    words = " ".join(topics[k] for k in sorted(topics)).split(" ")
    size = 0
    while size < n_bytes:
        n, at = max(20, int(rng.lognormvariate(6.2, 1.0))), rng.randrange(len(words))
        page = (words[at:] + words)[:n]
        text = " ".join(
            w + rng.choice("abcdefghij") + rng.choice("aeiou") if rng.random() < 0.1 else w
            for w in page
        )
        size += len(text.encode())
        yield text


def resident(pid):
    "Bytes in memory of a process; 0 when it has gone."
    try:
        return int(Path(f"/proc/{pid}/statm").read_text(encoding="utf-8").split()[1]) * PAGE
    except (OSError, IndexError):
        return 0


def processor_seconds(pids):
    "Processor time of this process and others so far, user and system."
    ticks = [
        Path(f"/proc/{p}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[11:13]
        for p in pids
    ]
    return time.process_time() + sum(int(a) + int(b) for a, b in ticks) / os.sysconf("SC_CLK_TCK")


def main():
    megabytes, repeats = (int(x) for x in (sys.argv[1:] + ["32", "3"][len(sys.argv) - 1 :]))
    texts = list(web_pages(megabytes << 20))
    utf8 = [t.encode() for t in texts]
    n_bytes, tokenizer = sum(map(len, utf8)), get_tokenizer("gpt2")
    theirs = tiktoken.Encoding(
        "gpt2", pat_str=tokenizer.pattern, mergeable_ranks=tokenizer.ranks, special_tokens={}
    )
    seconds = {"ours_2_processes": [], "tiktoken_2_threads": [], "lists_to_uint16": []}
    cpu = {"ours_2_processes": [], "tiktoken_2_threads": []}
    with Workers(tokenizer, 2) as workers:
        pids = [p.pid for p in workers.processes]
        few = [(0, *b) for b in make_batches(utf8[:50], tokenizer)]
        list(workers.encode(few * 4))  # both workers are up
        peak, stop = [0, 0], threading.Event()

        def watch():
            while not stop.wait(0.02):
                children = sum(resident(p.pid) for p in workers.processes)
                peak[0] = max(peak[0], children + resident(os.getpid()))
                peak[1] = max(peak[1], children)

        for _ in range(repeats):
            stop.clear()
            watcher = threading.Thread(target=watch)
            watcher.start()
            t0, c0 = time.perf_counter(), processor_seconds(pids)
            n_tokens = sum(
                len(ids)
                for _, ids in workers.encode((0, *b) for b in make_batches(utf8, tokenizer))
            )
            seconds["ours_2_processes"].append(time.perf_counter() - t0)
            cpu["ours_2_processes"].append(processor_seconds(pids) - c0)
            stop.set()
            watcher.join()
            t0, c0 = time.perf_counter(), processor_seconds(pids)
            ids = theirs.encode_ordinary_batch(texts, num_threads=2)
            seconds["tiktoken_2_threads"].append(time.perf_counter() - t0)
            cpu["tiktoken_2_threads"].append(processor_seconds(pids) - c0)
            assert n_tokens == sum(map(len, ids)) + len(texts)
            t0 = time.perf_counter()
            for x in ids:
                np.array(x, dtype=np.uint16)
            seconds["lists_to_uint16"].append(time.perf_counter() - t0)
            del ids
    best = {k: min(v) for k, v in seconds.items()}
    result = {
        "machine": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "load_before_and_after": [round(x, 1) for x in os.getloadavg()[:2]],
        "text": {"bytes": n_bytes, "documents": len(texts), "tokens": n_tokens},
        "tokens_per_second": {k: round(n_tokens / v) for k, v in best.items()},
        "megabytes_per_second": {k: round(n_bytes / v / 1e6, 2) for k, v in best.items()},
        "ours_over_tiktoken": round(best["tiktoken_2_threads"] / best["ours_2_processes"], 3),
        "ours_over_tiktoken_each_turn": [
            round(b / a, 3)
            for a, b in zip(seconds["ours_2_processes"], seconds["tiktoken_2_threads"], strict=True)
        ],
        "processor_seconds": {k: round(min(v), 2) for k, v in cpu.items()},
        "resident_megabytes": {"tree": round(peak[0] / 1e6), "two_workers": round(peak[1] / 1e6)},
        "versions": {"tiktoken": tiktoken.__version__, "python": platform.python_version()},
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
