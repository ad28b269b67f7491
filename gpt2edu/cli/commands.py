"""Make commands out of the library's dataclasses, and answer each mistake with one clear line."""

# Made by tools/book.py from ../../book/tough/ch21_commands.md: edit that, then `make book`.

# %% auto #0
__all__ = ['IDLE', 'INSTEAD', 'RATES', 'MOST_TEXTS', 'LATER', 'PlanFlags', 'TrainFlags',
           'run_to_resume', 'preset_from', 'check_as_begun', 'check_name', 'check_idle',
           'read_train_flags', 'describe_plan', 'say', 'say_or_go_on', 'check_all', 'train',
           'train_here', 'plan', 'prepare', 'GenerateConfig', 'generator_of', 'write_text',
           'smaller', 'generate', 'ExportConfig', 'title', 'export', 'eval_', 'main']

# %% ../../nbs/tough/ch21_commands.ipynb #80cacbf1
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from importlib import import_module
from pathlib import Path
from typing import Annotated

import tyro

from gpt2edu.choices import Device
from gpt2edu.cli.flags import (
    General,
    Report,
    answer,
    command,
    complain,
    parse,
    parse_both,
    take_flag,
    versions,
    visible,
    with_file,
)
from gpt2edu.model.variants import numbers, parameters
from gpt2edu.train.config import (
    HORIZONS,
    MAY_CHANGE,
    PRESETS,
    TrainConfig,
    preset,
    token_flops,
    trained_shapes,
)
from gpt2edu.text.files import typed
from gpt2edu.train.runs import (
    auto_run,
    find_run,
    holds_run,
    is_adapter,
    load_model,
    model_place,
    new_run,
    read_config,
)
from gpt2edu.train.start import fitted, gentle, trains_on
from gpt2edu.cli.settings import as_flags
from gpt2edu.machine.signals import Stopped
from gpt2edu.train.interrupts import stop_signals
from gpt2edu.train.ready import check, fetch_questions, rows_of_table

# %% ../../nbs/tough/ch21_commands.ipynb #6f84ed1e
@dataclass(frozen=True)
class PlanFlags(Report):
    "For the command itself."

    # resume this run, by default the latest; auto: begin one if there is none
    resume: Annotated[str | None, tyro.conf.arg(metavar="[RUN]")] = None


@dataclass(frozen=True)
class TrainFlags(General):
    "For the command itself."

    # resume this run, by default the latest; auto: begin one if there is none
    resume: Annotated[str | None, tyro.conf.arg(metavar="[RUN]")] = None
    ranks: int = 1  # with --dry_run: how many processes will share the run


def run_to_resume(
    resume: str | None,  # a name, "latest", "auto", or None: begin a run
    values: dict[str, str],  # what was typed for out_dir, name and preset
) -> Path | None:
    "Find the run that --resume means. ValueError, FileNotFoundError: one line."
    if resume == "":
        raise ValueError(
            "--resume got an empty name; name a run, or leave the name out to resume the latest"
        )
    out_dir = values.get("out_dir") or "runs"
    if resume == "auto":
        return auto_run(out_dir, values.get("name") or values.get("preset") or "tiny")
    if resume is None:
        return None
    return find_run(None if resume == "latest" else resume, out_dir)


def preset_from(
    values: dict[str, str],  # what was typed for preset, init_from and out_dir
    planned: bool = False,  # whether the weights may be missing yet: those of another preset's run
) -> TrainConfig:
    "Take the preset, and from the weights to begin with their sizes and tokenizer."
    chosen = preset(values.get("preset") or "tiny")
    name = chosen.init_from if values.get("init_from") is None else values["init_from"]
    if name is None:
        return chosen
    out_dir = values.get("out_dir") or chosen.out_dir
    try:
        return fitted(chosen, name, out_dir)
    except FileNotFoundError:
        before = PRESETS[name].get("init_from") if name in PRESETS else None
        if not (planned and before):
            raise
        return fitted(chosen, before, out_dir)  # that run will have the sizes of its own start


def check_as_begun(folder: Path, begun: TrainConfig, config: TrainConfig, typed: set[str]):
    "Refuse to resume a run with another model, batch or dataset. ValueError, one line."
    stays = [f.name for f in fields(TrainConfig) if f.name == "preset" or f.name not in MAY_CHANGE]
    for name in stays:
        was, now = getattr(begun, name), getattr(config, name)
        if now != was:
            fix = f"leave --{name} out" if name in typed else f"take {name} out of the file"
            raise ValueError(
                f"{folder} was begun with {name}={was!r}, not {now!r}; {fix}, or begin another run"
            )


def check_name(name: str | None, folder: Path | None, resume: str | None):
    "Refuse a name that cannot be a folder's, or that differs from the resumed run's. ValueError."
    if folder and resume != "auto" and name not in (None, folder.name):
        raise ValueError(f"--resume continues {folder}, which keeps its name; leave --name out")
    if name and (name == ".." or Path(name).name != name):
        raise ValueError(
            f"name={name!r} must be the name of one folder; choose where to put it with --out_dir"
        )
    if name and (n := len(os.fsencode(name))) > 255:
        raise ValueError(
            f"name={name} has {n} bytes, expected 255 at most, as in any folder; shorten --name"
        )


IDLE = {
    "lora_parts": "lora_rank",
    "lora_alpha": "lora_rank",
    "grow": "init_from",
    "conversations": "questions",
}
IDLE |= dict.fromkeys(("group", "answer_tokens", "updates", "clip", "kl"), "reward")
INSTEAD = ("dataset", "shards")  # of a text, which questions replace
RATES = ("lr", "min_lr", "muon_lr")


def check_idle(config: TrainConfig, typed: set[str]):
    "Refuse a flag that would change nothing in a new run. ValueError, one line."
    of_preset = PRESETS[config.preset]
    for name, needed in IDLE.items():
        usual = (getattr(TrainConfig, name), of_preset.get(name))
        if (name in typed or getattr(config, name) not in usual) and not getattr(config, needed):
            raise ValueError(
                f"--{name} changes nothing without --{needed}; add that, or leave --{name} out"
            )
    for name in INSTEAD:
        if name in typed and config.questions:
            raise ValueError(
                f"--{name} names a text, and questions={config.questions} are learned in place "
                f"of one; leave --{name} out, or add --questions None"
            )
    if "muon_lr" in typed and config.optimizer != "muon":
        raise ValueError(
            f"--muon_lr changes nothing with --optimizer {config.optimizer}; leave one of them out"
        )
    if config.shards and "dataset" in typed:
        raise ValueError(
            f"--dataset changes nothing beside --shards {config.shards}, which are used as they "
            "are; leave one of the two out"
        )


def read_train_flags(
    args: list[str],
    prog: str = "gpt2edu_train",
    kind: type = TrainConfig,  # or a dataclass that adds flags to it
    general: type = TrainFlags,
) -> tuple[TrainConfig, Path | None, General]:  # config; run to resume; the command's own flags
    "Turn arguments into a config. ValueError, FileNotFoundError: one line."
    from_file, args = with_file(kind, args, prog)
    typed = {arg.partition("=")[0].removeprefix("--").replace("-", "_") for arg in args}

    # a typed horizon replaces the file's, and either of them replaces the preset's
    new_end = bool(typed & set(HORIZONS))
    for name in HORIZONS:
        if new_end or from_file.get(name) is None:
            from_file.pop(name, None)
    new_end = new_end or bool(from_file.keys() & set(HORIZONS))

    resume, args = take_flag([*as_flags(from_file), *args], "resume", "latest")
    keys = ("out_dir", "name", "preset", "init_from")
    values = {key: take_flag(args, key, "")[0] for key in keys}
    values = {key: value for key, value in values.items() if value != "None"}
    folder = run_to_resume(resume, values)
    planned = kind is not TrainConfig
    default = read_config(folder) if folder else preset_from(values, planned)
    if new_end:  # tyro would check the two together
        default = replace(default, **dict.fromkeys(HORIZONS) | {"max_steps": 1})
        args = ["--max_steps", "None", *args]
    default = default if kind is TrainConfig else kind(**asdict(default))
    config, asked = parse_both(kind, general, args, prog, default)

    if folder:
        check_as_begun(folder, default, config, typed)
    else:
        check_idle(config, typed)
        if not {*RATES} & {*typed, *from_file}:
            config = gentle(config)
    check_name(values.get("name"), folder, resume)
    if config.num_epochs == 0:
        raise ValueError(
            "num_epochs=0.0 must be above 0; a part of an epoch is fine, for example 0.1"
        )
    return config, folder, asked


def describe_plan(config: TrainConfig) -> list[str]:
    "Describe a run in two lines, its model and its batch; a third has rates that were lowered."
    vocab = rows_of_table(config)
    n, flops = parameters(config, vocab), token_flops(config, vocab)
    some = config.freeze or config.lora_rank
    trained = numbers(trained_shapes(config, vocab)) if some else n
    part = f" ({trained:,} trained)" if trained != n else ""
    micro = config.total_batch // (config.micro_batch * config.block_size)
    horizon = next(name for name in HORIZONS if getattr(config, name) is not None)
    end = f"{getattr(config, horizon)} {horizon.split('_')[1]}"
    step = f"{config.total_batch:,} tokens a step in {micro} micro-batches of "
    step += f"{config.micro_batch} x {config.block_size}"
    if config.reward:
        step = f"{config.total_batch // config.block_size:,} questions a step, "
        step += f"{config.group} answers to each, reward {config.reward}"
    lines = [
        f"plan: preset {config.preset}, {n:,} parameters{part}, {flops / 1e9:.3f} GFLOP per token",
        f"plan: {step}; {end}",
    ]
    if trains_on(config) and config.lr < preset(config.preset).lr:
        rates = ", ".join(f"{name} {getattr(config, name):g}" for name in RATES)
        lines.append(f"plan: trained weights, so rates below preset {config.preset}'s: {rates}")
    return lines


def say(line: str):
    "Print a line above the progress bar, if there is one, without control characters."
    from tqdm import tqdm

    tqdm.write(visible(line), file=sys.stdout)
    sys.stdout.flush()


def say_or_go_on(line: str):
    "Print a line of a training; a closed pipe or a full disk does not stop it."
    try:
        say(line)
    except OSError as e:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")
        if not isinstance(e, BrokenPipeError):
            what = f"cannot write the output ({e.strerror}); training continues without it"
            complain(f"gpt2edu_train: {what}")


def check_all(config: TrainConfig, resume: Path | None, ranks: int) -> Iterator[str]:  # lines
    "Check what can be known before a start. ValueError, FileNotFoundError, OSError: one line."
    yield from check(config, resume, ranks)
    if config.reward:
        from gpt2edu.train.grpo import find_reward  # needs PyTorch

        find_reward(config)
        yield f"reward: {config.reward}"


@command
def train(args: list[str]):
    "Train a GPT-2; with no flags, the tiny one on the embedded stories."
    with stop_signals() as stop:
        try:
            config, resume, asked = read_train_flags(args)
            lines = describe_plan(config)  # on every rank, so that a mistake ends all of them
            for line in lines * (os.environ.get("RANK", "0") == "0"):
                say_or_go_on(line)
            if config.dry_run:
                for line in check_all(config, resume, asked.ranks):
                    say(f"check: {line}")
            else:
                train_here(config, resume, stop)
        except BaseException as e:
            if not (stop.raised or isinstance(e, Stopped)):
                raise
            # a library may have made another error of it
            found = e if isinstance(e, Stopped) else Stopped(stop.caught)
            complain(f"gpt2edu_train: {found}: stopped before the first step; nothing is lost")
            sys.exit(found.code)


def train_here(config: TrainConfig, resume: Path | None, stop):
    "Train in this process, which may be one of many."
    # PyTorch is loaded only now, so that --help is quick
    from gpt2edu.machine import distributed as dist
    from gpt2edu.machine.device import pick_device
    from gpt2edu.evaluate.validation import fitting_prompt, report
    from gpt2edu.train.grpo import RewardTrainer
    from gpt2edu.train.trainer import Trainer

    ranks = dist.start(pick_device(config.device).value.type)
    failed = True
    try:
        folder = dist.from_rank0(ranks, lambda: resume or new_run(config))
        if ranks.is_main:
            say_or_go_on(f"run: {folder}")
        kind = RewardTrainer if config.reward else Trainer
        trainer = kind(config, folder, resume is not None, say_or_go_on, ranks)
        done = trainer.run(stop)
        failed = False
        stop.waits = True  # a signal that comes now changes nothing
        if done and ranks.is_main and config.reward:
            trainer.report(done, say)
        elif done and ranks.is_main:
            few = None if config.questions else trainer.val_shards[:1000]
            prompt = fitting_prompt(config, trainer.tokenizer, few)
            report(done | {"step": trainer.step}, folder, config, say, prompt)
    finally:
        stop.waits = True
        dist.stop(failed)

# %% ../../nbs/tough/ch21_commands.ipynb #104a23c6
@command
def plan(args: list[str]):
    "Say what a run would need and cost, before you start it."
    from gpt2edu.plan import report as estimate

    config, _, asked = read_train_flags(args, "gpt2edu_plan", estimate.PlanConfig, PlanFlags)
    answer(lambda: estimate.plan(config, (lambda line: None) if asked.json else say), asked.json)


@command
def prepare(args: list[str]):
    "Turn a dataset into shards of tokens."
    from gpt2edu.data import prepare as fineweb

    config, asked = parse_both(fineweb.PrepareConfig, Report, args, "gpt2edu_prepare")
    facts = {}

    def work() -> dict:
        folder = fineweb.prepare(config, say, facts)
        if not (config.dry_run or config.part):
            for line in fetch_questions(config.dataset, config.tokenizer):
                say(f"prepare: {line}")
        return fineweb.summary(folder, facts)

    answer(work, asked.json)

# %% ../../nbs/tough/ch21_commands.ipynb #5d887bba
MOST_TEXTS = 1_000_000  # of one command; more are a slip of a finger


@dataclass(frozen=True)
class GenerateConfig:
    "What to write, from which run; each field is a flag of `gpt2edu_generate`."

    prompt: str = ""  # how the text begins; empty: the model begins
    num_seq: int = 1  # texts to write
    max_tokens: int = 200  # new tokens of each text, at most
    temperature: float = 0.8  # 0 takes the likeliest token, 1 the model's own odds
    top_k: int | None = None  # choose among the k likeliest tokens
    top_p: float | None = None  # choose among the likeliest tokens that hold this much probability
    seed: int | None = None  # the same seed gives the same text
    # folder or name of a run, an exported folder, or gpt2 … gpt2-xl; by default the latest run
    run: str | None = None
    # gpt2 or a tokenizer.json: for a folder of transformers that has none
    tokenizer: str | None = None
    out_dir: str = "runs"  # where runs are kept
    device: Device = "auto"  # where to compute
    self_test: bool = True  # compare a small step with the CPU's before using another device
    int8: bool = False  # weights of one byte each: faster on a CPU, a little less exact


def generator_of(seed: int | None):  # a torch.Generator
    "Make a generator of random numbers, the same for the same seed. ValueError, one line."
    import torch

    generator = torch.Generator()
    if seed is None:
        generator.seed()
    elif not 0 <= seed < 2**63:
        raise ValueError(f"seed={seed} must be from 0 to 2^63 - 1; for example 1")
    else:
        generator.manual_seed(seed)
    return generator


def write_text(prompt: str, pieces: Iterator[str], heading: str):
    "Write a text piece by piece; on a terminal, control characters are shown, not obeyed."
    shown = visible if sys.stdout.isatty() else str
    sys.stdout.write(heading + shown(prompt))
    for piece in pieces:
        sys.stdout.write(shown(piece))
        sys.stdout.flush()
    sys.stdout.write("\n")


def smaller(model, device):  # a GPT
    "Round the weights to int8 where that is faster; say so where it is not."
    from gpt2edu.model.int8 import has_kernel, int8_model

    if has_kernel(device):
        return int8_model(model)
    complain(f"gpt2edu_generate: int8 has no fast kernel on {device}; the weights stay in fp32")
    return model


@command
def generate(args: list[str]):
    "Write text with a trained model, token by token."
    config = parse(GenerateConfig, args, "gpt2edu_generate")
    if not 1 <= config.num_seq <= MOST_TEXTS:
        raise ValueError(f"num_seq={config.num_seq} must be from 1 to {MOST_TEXTS:,}; try 3")
    model_place(config.run, config.out_dir)  # finds a mistake before PyTorch is loaded
    from gpt2edu.model.generate import check_sampling, stream_text
    from gpt2edu.train.selftest import tested_device

    check_sampling(config.temperature, config.top_k, config.top_p)
    where = tested_device(config.device, "fp32", config.self_test, complain, update=False)
    model, tokenizer = load_model(config.run, config.out_dir, where.value, config.tokenizer)
    if config.int8:
        model = smaller(model, where.value)
    options = {name: getattr(config, name) for name in ("temperature", "top_k", "top_p")}
    options["generator"] = generator_of(config.seed)
    for i in range(config.num_seq):
        pieces = stream_text(model, tokenizer, config.prompt, config.max_tokens, **options)
        heading = f"--- {i + 1} of {config.num_seq}\n" if config.num_seq > 1 else ""
        write_text(config.prompt, pieces, heading)

# %% ../../nbs/tough/ch21_commands.ipynb #ac22f438
@dataclass(frozen=True)
class ExportConfig:
    "Which model to export, and where to; each field is a flag of `gpt2edu_export`."

    # a run, an exported folder, an adapter, gpt2 … gpt2-xl, or tiny; by default the latest run
    run: str | None = None
    # gpt2 or a tokenizer.json: for a folder of transformers that has none
    tokenizer: str | None = None
    out: str | None = None  # folder (or file) to make; by default exports/ and the model's name
    web: bool = False  # write one small file, which the website's playground opens
    out_dir: str = "runs"  # where runs are kept
    # owner/name on the Hugging Face hub: upload the folder there, private
    push_to_hub: str | None = None


def title(place: str | Path) -> str:  # from `model_place`
    "Name a model in one word: an adapter of a run has the run's name."
    folder = Path(place).resolve()  # the run may be named `.`
    inside = is_adapter(folder) and holds_run(folder.parent)
    return (folder.parent if inside else folder).name


@command
def export(args: list[str]):
    "Write a folder that transformers opens, if it has a class that computes the same."
    config = parse(ExportConfig, args, "gpt2edu_export")
    name = title(model_place(config.run, config.out_dir))
    if config.web and config.push_to_hub:
        raise ValueError("--web writes one file, --push_to_hub needs a folder; leave one out")
    from gpt2edu.model import pretrained, web
    from gpt2edu.model.llama import CLASSES, find_layout
    from gpt2edu.text.chat import is_chat

    if config.push_to_hub:
        pretrained.check_repo(config.push_to_hub)
    model, tokenizer = load_model(config.run, config.out_dir, own=config.tokenizer)
    if config.web:
        path = web.export_web(
            model, tokenizer, config.out or Path("exports") / f"{name}.safetensors", name
        )
        say(f"export: {path} ({path.stat().st_size:,} bytes)")
        return say("next: drop it on the playground, book/playground.html of the website")
    out = config.out or Path("exports") / name
    path = pretrained.export(model, tokenizer, out)
    say(f"export: {path}")
    kind, why = find_layout(model.config)
    if why:
        say(f"note: transformers cannot open it: {why}")
    else:
        say(f"next: transformers.{CLASSES[kind]}.from_pretrained({str(path)!r})")
    say(f"next: gpt2edu_{'chat' if is_chat(tokenizer) else 'generate'} --run {typed(path)}")
    if config.push_to_hub:
        say(f"pushed: {pretrained.push(path, config.push_to_hub)}")

# %% ../../nbs/tough/ch21_commands.ipynb #242a62a6
@command
def eval_(args: list[str]):
    "Judge a model: HellaSwag, validation loss, story choice."
    from gpt2edu.evaluate import report as evaluate

    config, asked = parse_both(evaluate.EvalConfig, Report, args, "gpt2edu_eval")

    def judge() -> dict | None:
        found = evaluate.figures(evaluate.evaluate(config, say))
        return found if os.environ.get("RANK", "0") == "0" else None

    answer(judge, asked.json)

# %% ../../nbs/tough/ch21_commands.ipynb #552e1ef8
LATER = {"chat": "gpt2edu.cli.chat"}  # commands of later chapters, and their modules


def main(args: list[str] | None = None):
    "Run a command by name."
    commands = {f.__name__.strip("_"): f for f in (prepare, plan, train, eval_, generate, export)}
    commands |= {name: getattr(import_module(module), name) for name, module in LATER.items()}
    name, *rest = (sys.argv[1:] if args is None else args) or [""]

    def overview(_):
        if name == "--version":
            return say(versions())
        if name not in ("--help", "-h"):
            raise ValueError(f"unknown command {name!r}; expected one of {', '.join(commands)}")
        say(
            "usage: python -m gpt2edu COMMAND [FLAGS]; gpt2edu_COMMAND is the same; "
            "--help after a command lists its flags"
        )
        for word, run in commands.items():
            say(f"  {word:10}{run.__doc__}")

    if name not in commands:
        return command(overview, "gpt2edu")(rest)
    if args is None:
        sys.argv[:] = [f"gpt2edu_{name}", *rest]
    commands[name](None if args is None else rest)
