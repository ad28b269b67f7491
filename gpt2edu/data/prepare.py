"""Stream FineWeb-Edu, or any dataset, into shards; a kill at any moment costs one shard at most."""

# Made by tools/book.py from ../../book/tough/ch20_fineweb.md: edit that, then `make book`.

# %% auto #0
__all__ = ['MUCH', 'BYTES_PER_TOKEN', 'SLACK', 'whole', 'PrepareConfig', 'open_source',
           'source_stream', 'fill', 'hub_plan', 'local_plan', 'Plan', 'plan_run', 'keep_validation',
           'complete_header', 'estimate', 'enough', 'announce', 'train_tokenizer', 'start',
           'check_room', 'merge_command', 'next_command', 'report', 'is_done', 'prepare', 'summary',
           'check_part', 'finished_parts', 'merged_header', 'merge']

# %% ../../nbs/tough/ch20_fineweb.ipynb #83ed8b68
import glob
import os
import re
import shlex
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, fields
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gpt2edu.data.cache import (
    HUB,
    TOKENIZER_CHARS,
    hub_folder,
    hub_name,
    not_writable,
    once,
    one_writer,
    shards_folder,
    take_text,
)
from gpt2edu.data.config import GPT2_VAL_TOKENS, DataConfig, check_names, check_vocab
from gpt2edu.data.encode import Workers, make_batches
from gpt2edu.data.hub import list_files
from gpt2edu.data.shards import MANIFEST, describe
from gpt2edu.data.sources import Source, hub_source, local_source, read_ahead
from gpt2edu.data.writer import (
    NOTED,
    ShardWriter,
    after,
    check_same,
    may_grow,
    parts_stream,
    read_state,
    whole_shards,
)
from gpt2edu.machine.progress import Progress, gigabytes, need_room
from gpt2edu.text.files import EOT, typed
from gpt2edu.text.tokenizer import Tokenizer, get_tokenizer

# %% ../../nbs/tough/ch20_fineweb.ipynb #67d31767
def whole(name: str, value: float, least: int) -> int:
    "Turn 1e8 into 100000000. ValueError, one line, for what is not a number of tokens."
    if not least <= value < 2**62 or value != int(value):
        raise ValueError(
            f"{name}={value} must be a whole number of tokens, {least} or more; for example 1e8"
        )
    return int(value)


@dataclass(frozen=True)
class PrepareConfig:
    "What to turn into shards, and how; each field is a flag of `gpt2edu_prepare`."

    # fineweb-edu, tinystories, owner/name (on the hub), tinyshakespeare, stories, pydocs, or files
    dataset: tuple[str, ...] = ("fineweb-edu",)
    # which configuration of a dataset on the hub; by default sample-10BT for fineweb-edu,
    # else the card's default
    subset: str | None = None
    split: str = "train"  # which split of a dataset on the hub
    text_key: str = "text"  # field of a .jsonl line, column of a .parquet file
    # a line of a .txt file that holds this and nothing else ends a document; "" for none
    separator: str = EOT
    # gpt2, train (learn one from the first documents), or the path of a tokenizer.json
    tokenizer: str = "gpt2"
    vocab_size: int = 1024  # ids of a tokenizer that is trained
    # stop after this many tokens, validation included; by default everything
    max_tokens: int | float | None = None
    # hold out the first documents, at least this many tokens of them; by default 10,485,760
    # (32,768 for local text), a 40th of a small source
    val_tokens: int | float | None = None
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
                object.__setattr__(self, name, whole(name, value, least))
        check_vocab(self.vocab_size)
        if self.vocab_size < 1:
            raise ValueError(f"vocab_size={self.vocab_size} must be 1 or more; for example 1024")
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
        check_names(self.dataset)
        form = re.fullmatch(r"(\d+)/(\d+)", self.part or "1/1")
        if not form or not 1 <= int(form[1]) <= int(form[2]):
            raise ValueError(f"part={self.part!r} must be i/n with i from 1 to n; for example 2/3")
        if self.part and self.merge:
            raise ValueError(
                "got --part and --merge, expected one of them; merge when all parts are done"
            )

    @property
    def share(self) -> tuple[int, int]:
        "Which of how many parts this run does: (i, n)."
        i, n = map(int, (self.part or "1/1").split("/"))
        return i, n

# %% ../../nbs/tough/ch20_fineweb.ipynb #ab518bf6
def open_source(
    config: PrepareConfig,
    made_of: dict,  # what the manifest says of a local source
    size: int,  # bytes of text in it
    revision: str | None,  # the commit that an earlier start has read
    say: Callable,
) -> Source:
    "Find the documents. ValueError, OSError: one line."
    name = hub_name(config.dataset)

    def note(line):
        say(f"prepare: {line}")

    if not name:
        reading = (config.text_key, config.data_dir, config.separator, once(note))
        return local_source(config.dataset, made_of, size, *reading)
    repo, default = HUB.get(name, (name, None))
    repo, _, newest = repo.partition("@")
    commit = revision or newest or None
    listing = list_files(repo, config.subset or default, config.split, commit, note)
    return hub_source(listing, config.text_key, note)

# %% ../../nbs/tough/ch20_fineweb.ipynb #2b543b92
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

# %% ../../nbs/tough/ch20_fineweb.ipynb #f156c3e6
def fill(
    writer: ShardWriter,
    stream: Iterator,  # keys and ids
    expected: int,  # tokens, for the progress bar
    say: Callable,
    enough: float = float("inf"),  # tokens; the unit at hand is finished
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

# %% ../../nbs/tough/ch20_fineweb.ipynb #21ff05df
MUCH = 2**62  # tokens: more than there are, in place of "everything"


def hub_plan(config: PrepareConfig) -> tuple[Path, dict, str]:  # folder, source, short name
    "Name the folder of a dataset of the hub, and describe its source."
    name = hub_name(config.dataset)
    repo, default = HUB.get(name, (name, None))
    made_by = (config.tokenizer, config.vocab_size)
    folder = hub_folder(config.data_dir, name, config.subset, config.split, *made_by)
    source = {"dataset": repo.partition("@")[0], "split": config.split}
    source["text_key"] = config.text_key
    if config.subset or default:
        source["config"] = config.subset or default
    short = name.partition("@")[0].rpartition("/")[2]
    return folder, source, re.sub(r"[^\w-]", "_", short)


def local_plan(
    config: PrepareConfig,
    tokenizer: Tokenizer | None,  # None: one is to be trained
) -> tuple[Path, dict, str, int, int]:  # folder, source, short name, validation tokens, bytes
    "Name the folder of local text by a hash of its content. ValueError, OSError: one line."
    small = max(1, (config.max_tokens or MUCH) // 40)
    data = DataConfig(
        dataset=config.dataset,
        text_key=config.text_key,
        separator=config.separator,
        vocab_size=config.vocab_size,
        data_dir=config.data_dir,
        val_tokens=min(DataConfig.val_tokens, small),
    )
    unusual = config.max_tokens is not None or config.shard_size != PrepareConfig.shard_size
    more = (config.max_tokens, config.shard_size) if unusual else ()
    folder, short, sha, val_tokens, size = shards_folder(data, tokenizer, more, config.val_tokens)
    source = {"dataset": [*config.dataset], "sha256": sha}
    source |= {} if config.separator == EOT else {"separator": config.separator}
    return folder, source, short, val_tokens, size

# %% ../../nbs/tough/ch20_fineweb.ipynb #962eae82
class Plan(NamedTuple):
    "What a preparation knows before it uses the network."

    folder: Path
    header: dict  # of the manifest: tokenizer, source, arguments
    size: int  # bytes of text; 0: unknown
    tokenizer: Tokenizer | None  # None: one is to be trained


def plan_run(config: PrepareConfig) -> Plan:
    "Build the header of the manifest without the network. ValueError, OSError: one line."
    tokenizer = None if config.tokenizer == "train" else get_tokenizer(config.tokenizer)
    if hub_name(config.dataset):
        folder, source, name = hub_plan(config)
        val_tokens = config.val_tokens
        size = 0
    else:
        folder, source, name, val_tokens, size = local_plan(config, tokenizer)
    arguments = {"name": name, "shard_size": config.shard_size, "max_tokens": config.max_tokens}
    arguments |= {} if val_tokens is None else {"val_tokens": val_tokens}
    folder = Path(config.out) if config.out else folder
    if config.part:
        arguments["part"] = [*config.share]
        folder = folder.with_name("{}-part-{}-of-{}".format(folder.name, *config.share))
    made_by = describe(tokenizer) if tokenizer else {"name": name}
    header = {"tokenizer": made_by, "source": source, "arguments": arguments}
    return Plan(folder, header, size, tokenizer)

# %% ../../nbs/tough/ch20_fineweb.ipynb #89351b74
def keep_validation(config: PrepareConfig, header: dict, begun: dict):  # of a manifest each
    "Hold out what the first start did, unless told otherwise: the default grows with max_tokens."
    was = begun.get("arguments", {}).get("val_tokens")
    if config.val_tokens is None and was is not None:
        header["arguments"]["val_tokens"] = was


def complete_header(config: PrepareConfig, header: dict, source: Source):
    "Put into the header what only the source can tell."
    header["source"] = source.made_of
    few = min(GPT2_VAL_TOKENS, source.size // 40, (config.max_tokens or MUCH) // 40)
    header["arguments"].setdefault("val_tokens", max(1, few))

# %% ../../nbs/tough/ch20_fineweb.ipynb #9894e3a9
BYTES_PER_TOKEN = 4.5  # of English under GPT-2's vocabulary, about; only for estimates
SLACK = 4_000_000  # tokens that a part does beyond its share of max_tokens, since units differ


def estimate(
    config: PrepareConfig,
    source: Source,
    tokenizer: Tokenizer | None,  # None: one is to be trained
) -> int:
    "Say how many tokens this run will write, about."
    large = tokenizer is not None and tokenizer.n_vocab > 10_000
    # a small vocabulary needs about twice the tokens
    tokens = int(source.size / (BYTES_PER_TOKEN if large else BYTES_PER_TOKEN / 2))
    return min(config.max_tokens or MUCH, tokens) // config.share[1]


def enough(config: PrepareConfig) -> float:
    "Return the tokens after which a part may stop: its share of max_tokens, and a little more."
    if not (config.part and config.max_tokens):
        return float("inf")
    return SLACK + 1.1 * config.max_tokens / config.share[1]


def announce(config: PrepareConfig, folder: Path, source: Source, expected: int, say: Callable):
    "Say what is read, how much it is, and where it goes."
    short = {k: v[:12] for k, v in source.made_of.items() if k in ("revision", "sha256")}
    facts = ", ".join(f"{k} {v}" for k, v in (source.made_of | short).items())
    say(f"prepare: {facts}")
    say(f"prepare: about {expected:,} tokens, {gigabytes(2 * expected)} of shards")
    say(f"prepare: {'would write' if config.dry_run else 'writing'} {folder}")

# %% ../../nbs/tough/ch20_fineweb.ipynb #0303f637
def train_tokenizer(
    source: Source,
    name: str,
    vocab_size: int,  # ids, at most
    say: Callable,
) -> Tokenizer:
    "Learn a tokenizer from the first documents of a source."

    def texts():
        for _, documents in read_ahead(source.units((0, 0)), n=1):
            for document in documents:
                yield bytes(document[: 4 * TOKENIZER_CHARS]).decode(errors="ignore")

    say(f"prepare: training a tokenizer of at most {vocab_size:,} ids")
    few = take_text(texts(), TOKENIZER_CHARS)
    return Tokenizer.train(few, vocab_size, name, lambda line: say(f"prepare: {line}"))

# %% ../../nbs/tough/ch20_fineweb.ipynb #7d05fbe8
def start(
    folder: Path,
    header: dict,
    tokenizer: Tokenizer,
    state: dict,  # the manifest of an earlier start; {}: none
    say: Callable,
) -> ShardWriter:
    "Make a folder ready, and keep its whole shards. ValueError, OSError: one line."
    if state.get("shards"):
        say(f"prepare: checking {len(state['shards'])} shards of an earlier start")
    for leftover in folder.glob("tokenizer.json.*.tmp"):
        leftover.unlink()
    there = state and (folder / "tokenizer.json").exists()
    if not there or Tokenizer.load(folder).hash != tokenizer.hash:
        try:
            tokenizer.save(folder)
        except OSError as e:
            raise not_writable(folder, e, "--out") from e
    kept = whole_shards(folder, state, header)
    if state:
        tokens = sum(s["tokens"] for s in kept)
        say(f"prepare: going on after {len(kept)} whole shards, {tokens:,} tokens")
    return ShardWriter(folder, header, tokenizer, kept)


def check_room(folder: Path, expected: int, state: dict):
    "Refuse a disk that is too small for the missing shards. OSError, one line."
    there = sum(s["tokens"] for s in state.get("shards", []))
    need_room(folder, 2 * (expected - there))

# %% ../../nbs/tough/ch20_fineweb.ipynb #330f8026
def merge_command(config: PrepareConfig) -> str:
    "Write the line that makes one run out of a part and its neighbours."
    said = ["gpt2edu_prepare", "--merge"]
    for f in fields(config):
        value = getattr(config, f.name)
        if f.name == "dataset" and value != f.default:
            said.append(" ".join(["--dataset", *map(typed, value)]))
        elif f.name not in ("part", "num_proc") and value != f.default:
            said.append(f"--{f.name}={shlex.quote(str(value))}")
    return " ".join(said)


def next_command(config: PrepareConfig, folder: Path) -> str:
    "Say what to type next."
    if config.part:
        return f"{merge_command(config)}  # where the folders of all parts lie side by side"
    as_named = not (config.out or config.subset or config.split != "train")
    if hub_name(config.dataset) and as_named:
        name = config.dataset[0]
        more = "" if name == "fineweb-edu" else f" --dataset {typed(name)}"
        more += "" if config.data_dir == "data" else f" --data_dir {typed(config.data_dir)}"
        more += "" if config.tokenizer == "gpt2" else f" --tokenizer {typed(config.tokenizer)}"
        more += f" --vocab_size {config.vocab_size}" if config.tokenizer == "train" else ""
        return f"gpt2edu_train --preset gpt2-124m{more}"
    tokenizer = "gpt2" if config.tokenizer == "gpt2" else str(folder / "tokenizer.json")
    return f"gpt2edu_train --shards {typed(folder)} --tokenizer {typed(tokenizer)}"


def report(config: PrepareConfig, folder: Path, manifest: dict, say: Callable):
    "Say how much was written, and what to type next."
    for split, t in manifest["totals"].items():
        if t["tokens"]:
            amounts = f"{t['tokens']:,} tokens, {t['documents']:,} documents"
            say(f"prepare: {split} {amounts}, {t['bytes']:,} bytes of text")
    say(f"prepare: {len(manifest['shards'])} shards in {folder}")
    say(f"next: {next_command(config, folder)}")

# %% ../../nbs/tough/ch20_fineweb.ipynb #72c2dac0
def is_done(state: dict, max_tokens: int | None) -> bool:
    "Whether a folder is finished, and holds all that max_tokens asks for."
    if not state.get("finished"):
        return False
    return not may_grow(state.get("arguments", {}).get("max_tokens"), max_tokens)


def prepare(
    config: PrepareConfig,
    say: Callable = lambda line: None,  # prints a line
    facts: dict | None = None,  # gets expected_tokens, once they are known
) -> Path:  # the folder of shards
    "Turn a dataset into shards, or resume doing so. ValueError, OSError: one line."
    folder, header, size, tokenizer = plan_run(config)
    try:
        # a finished folder is only read, so it needs no lock
        free = config.dry_run or is_done(read_state(folder), config.max_tokens)
        with nullcontext() if free else one_writer(folder):
            state = read_state(folder)
            if state:
                keep_validation(config, header, state)
                check_same(folder, state, header)
            if is_done(state, config.max_tokens):
                say(f"prepare: {folder} (prepared before)")
                return folder
            if config.merge:
                return merge(config, folder, header, state, say)
            if state and tokenizer is None:
                tokenizer = Tokenizer.load(folder)

            revision = state.get("source", {}).get("revision")
            source = open_source(config, header["source"], size, revision, say)
            complete_header(config, header, source)
            if state:
                check_same(folder, state, header)

            expected = estimate(config, source, tokenizer)
            if facts is not None:
                facts["expected_tokens"] = expected
            announce(config, folder, source, expected, say)
            check_room(folder, expected, state)
            if config.dry_run:
                return folder

            if tokenizer is None:
                name = header["arguments"]["name"]
                tokenizer = train_tokenizer(source, name, config.vocab_size, say)
            header["tokenizer"] = describe(tokenizer)
            writer = start(folder, header, tokenizer, state, say)
            num_proc = config.num_proc or os.cpu_count() or 1
            stream = source_stream(writer, source, tokenizer, num_proc, config.share)
            ended = fill(writer, stream, expected, say, enough(config))
            report(config, folder, writer.finish(ended), say)
            return folder
    except PermissionError as e:
        raise not_writable(folder, e, "--out") from e

# %% ../../nbs/tough/ch20_fineweb.ipynb #331b1516
def summary(folder: Path, facts: dict) -> dict:  # documented in book/commands.qmd
    "Summarise a folder of shards, for `--json`; None for a value that is missing."
    state = read_state(folder)
    out = {"folder": str(folder), "finished": bool(state.get("finished"))}
    out["expected_tokens"] = facts.get("expected_tokens")
    for split in ("train", "val"):
        total = state.get("totals", {}).get(split, {})
        out[f"{split}_tokens"] = total.get("tokens")
        out[f"{split}_documents"] = total.get("documents")
        out[f"{split}_text_bytes"] = total.get("bytes")
    tokenizer = state.get("tokenizer", {})
    out["shards"] = len(state.get("shards", []))
    out["tokenizer"] = tokenizer.get("name")
    out["tokenizer_ids"] = tokenizer.get("n_vocab")
    return out

# %% ../../nbs/tough/ch20_fineweb.ipynb #f40a6638
def check_part(path: Path, manifest: dict):
    "Refuse a part's manifest without the fields that a merge needs. ValueError, one line."
    arguments = ("part", "name", "shard_size", "val_tokens", "max_tokens")
    needed = [(key, manifest) for key in ("complete", "source", "arguments")]
    needed += [(key, manifest.get("arguments", {})) for key in arguments]
    needed += [(key, entry) for entry in manifest["shards"] for key in sorted(NOTED)]
    if missing := [key for key, where in needed if key not in where]:
        fix = "prepare that part again"
        raise ValueError(f"{path / MANIFEST}: {missing[0]} is missing, expected in a part; {fix}")


def finished_parts(folder: Path) -> tuple[list[Path], list[dict]]:  # folders, manifests
    "Find the parts beside a folder. ValueError, one line, if one is missing or not finished."
    found = {}
    for path in folder.parent.glob(f"{glob.escape(folder.name)}-part-*"):
        if m := re.fullmatch(r".*-part-(\d+)-of-(\d+)", path.name):
            found[int(m[1]), int(m[2])] = path
    n = max((n for _, n in found), default=0)
    folders = [found.get((i, n)) for i in range(1, n + 1)]
    manifests = [read_state(p) if p else {} for p in folders]
    missing = [f"{i}/{n}" for i, m in enumerate(manifests, start=1) if not m.get("finished")]
    if missing or not n:
        fix = f"prepare it with --part {missing[0] if missing else '1/n'}"
        raise ValueError(
            f"{folder}: no finished part {', '.join(missing) or '1/n'} beside it; {fix}"
        )
    for path, manifest in zip(folders, manifests, strict=True):
        check_part(path, manifest)
    return folders, manifests


def merged_header(asked: dict, folders: list[Path], manifests: list[dict]) -> dict:
    "Make the header of the whole out of equal parts. ValueError, one line, if they differ."
    header = {k: manifests[0][k] for k in ("tokenizer", "source", "arguments")}
    header["arguments"].pop("part")
    for path, manifest in zip(folders, manifests, strict=True):
        check_same(path, manifest, asked, grow=False)
        check_same(path, manifest, header, grow=False)
    return header


def merge(config: PrepareConfig, folder: Path, asked: dict, state: dict, say: Callable) -> Path:
    "Make the shards of one run out of finished parts. ValueError, OSError: one line."
    folders, manifests = finished_parts(folder)
    keep_validation(config, asked, manifests[0])
    header = merged_header(asked, folders, manifests)
    expected = sum(s["tokens"] for m in manifests for s in m["shards"])
    expected = min(expected, header["arguments"]["max_tokens"] or expected)
    check_room(folder, expected, state)
    if config.dry_run:
        say(f"prepare: would write {folder}")
        return folder
    writer = start(folder, header, Tokenizer.load(folders[0]), state, say)
    ended = fill(writer, after(writer.total, parts_stream(folders, manifests)), expected, say)
    if ended and not all(m["complete"] for m in manifests):
        got = f"the parts hold the first {writer.total + writer.used:,} tokens"
        raise ValueError(
            f"{folder}: {got}, fewer than max_tokens={writer.limit:,}; "
            "do every part and the merge again with a larger --max_tokens"
        )
    report(config, folder, writer.finish(ended), say)
    return folder
