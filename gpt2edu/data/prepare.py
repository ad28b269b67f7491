"""FineWeb-Edu, or any dataset, streamed into shards by several processes, and a run that can be killed at any moment and goes on."""

# Made by tools/book.py from ../../book/tough/ch19_fineweb.md: edit that file, then `make book`.

# %% auto #0
__all__ = ['BYTES_PER_TOKEN', 'DEFAULT_VAL', 'SLACK', 'PrepareConfig', 'source_stream', 'fill',
           'plan_run', 'describe', 'first_texts', 'prepare', 'open_source', 'start', 'report',
           'summary', 'merge']

# %% ../../nbs/tough/ch19_fineweb.ipynb #83ed8b68
import os
import re
import shlex
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .hub import list_files
from .encode import Workers, make_batches
from gpt2edu.data.cache import (
    HUB,
    TOKENIZER_CHARS,
    DataConfig,
    hub_folder,
    hub_name,
    not_writable,
    one_writer,
    shards_folder,
    take_text,
)
from ..machine.progress import Progress, gigabytes, need_room
from gpt2edu.data.writer import (
    ShardWriter,
    after,
    check_same,
    may_grow,
    parts_stream,
    read_state,
    whole_shards,
)
from .sources import Source, hub_source, local_source, read_ahead
from ..text.tokenizer import Tokenizer, get_tokenizer

# %% ../../nbs/tough/ch19_fineweb.ipynb #67d31767
BYTES_PER_TOKEN = 4.5  # of English under GPT-2's vocabulary, about; only for estimates


@dataclass(frozen=True)
class PrepareConfig:
    "What to turn into shards, and how; each field is a flag of `gpt2edu_prepare`."

    dataset: tuple[str, ...] = (
        "fineweb-edu",
    )  # fineweb-edu, tinystories, owner/name (on the hub), tinyshakespeare, stories, pydocs, or files
    subset: str | None = (
        None  # which configuration of a dataset on the hub; by default sample-10BT for fineweb-edu, else the card's default
    )
    split: str = "train"  # which split of a dataset on the hub
    text_key: str = "text"  # field of a .jsonl line, column of a .parquet file
    tokenizer: str = (
        "gpt2"  # gpt2, train (learn one from the first documents), or the path of a tokenizer.json
    )
    vocab_size: int = 1024  # ids of a tokenizer that is trained
    max_tokens: int | float | None = (
        None  # stop after so many, validation included; by default everything
    )
    val_tokens: int | float | None = (
        None  # the first documents, until so many tokens; by default 10,485,760 (32,768 for local text), a 40th of a small source
    )
    shard_size: int | float = 100_000_000  # tokens in a shard; 1e8 is understood
    num_proc: int | None = None  # processes that encode; by default one for each core
    data_dir: str = "data"  # where prepared folders are kept
    out: str | None = None  # the folder to write, instead of one in data_dir with a name of its own
    part: str | None = None  # i/n: do the i-th of n parts, on this machine; then merge
    merge: bool = False  # make the shards of one run out of the parts
    dry_run: bool = False  # say what would be done, and stop

    def __post_init__(self):
        for name, least in (("max_tokens", 1), ("val_tokens", 0), ("shard_size", 1)):
            value = getattr(self, name)
            if value is not None:
                if not least <= value < 2**62 or value != int(value):
                    raise ValueError(
                        f"{name}={value} must be a whole number of tokens, {least} or more; for example 1e8"
                    )
                object.__setattr__(self, name, int(value))  # 1e8 → 100000000
        if self.shard_size >= 2**31:
            raise ValueError(
                f"shard_size={self.shard_size} does not fit into a shard's header; use 1e8"
            )
        if self.num_proc is not None and not 1 <= self.num_proc <= 1024:
            raise ValueError(
                f"num_proc={self.num_proc} must be 1 to 1024; leave it out for one process a core"
            )
        if not self.dataset:
            raise ValueError(
                "dataset names nothing; expected fineweb-edu, owner/name, stories or files"
            )
        if self.part and not (
            (m := re.fullmatch(r"(\d+)/(\d+)", self.part)) and 1 <= int(m[1]) <= int(m[2])
        ):
            raise ValueError(f"part={self.part!r} must be i/n with i from 1 to n; for example 2/3")
        if self.part and self.merge:
            raise ValueError(
                "got --part and --merge, expected one of them; merge when all parts are done"
            )

# %% ../../nbs/tough/ch19_fineweb.ipynb #2b543b92
def source_stream(
    writer: ShardWriter,  # says where to begin
    source: Source,
    tokenizer: Tokenizer,
    num_proc: int,
    part: tuple[int, int],  # (i, n): only units whose numbers add up to i - 1, modulo n
) -> Iterator[tuple[tuple[int, int], np.ndarray]]:  # key of the unit, ids (N,) uint16
    "Encode a source from the writer's position on."
    key, passed, drop = writer.position

    def batches():
        units = (u for u in source.units(key) if sum(u.key) % part[1] == part[0] - 1)
        for unit, documents in read_ahead(units, passed):
            for batch in make_batches(documents, tokenizer):
                yield unit, *batch

    with Workers(tokenizer, num_proc) as workers:
        for unit, ids in workers.encode(batches()):
            yield unit, ids[drop:]
            drop = max(0, drop - len(ids))

# %% ../../nbs/tough/ch19_fineweb.ipynb #f156c3e6
def fill(
    writer: ShardWriter,
    stream: Iterator,
    expected: int,
    say: Callable,
    enough: float = float("inf"),
) -> bool:
    "Write a stream. Returns whether its end was reached before the writer had enough."
    with Progress(expected, writer.total, writer.folder, say) as progress:
        for key, ids in stream:
            if key != writer.key and writer.total + writer.used >= enough:
                return False
            more = writer.add(key, ids)
            progress.add(len(ids))
            if not more:
                return False
    return True

# %% ../../nbs/tough/ch19_fineweb.ipynb #21ff05df
DEFAULT_VAL = 10_485_760  # tokens: what the 124M preset validates on, 20 steps of 524,288
SLACK = 4_000_000  # tokens that a part does beyond its share of max_tokens, since units differ


def plan_run(
    config: PrepareConfig,
) -> tuple[
    Path, dict, int, Tokenizer | None
]:  # folder, header, bytes of text (0: unknown), tokenizer
    "Say what the manifest will say, as far as it is known without the network. ValueError, OSError: one line."
    tokenizer = None if config.tokenizer == "train" else get_tokenizer(config.tokenizer)
    arguments, size = {"shard_size": config.shard_size, "max_tokens": config.max_tokens}, 0
    val_tokens, few = config.val_tokens, max(1, (config.max_tokens or 2**62) // 40)
    if name := hub_name(config.dataset):
        repo, default = HUB.get(name, (name, None))
        folder = hub_folder(
            config.data_dir, name, config.subset, config.split, config.tokenizer, config.vocab_size
        )
        source = {
            "dataset": repo.partition("@")[0],
            "split": config.split,
            "text_key": config.text_key,
        }
        source |= {"config": config.subset or default} if config.subset or default else {}
        short = re.sub(r"[^\w-]", "_", name.partition("@")[0].rpartition("/")[2])
    else:
        flags = {k: getattr(config, k) for k in ("dataset", "text_key", "vocab_size", "data_dir")}
        train = DataConfig(**flags, val_tokens=min(DataConfig.val_tokens, few))
        unusual = config.max_tokens is not None or config.shard_size != PrepareConfig.shard_size
        more = (config.max_tokens, config.shard_size) if unusual else ()
        folder, short, sha, val_tokens, size = shards_folder(train, tokenizer, more, val_tokens)
        source = {"dataset": [*config.dataset], "sha256": sha}
    header = {
        "tokenizer": describe(tokenizer) if tokenizer else {"name": short},
        "source": source,
        "arguments": {"name": short} | arguments,
    }
    header["arguments"] |= {} if val_tokens is None else {"val_tokens": val_tokens}
    return Path(config.out) if config.out else folder, header, size, tokenizer


def describe(tokenizer: Tokenizer) -> dict:
    "What a manifest says of a tokenizer."
    return {k: getattr(tokenizer, k) for k in ("name", "hash", "n_vocab", "eot")}


def first_texts(source: Source) -> Iterator[str]:
    "Give the first documents of a source, the beginning of a very long one."
    for _, documents in read_ahead(source.units((0, 0)), n=1):
        for document in documents:
            yield bytes(document[: 4 * TOKENIZER_CHARS]).decode(errors="ignore")

# %% ../../nbs/tough/ch19_fineweb.ipynb #962eae82
def prepare(
    config: PrepareConfig,
    say: Callable = lambda line: None,  # prints a line
    facts: dict | None = None,  # told expected_tokens, once they are known
) -> Path:  # the folder of shards
    "Turn a dataset into shards, or go on with it. ValueError, OSError: one line."
    folder, header, size, tokenizer = plan_run(config)
    part = tuple(map(int, config.part.split("/"))) if config.part else (1, 1)
    if config.part:
        folder = folder.with_name(f"{folder.name}-part-{part[0]}-of-{part[1]}")
        header["arguments"]["part"] = [*part]
    try:
        with nullcontext() if config.dry_run else one_writer(folder):
            state = read_state(folder)
            if state:
                check_same(folder, state, header)
                if state["finished"] and not may_grow(
                    state["arguments"].get("max_tokens"), config.max_tokens
                ):
                    say(f"prepare: {folder} (prepared before)")
                    return folder
                tokenizer = tokenizer or Tokenizer.load(folder)
            if config.merge:
                return merge(config, folder, header, state, say)
            source = open_source(config, header, state, size, say)
            header["source"] = source.made_of
            few = min(DEFAULT_VAL, source.size // 40, (config.max_tokens or 2**62) // 40)
            header["arguments"].setdefault("val_tokens", max(1, few))
            if state:
                check_same(folder, state, header)
            small = (
                1 if tokenizer and tokenizer.n_vocab > 10_000 else 0.5
            )  # a small vocabulary needs about twice the tokens
            expected = (
                min(config.max_tokens or 2**62, int(source.size / (BYTES_PER_TOKEN * small)))
                // part[1]
            )
            if facts is not None:
                facts["expected_tokens"] = expected
            say(
                "prepare: "
                + ", ".join(
                    f"{k} {v[:12] if k in ('revision', 'sha256') else v}"
                    for k, v in source.made_of.items()
                )
            )
            say(f"prepare: about {expected:,} tokens, {gigabytes(2 * expected)} of shards")
            say(f"prepare: {'would write' if config.dry_run else 'writing'} {folder}")
            need_room(folder, 2 * (expected - sum(s["tokens"] for s in state.get("shards", []))))
            if config.dry_run:
                return folder
            if tokenizer is None:
                say(f"prepare: training a tokenizer of at most {config.vocab_size:,} ids")
                texts = take_text(first_texts(source), TOKENIZER_CHARS)
                tokenizer = Tokenizer.train(texts, config.vocab_size, header["arguments"]["name"])
            header["tokenizer"] = describe(tokenizer)
            writer = start(folder, header, tokenizer, state, say)
            stream = source_stream(
                writer, source, tokenizer, config.num_proc or os.cpu_count() or 1, part
            )
            enough = (
                SLACK + 1.1 * config.max_tokens / part[1]
                if config.part and config.max_tokens
                else float("inf")
            )
            report(config, folder, writer.finish(fill(writer, stream, expected, say, enough)), say)
            return folder
    except PermissionError as e:
        raise not_writable(folder, e, "--out") from e

# %% ../../nbs/tough/ch19_fineweb.ipynb #89351b74
def open_source(
    config: PrepareConfig, header: dict, state: dict, size: int, say: Callable
) -> Source:
    "Find the documents; those of an earlier start come from the commit that it read. ValueError, OSError: one line."
    if not (name := hub_name(config.dataset)):
        return local_source(
            config.dataset, header["source"], size, config.text_key, config.data_dir
        )
    repo, default = HUB.get(name, (name, None))
    repo, _, revision = repo.partition("@")
    revision = state.get("source", {}).get("revision") or revision or None
    listing = list_files(
        repo, config.subset or default, config.split, revision, lambda line: say(f"prepare: {line}")
    )
    return hub_source(listing, config.text_key, lambda line: say(f"prepare: {line}"))


def start(
    folder: Path, header: dict, tokenizer: Tokenizer, state: dict, say: Callable
) -> ShardWriter:
    "Make a folder ready, and go on with what is whole in it."
    if state.get("shards"):
        say(f"prepare: checking {len(state['shards'])} shards of an earlier start")
    for leftover in folder.glob("tokenizer.json.*.tmp"):
        leftover.unlink()
    if not (
        state
        and (folder / "tokenizer.json").exists()
        and Tokenizer.load(folder).hash == tokenizer.hash
    ):
        try:
            tokenizer.save(folder)
        except OSError as e:
            raise not_writable(folder, e, "--out") from e
    kept = whole_shards(folder, state, header)
    if state:
        say(
            f"prepare: going on after {len(kept)} whole shards, {sum(s['tokens'] for s in kept):,} tokens"
        )
    return ShardWriter(folder, header, tokenizer, kept)

# %% ../../nbs/tough/ch19_fineweb.ipynb #9894e3a9
def report(config: PrepareConfig, folder: Path, manifest: dict, say: Callable):
    "Say what there is now, and what to type next."
    for split, t in manifest["totals"].items():
        if t["tokens"]:
            say(
                f"prepare: {split} {t['tokens']:,} tokens, {t['documents']:,} documents, {t['bytes']:,} bytes of text"
            )
    say(f"prepare: {len(manifest['shards'])} shards in {folder}")
    if config.part:
        say(
            "next: gpt2edu_prepare --merge and the same flags, where the folders of all parts lie side by side"
        )
    elif hub_name(config.dataset) and not (config.out or config.subset or config.split != "train"):
        more = "" if config.dataset == ("fineweb-edu",) else f" --dataset {config.dataset[0]}"
        more += "" if config.data_dir == "data" else f" --data_dir {config.data_dir}"
        more += "" if config.tokenizer == "gpt2" else f" --tokenizer {config.tokenizer}"
        say(f"next: gpt2edu_train --preset gpt2-124m{more}")
    else:
        name = "gpt2" if config.tokenizer == "gpt2" else folder / "tokenizer.json"
        say(
            f"next: gpt2edu_train --shards {shlex.quote(str(folder))} --tokenizer {shlex.quote(str(name))}"
        )

# %% ../../nbs/tough/ch19_fineweb.ipynb #f40a6638
def summary(folder: Path, facts: dict) -> dict:  # documented in book/commands.qmd
    "Say what there is in a folder of shards: the object of `gpt2edu_prepare --json`. What is not there is None."
    state = read_state(folder)
    out = {
        "folder": str(folder),
        "finished": bool(state.get("finished")),
        "expected_tokens": facts.get("expected_tokens"),
    }
    for split in ("train", "val"):
        total = state.get("totals", {}).get(split, {})
        out |= {
            f"{split}_{new}": total.get(old)
            for old, new in (
                ("tokens", "tokens"),
                ("documents", "documents"),
                ("bytes", "text_bytes"),
            )
        }
    tokenizer = state.get("tokenizer", {})
    return out | {
        "shards": len(state.get("shards", [])),
        "tokenizer": tokenizer.get("name"),
        "tokenizer_ids": tokenizer.get("n_vocab"),
    }


def merge(config: PrepareConfig, folder: Path, header: dict, state: dict, say: Callable) -> Path:
    "Make the shards of one run out of finished parts. ValueError, OSError: one line."
    found = {tuple(map(int, m.groups())): p for p in folder.parent.glob(f"{folder.name}-part-*")
             if (m := re.fullmatch(r".*-part-(\d+)-of-(\d+)", p.name))}  # fmt: skip
    n = max((n for _, n in found), default=0)
    folders = [found.get((i, n)) for i in range(1, n + 1)]
    manifests = [read_state(p) if p else {} for p in folders]
    missing = [f"{i}/{n}" for i, m in enumerate(manifests, start=1) if not m.get("finished")]
    if missing or not n:
        raise ValueError(
            f"{folder}: no finished part {', '.join(missing) or '1/n'} beside it; prepare it with --part {(missing or ['1/n'])[0]}"
        )
    asked, header = header, {k: manifests[0][k] for k in ("tokenizer", "source", "arguments")}
    header["arguments"].pop("part")
    for path, manifest in zip(folders, manifests, strict=True):
        check_same(path, manifest, asked, grow=False)
        check_same(path, manifest, header, grow=False)
    tokenizer = Tokenizer.load(folders[0])
    expected = sum(s["tokens"] for m in manifests for s in m["shards"])
    expected = min(expected, header["arguments"]["max_tokens"] or expected)
    need_room(folder, 2 * (expected - sum(s["tokens"] for s in state.get("shards", []))))
    if config.dry_run:
        say(f"prepare: would write {folder}")
        return folder
    writer = start(folder, header, tokenizer, state, say)
    ended = fill(writer, after(writer.total, parts_stream(folders, manifests)), expected, say)
    if ended and not all(m["complete"] for m in manifests):
        got = f"the parts hold the first {writer.total + writer.used:,} tokens, fewer than max_tokens={writer.limit:,}"
        raise ValueError(
            f"{folder}: {got}; do every part and the merge again with a larger --max_tokens"
        )
    report(config, folder, writer.finish(ended), say)
    return folder
