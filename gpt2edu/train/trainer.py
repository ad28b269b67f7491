"""Text in, a trained model out: prepared shards, a loop with a clock, a log, checkpoints, and a run that can be killed and resumed."""

# Made by tools/book.py from ../../book/tough/ch18_trainer.md: edit that file, then `make book`.

# %% auto #0
__all__ = ['Trainer']

# %% ../../nbs/tough/ch18_trainer.ipynb #e294c16c
import json
import math
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

import torch
from tqdm import tqdm

from ..machine import device, distributed as dist
from . import checkpoint, selftest
from ..machine.distributed import Ranks
from ..evaluate.report import choices, get_items
from ..model.generate import complete
from ..evaluate.validation import bigram_and_floor, story_choice, validation_loss
from ..data.loader import Loader
from ..model.gpt import GPT, GPTConfig, num_params
from .optim import build_optimizers, load_states, lr_at, set_lr
from gpt2edu.train.config import (
    MAY_CHANGE,
    TrainConfig,
    flops_per_token,
    horizon,
    measure_peak,
    mfu,
    padded,
)
from ..data.cache import not_writable, prepare_data
from ..machine.progress import duration
from .log import LivePlot, RunLog, check_tracker, open_tracker, plot_loss
from ..data.shards import open_shards, write_atomically
from .interrupts import SpikeWatch, Stop, Stopped, explain, stop_signals

# %% ../../nbs/tough/ch18_trainer.ipynb #83987c51
class Trainer:
    "One training run: `Trainer(config, folder).run()`. Under torchrun each process makes one, with its `ranks`."

    def __init__(
        self,
        config: TrainConfig,
        folder: Path,  # of the run; made if it is not there
        resume: bool = False,  # go on from the latest checkpoint in the folder
        say: Callable = lambda line: None,  # told what happens, line by line, by rank 0
        ranks: Ranks = Ranks(),  # noqa: B008  from `dist.start`; frozen
    ):
        self.config, self.folder, self.ranks, self.start = (
            config,
            Path(folder),
            ranks,
            time.perf_counter(),
        )
        c, self.say = config, say if ranks.is_main else lambda line: None
        sizes = {k: getattr(c, k) for k in ("n_layer", "n_head", "n_embd", "block_size")}
        GPTConfig(**sizes)  # wrong choices are refused on every rank, before any work
        check_tracker(c.tracker)
        shared = (
            c.block_size * ranks.world_size
        )  # tokens that all ranks compute at a time, for each window of a micro-batch
        self.B = next(
            (b for b in range(c.micro_batch, 0, -1) if c.total_batch % (b * shared) == 0), 0
        )
        if not self.B:
            raise ValueError(f"total_batch={c.total_batch} tokens cannot be shared by {ranks.world_size} ranks in windows of block_size="
                             f"{c.block_size}; try --total_batch {max(1, c.total_batch // shared) * shared}")  # fmt: skip
        self.n_micro = c.total_batch // (self.B * shared)
        self.device = selftest.tested_device(
            c.device, c.dtype, c.self_test, self.say, dist.agreement(ranks)
        ).value
        dtype, compiled = (
            device.pick_dtype(c.dtype, self.device),
            device.pick_compile(c.compile, self.device),
        )
        device.set_precision(self.device)
        if self.device.type == "cpu":
            device.keep_freed_memory()
        self.dtype, self.scaler = dtype.value, device.grad_scaler(self.device, dtype.value)
        with dist.rank0_first(ranks):  # it prepares, the others find what it has written
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
            except OSError as e:
                raise not_writable(self.folder, e, "--out_dir") from e
            self.tokenizer, data = prepare_data(c, self.say)
            hash_, n_vocab = self.tokenizer.hash, self.tokenizer.n_vocab
            self.train_shards, self.val_shards = (
                open_shards(data, s, hash_, ranks.is_main, n_vocab) for s in ("train", "val")
            )
            self.items = get_items(c.hellaswag, ("plain",), None) if c.hellaswag else None
        self.is_stories = c.dataset == ("stories",) and not c.shards
        self.max_steps = horizon(c, len(self.train_shards))
        self.model = GPT(
            GPTConfig(**sizes, vocab_size=padded(n_vocab)), torch.Generator().manual_seed(c.seed)
        )
        self.model.to(self.device)
        self.compiled = (
            torch.compile(self.model) if compiled.value else self.model
        )  # the same weights
        self.forward = dist.wrap(self.compiled, ranks)
        muon_dtype = (
            None if self.dtype == torch.bfloat16 else torch.float32
        )  # None: what the hardware multiplies
        options = c.optimizer, c.lr, c.weight_decay, (c.beta1, c.beta2), c.muon_lr
        self.optimizers = build_optimizers(self.model, *options, dtype=muon_dtype)
        self.loader = Loader(
            self.train_shards, self.B, c.block_size, c.seed, ranks.rank, ranks.world_size
        )
        if (
            n := min(c.val_tokens, len(self.val_shards) - 1)
        ) < c.block_size:  # refused now, not at the first validation
            raise ValueError(
                f"got {n} tokens to validate on, expected block_size={c.block_size} at least; give more text"
            )
        self.step, self.position, self.seconds, self.next, self.ends = 0, 0, 0.0, None, False
        self.val_loss, self.best, self.judged = (
            math.nan,
            math.inf,
            0,
        )  # the last loss, the lowest, the step of the last
        self.fixed = {
            k: v for k, v in json.loads(json.dumps(asdict(c))).items() if k not in MAY_CHANGE
        }
        self.fixed |= {"tokenizer_hash": hash_, "data": data.name}
        self.saver, self.log, self.tell, self.untell = (
            checkpoint.AsyncSaver(),
            RunLog(self.folder / "log.jsonl"),
            None,
            None,
        )
        self.peak = measure_peak(self.device, self.dtype) * ranks.world_size  # FLOP/s
        if resume:
            self.restore()
        hardware = (
            f"{device.describe(self.device)}, {ranks.world_size} rank{'s' * (ranks.world_size > 1)}"
        )
        precision = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}[
            self.dtype
        ]
        self.machine = (
            f"{hardware.rpartition(', torch ')[0]}, {precision}"  # for the line on the wait
        )
        self.flops = flops_per_token(num_params(self.model), c.n_layer, c.n_embd, c.block_size)
        if ranks.is_main:
            self.tell, self.untell = open_tracker(c.tracker, self.folder, asdict(c))
            self.tokenizer.save(self.folder)  # from here on there is a run
            write_atomically(self.folder / "config.json", json.dumps(asdict(c), indent=1).encode())
            self.log.write("start", step=self.step, max_steps=self.max_steps, hardware=hardware, dtype=str(self.dtype),
                           peak_tflops=self.peak / 1e12, config=asdict(c), train_tokens=len(self.train_shards), data=str(data))  # fmt: skip
        self.say(
            f"model: {num_params(self.model):,} parameters, vocabulary {n_vocab:,} of {padded(n_vocab):,}"
        )
        self.say(f"machine: {hardware}, {self.peak / 1e12:.2f} TFLOP/s measured")
        smaller = f"; micro_batch {self.B}, so that {ranks.world_size} ranks share a step" * (
            self.B < c.micro_batch
        )
        self.say(f"precision: {dtype}; compile: {compiled}{smaller}")

    def save(self, wait: bool = True):
        "Write a checkpoint, whole or not at all; without waiting, a thread writes while training goes on."
        if not self.ranks.is_main:
            return
        self.saved()
        state = {
            "step": self.step,
            "position": self.position,
            "seconds": self.elapsed(),
            "config": self.fixed,
        }
        state |= {
            "val_loss": self.val_loss,
            "best": self.best,
            "judged": self.judged,
            "rng": checkpoint.rng_state(),
        }
        state |= {
            "scaler": self.scaler.state_dict(),
            "threads": torch.get_num_threads(),
            "ranks": self.ranks.world_size,
        }
        tensors = self.model.state_dict(), [o.state_dict() for o in self.optimizers]
        self.saver.save(self.folder / "checkpoints", *tensors, state, self.config.keep_last)
        if wait:
            self.saved()

    def saved(self):
        "Wait until the last checkpoint is on the disk, and log it."
        if path := self.saver.wait():
            self.log.write("save", step=int(path.name.removeprefix("step_")), path=str(path))

    def restore(self):
        "Go on from the latest checkpoint, or from the start where there is none."
        folder = self.folder / "checkpoints"
        path = checkpoint.latest(folder) or max(
            folder.glob("step_*"), default=None
        )  # `load` says what is broken in it
        if path is None:
            return self.say("resume: no checkpoint yet, so this starts at step 0")
        saved = checkpoint.load(path, config=self.fixed)
        self.model.load_state_dict(saved.model)
        load_states(self.optimizers, saved.optim)
        now = {"threads": torch.get_num_threads(), "ranks": self.ranks.world_size}
        s = {
            "best": math.inf,
            "judged": saved.state["step"],
        } | saved.state  # older checkpoints know neither
        self.scaler.load_state_dict(
            s["scaler"] or self.scaler.state_dict()
        )  # empty if it was not fp16
        if "rng" in s:
            checkpoint.set_rng_state(s["rng"])
        self.step, self.position, self.seconds = s["step"], s["position"], s["seconds"]
        self.val_loss, self.best, self.judged = s["val_loss"], s["best"], s["judged"]
        self.loader.position = self.position
        self.say(f"resume: {path}, step {self.step}")
        for name, n in now.items():
            if (was := s.get(name, 1)) != n:
                self.say(
                    f"resume: the number of {name} was {was}, is now {n}; the last bits may differ"
                )

    def elapsed(self) -> float:  # seconds, those before a resume included
        return self.seconds + time.perf_counter() - self.start

    def batch(self):  # x, y: (B, T) on the device
        "Read the next micro-batch; on a GPU the copy runs beside the computing."
        on_gpu = self.device.type == "cuda"
        return [
            (t.pin_memory() if on_gpu else t).to(self.device, non_blocking=True)
            for t in self.loader.next_batch()
        ]

    def train_step(
        self, stop: Stop | None = None
    ) -> tuple[float, float]:  # loss, norm of the gradient before clipping
        "Take one step of the optimisers. The loss is in nats/token, over all ranks, which also agree whether one was told to stop."
        c, loss = self.config, torch.zeros((), device=self.device)
        set_lr(
            self.optimizers, lr_at(self.step, c.lr, c.min_lr, c.warmup_steps, self.max_steps) / c.lr
        )
        for i in range(self.n_micro):
            x, y = self.next or self.batch()
            with dist.sync_if(self.forward, i == self.n_micro - 1):
                with device.autocast(self.device, self.dtype):
                    part = self.forward(x, y)[1] / self.n_micro
                self.scaler.scale(part).backward()
            loss += part.detach()
            self.next = self.batch()  # the GPU is still at work
        seen = dist.mean_over_ranks(
            torch.stack([loss, loss.new_tensor(float(bool(stop and stop.caught)))])
        )
        for o in self.optimizers:
            self.scaler.unscale_(o)
        norm = float(torch.nn.utils.clip_grad_norm_(self.model.parameters(), c.grad_clip))
        loss, told = seen.tolist()
        self.ends = told > 0
        self.check_finite("loss", loss)
        self.check_finite(
            "norm of the gradient", 0.0 if self.scaler.is_enabled() else norm
        )  # a scaler skips it
        for o in self.optimizers:
            if math.isfinite(norm):  # under fp16 all take the step, or none
                self.scaler.step(o)
            o.zero_grad(
                set_to_none=self.ranks.world_size == 1
            )  # DDP has room of its own for them: no second one
        self.scaler.update()
        self.step += 1
        self.position += c.total_batch // c.block_size  # windows
        return loss, norm

    def check_finite(self, name: str, value: float):
        "Stop a run that has diverged, before it is saved."
        if not math.isfinite(value):
            end = self.position + self.config.total_batch // self.config.block_size
            raise ValueError(f"{name} is {value} at step {self.step} (windows {self.position} to {end}); the last checkpoint "
                             "is from before; try a lower --lr, a longer --warmup_steps or --dtype fp32")  # fmt: skip

    def judge(self):
        "Validate, and answer questions where there are some."
        c = self.config
        where = {"device": self.device, "dtype": self.dtype, "ranks": self.ranks}
        sizes = (c.val_tokens, c.block_size, self.B, c.val_overlap)
        self.val_loss = validation_loss(self.compiled, self.val_shards, *sizes, **where)
        self.check_finite("validation loss", self.val_loss)
        self.best, self.judged = min(self.best, self.val_loss), self.step
        found = {"loss": self.val_loss, "best": self.best}
        if self.items:
            answers = choices(
                self.items, self.model, self.tokenizer, "plain", (), self.B, *where.values()
            )["acc_norm"]
            found |= {"hellaswag": answers["accuracy"], "hellaswag_error": answers["error"]}
        if self.ranks.is_main:
            if self.is_stories and c.choice_items:
                choice = story_choice(self.model, self.tokenizer, c.choice_items)
                found |= {"story_choice": choice["accuracy"], "story_choice_error": choice["error"]}
            self.log.write("val", step=self.step, seconds=self.elapsed(), **found)
            self.tell(self.step, {f"val/{k}": v for k, v in found.items()})
        return found

    def samples(self, n: int = 3) -> list[str]:
        "Write n texts; the same seed each time, and training does not notice."
        options = {
            "num_seq": n,
            "temperature": 0.8,
            "generator": torch.Generator().manual_seed(self.config.seed),
        }
        texts = complete(self.model, self.tokenizer, "", self.config.block_size, **options)
        self.log.write("sample", step=self.step, texts=texts)
        return texts

    def run(
        self, stop: Stop | None = None, live: bool = False
    ) -> dict | None:  # the last event, "done"; None if stopped
        "Train to the horizon, then judge. With `live`, a notebook shows the curve meanwhile."
        plot = LivePlot(self.log) if live and self.ranks.is_main else None
        try:
            with nullcontext(stop) if stop else stop_signals() as stop:
                try:
                    with (
                        stop.held() if self.ranks.world_size > 1 else nullcontext()
                    ):  # ranks stop together, after a step
                        done = self.loop(stop, plot)
                except Stopped:  # while the model was judged or wrote samples
                    done = None
                except RuntimeError as e:
                    done = explain(e, stop, self.config, self.ranks, self.step)
                if done is None:
                    with stop.held():
                        self.save()
                    if self.ranks.is_main:
                        self.log.write("stopped", step=self.step, signal=stop.caught)
                    self.say(
                        f"{stop.caught or 'a signal to another rank'}: saved step {self.step} of {self.max_steps}; go on with --resume {self.folder}"
                    )
                return done
        finally:
            self.saver.wait()
            if self.untell:
                self.untell()

    def wait_ahead(self, step_seconds: float) -> float:  # seconds
        "Estimate the time to the end from that of a step: the steps that are left, and every validation on the way."
        c = self.config
        judgements = (
            self.max_steps // c.eval_every
            - self.step // c.eval_every
            + (self.max_steps % c.eval_every > 0)
        )
        n = min(c.val_tokens, len(self.val_shards)) / (1 - c.val_overlap)
        n += 100 * c.choice_items * self.is_stories + 250 * len(
            self.items or ()
        )  # tokens that an item takes, about
        forward = (
            step_seconds / c.total_batch / 3
        )  # seconds per token; a training step costs three forward passes
        return (self.max_steps - self.step) * step_seconds + judgements * n * forward

    def loop(self, stop: Stop, plot: LivePlot | None) -> dict | None:
        "Take the steps that are left, and do on the clock what is due; then finish."
        c, watch, recent, busy = self.config, SpikeWatch(self.config.max_spike), [], 0.0
        off = not (sys.stderr.isatty() and self.ranks.is_main)
        with tqdm(total=self.max_steps, initial=self.step, unit="step", disable=off) as bar:
            begin, first, rate, steady = time.perf_counter(), self.step, 0.0, []
            if self.step and self.judged < self.step and self.step % c.eval_every == 0:
                self.judge()  # a signal had ended the run before it was done
            while self.step < self.max_steps:
                before, t0 = self.position, time.perf_counter()
                with stop.held():
                    loss, norm = self.train_step(stop)
                busy += (took := time.perf_counter() - t0)
                recent.append(loss)
                if (
                    self.step > first + 1 and steady is not None
                ):  # the first step chooses kernels, or compiles
                    steady.append(took)
                    if len(steady) == 6 or sum(steady) > 20:
                        wait = duration(self.wait_ahead(sorted(steady)[len(steady) // 2]))
                        self.say(f"time: about {wait} on this machine ({self.machine})")
                        steady = None  # said once
                if (at := watch.sees(loss, before)) is not None:
                    raise ValueError(f"the loss is {loss:.3f} at step {self.step}, {c.max_spike} nats above its recent mean since "
                                     f"window {at}; the last checkpoint is whole; try a lower --lr, or --max_spike 0 to go on")  # fmt: skip
                bar.update()
                if self.step == 1:
                    self.say(
                        f"step 1/{self.max_steps} train {loss:.3f} (ln V, knowing nothing: {math.log(self.model.config.vocab_size):.3f})"
                    )
                last, rate = (
                    self.step == self.max_steps,
                    len(recent) * c.total_batch / busy,
                )  # tokens/s
                if self.step % 10 == 0 or last:
                    values = {
                        "loss": sum(recent) / len(recent),
                        "norm": norm,
                        "lr": self.optimizers[-1].param_groups[0]["lr"],
                    }
                    values |= {"tokens_per_s": rate, "mfu": mfu(rate, self.flops, self.peak)}
                    if self.ranks.is_main:
                        self.log.write("train", step=self.step, **values)
                        self.tell(self.step, {f"train/{k}": v for k, v in values.items()})
                    bar.set_postfix_str(f"loss {loss:.3f}, {rate:,.0f} tokens/s", refresh=False)
                    recent, busy = [], 0.0
                if self.ends:
                    return None
                if self.step % c.eval_every == 0 or last:
                    found = self.judge()
                    more = "".join(
                        f" {k} {found[k]:.3f}" for k in ("story_choice", "hellaswag") if k in found
                    )
                    left = (
                        (self.max_steps - self.step)
                        * (time.perf_counter() - begin)
                        / (self.step - first)
                    )
                    self.say(
                        f"step {self.step}/{self.max_steps} train {loss:.3f} val {self.val_loss:.3f}{more} tokens/s {rate:,.0f} left {duration(left)}"
                    )
                if self.step % c.sample_every == 0 and not last and self.ranks.is_main:
                    self.say(f"step {self.step} sample: {self.samples(1)[0]}")
                if self.step % c.save_every == 0 or last:
                    with stop.held():  # a thread that is about to start must not be lost
                        self.save(wait=last)
                    if stop.caught and not stop.waits:
                        raise Stopped(stop.caught)
                if plot:
                    plot.update(last)
        return self.finish()

    def finish(self) -> dict:  # the last event
        "Judge the trained model and write it down."
        if self.judged != self.step or not math.isfinite(self.val_loss):
            self.judge()
        self.saved()
        done = {
            "val_loss": self.val_loss,
            "seconds": round(self.elapsed(), 1),
            "tokens": self.step * self.config.total_batch,
        }
        if not self.ranks.is_main:
            return done
        val = self.val_shards[: min(self.config.val_tokens, len(self.val_shards) - 1) + 1]
        done |= bigram_and_floor(self.train_shards, val, self.tokenizer, self.is_stories)
        last = next((e for e in reversed(self.log.read()) if e["event"] == "val"), {})
        done |= {
            k: last.get(k)
            for k in ("story_choice", "story_choice_error", "hellaswag", "hellaswag_error")
        }
        plot_loss(self.log, self.folder / "loss.png", done["floor"], done["bigram"])
        samples = self.samples()
        self.log.write("done", **done)
        return done | {"samples": samples}
