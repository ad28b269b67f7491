"""Text in, a trained model out: a loop with a clock, a log, and a run that survives a kill."""

# Made by tools/book.py from ../../book/tough/ch19_trainer.md: edit that, then `make book`.

# %% auto #0
__all__ = ['Pace', 'Trainer']

# %% ../../nbs/tough/ch19_trainer.ipynb #e294c16c
import json
import math
import os
import sys
import time
import weakref
from collections.abc import Callable
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from gpt2edu.data.cache import one_writer
from gpt2edu.data.loader import Ahead
from gpt2edu.data.packing import Batch
from gpt2edu.machine.atomic import write_atomically
from gpt2edu.machine.signals import undisturbed
from gpt2edu.text.chat import answer_text
from gpt2edu.text.tokenizer import CHAT
from gpt2edu.evaluate.answers import replies
from gpt2edu.evaluate.tasks import TASKS, Subject, is_stories
from gpt2edu.evaluate.validation import bigram_and_floor, validation_loss
from gpt2edu.machine import device
from gpt2edu.machine import distributed as dist
from gpt2edu.machine.distributed import Ranks
from gpt2edu.machine.progress import duration
from gpt2edu.model.generate import complete
from gpt2edu.model.lora import save_adapter
from gpt2edu.train import checkpoint, setup
from gpt2edu.train.config import NEWER, SAMPLE_TOKENS, TrainConfig, mfu
from gpt2edu.train.interrupts import SpikeWatch, Stop, Stopped, explain, stop_signals
from gpt2edu.train.log import LivePlot, RunLog, open_tracker, plot_loss
from gpt2edu.train.optim import load_states, lr_at, set_lr, whole_tensor
from gpt2edu.train.profile import Profiler
from gpt2edu.train.runs import RunState, check_state, typed
from gpt2edu.train.start import adapter_fits, own_tokenizer

# %% ../../nbs/tough/ch19_trainer.ipynb #83987c51
class Pace:
    "The speed of a run, and its mean loss since the last line of the log."

    def __init__(self, step: int):  # the step that the run has reached
        self.first, self.begin = step, time.perf_counter()
        self.losses = []  # since the last line, nats/token
        self.busy = 0.0  # seconds of training since the last line
        self.early = []  # seconds of the first steps; None after `usual_step` gave them

    def add(self, step: int, loss: float, seconds: float):
        "Add a step."
        self.losses.append(loss)
        self.busy += seconds
        if self.early is not None and step > self.first + 1:  # the first one chooses kernels
            self.early.append(seconds)

    def usual_step(self) -> float | None:  # seconds; once, after six steps or 20 seconds
        "Return the median of the early steps as soon as it is known."
        early = self.early or []
        if len(early) < 6 and sum(early) <= 20:
            return None
        self.early = None
        return sorted(early)[len(early) // 2]

    def steps_per_second(self) -> float:  # since the last line
        return len(self.losses) / self.busy

    def left(self, step: int, max_steps: int) -> float:  # seconds, validations and saves included
        return (max_steps - step) * (time.perf_counter() - self.begin) / (step - self.first)

    def mean_loss(self) -> float:
        "Return the mean loss since the last line, and start a new mean."
        mean = sum(self.losses) / len(self.losses)
        self.losses, self.busy = [], 0.0
        return mean

# %% ../../nbs/tough/ch19_trainer.ipynb #54d649a3
class Trainer:
    """One training run: `Trainer(config, folder).run()`.

    Under torchrun each process makes one, with its `ranks`.
    """

    def __init__(
        self,
        config: TrainConfig,
        folder: Path,  # of the run; made if it is missing, refused if it holds another run
        resume: bool = False,  # from the latest checkpoint in the folder
        say: Callable = lambda line: None,  # gets each line that rank 0 has to say
        ranks: Ranks = Ranks(),  # noqa: B008  from `dist.start`; frozen
    ):
        self.start = time.perf_counter()
        self.config = own_tokenizer(config)
        self.folder = Path(folder)
        self.ranks = ranks
        self.close = lambda: None  # gives the folder back; see `claim`
        self.say = say if ranks.is_main else lambda line: None
        try:
            self.build(resume)
        except BaseException:
            if self.locked():  # remove the folder if nothing was written there
                with suppress(OSError):
                    self.folder.rmdir()
            self.close()
            raise

    def locked(self) -> bool:
        "Whether this Trainer has the lock of the folder."
        return getattr(self.close, "alive", False)

    def claim(self):
        "Take the lock of the folder. ValueError, one line, if another Trainer has it."
        lock = ExitStack()
        who = f"Trainer in {os.getpid()}"
        options = {"flag": "--name", "root": "--out_dir", "who": who}
        undisturbed(lock.enter_context, one_writer(self.folder, **options))
        self.close = weakref.finalize(self, lock.close)  # called at the end of its life as well

    def build(self, resume: bool):
        "Build the parts; with `resume`, load the latest checkpoint."
        config, ranks = self.config, self.ranks
        self.parts = parts = setup.build(config, self.folder, ranks, self.say, resume, self.claim)
        self.B, self.n_micro = parts.B, parts.n_micro
        self.device, self.dtype = parts.machine.device, parts.machine.dtype
        self.scaler = parts.machine.scaler
        self.tokenizer = parts.data.tokenizer
        self.train_shards, self.val_shards = parts.data.train, parts.data.val
        self.max_steps = parts.max_steps
        self.model, self.compiled, self.forward = parts.model, parts.compiled, parts.forward
        self.optimizers = parts.optimizers
        self.loader = parts.loader
        self.log = RunLog(self.folder / "log.jsonl")
        self.saver = checkpoint.AsyncSaver()
        self.fixed = setup.fixed_choices(config, parts.data)
        self.last_share = config.min_lr / config.lr if config.lr else 0.0  # of the peak rates
        self.step = self.position = 0  # steps taken; windows that they have consumed
        self.seconds = 0.0  # of the run before this process
        self.next = None  # a micro-batch that was read ahead
        self.ends = False  # whether a rank has caught a signal
        here = config.profile and ranks.is_main
        where = self.folder / "profile", self.device, self.say
        self.profiler = Profiler(config.profile, *where) if here else None
        self.val_loss = math.nan  # the last one
        self.best = math.inf  # the lowest
        self.judged = 0  # the step of the last
        if resume:
            self.restore()
        self.tell = self.untell = None  # of the tracker
        dist.from_rank0(ranks, self.open)
        for line in setup.describe_parts(parts, config, ranks):
            self.say(line)

    def open(self):
        "Write config, tokenizer and the log's first line; from here on there is a run."
        config = asdict(self.config)
        self.tell, self.untell = open_tracker(self.config.tracker, self.folder, config)
        self.tokenizer.save(self.folder)
        write_atomically(self.folder / "config.json", json.dumps(config, indent=1).encode())
        self.log.write(
            "start",
            step=self.step,
            max_steps=self.max_steps,
            hardware=setup.describe_machine(self.parts.machine, self.ranks),
            dtype=str(self.dtype),
            peak_tflops=self.parts.peak / 1e12,
            peak_from=self.parts.peak_from,
            measured_tflops=self.parts.measured / 1e12,
            config=config,
            train_tokens=len(self.train_shards),
            data=str(self.parts.data.folder),
        )

    def state(self) -> dict:  # a `RunState`
        "Gather what a resumed run needs beside weights and optimisers."
        return {
            "step": self.step,
            "position": self.position,
            "seconds": self.elapsed(),
            "config": self.fixed,
            "data": setup.data_facts(self.parts.data),
            "val_loss": self.val_loss,
            "best": self.best,
            "judged": self.judged,
            "rng": checkpoint.rng_state(),
            "scaler": self.scaler.state_dict(),
            "threads": torch.get_num_threads(),
            "ranks": self.ranks.world_size,
        }

    def save(self, wait: bool = True):
        "Write a checkpoint, whole or not at all; without waiting, a thread writes beside training."
        split = self.parts.split
        if not (split or self.ranks.is_main):
            return
        weights = self.model.state_dict(keep_vars=split)
        tensors = [weights, [o.state_dict() for o in self.optimizers]]
        if split:  # every rank gives its part
            tensors = checkpoint.gathered(tensors, self.ranks.is_main)
        if not self.ranks.is_main:
            return
        self.saved()
        state = self.state()
        self.saver.save(self.folder / "checkpoints", *tensors, state, self.config.keep_last)
        if wait:
            self.saved()

    def saved(self):
        "Wait until the last checkpoint is on the disk, and log it."
        if path := self.saver.wait():
            self.log.write("save", step=int(path.name.removeprefix("step_")), path=str(path))

    def restore(self):
        "Load the latest checkpoint, or start at step 0 without one."
        # what the data decide is compared by `check_data`: a tokenizer by its hash, not its place
        later = ("data", "tokenizer", "tokenizer_hash", *NEWER)
        choices = {k: v for k, v in self.fixed.items() if k not in later}
        place = self.folder / "checkpoints"
        found = checkpoint.load_latest(place, config=choices, kind=RunState)
        if found is None:
            return self.say("resume: no checkpoint yet, so this starts at step 0")
        path, saved = found
        dist.from_rank0(self.ranks, lambda: setup.check_data(path, saved.state, self.parts.data))
        older = {"best": math.inf, "judged": saved.state["step"]}  # older checkpoints have neither
        s = older | saved.state
        check_state(path, s)
        self.check_saved(path, s)
        setup.check_newer(path, s, self.fixed)
        checkpoint.load_weights(self.model, saved.model, path / checkpoint.MODEL)
        new = s["step"] == 0 or bool(s["scaler"])  # fp16 passes over some steps
        checkpoint.check_optim(self.optimizers, saved.optim, path / checkpoint.OPTIM, new)
        load_states(self.optimizers, saved.optim)
        self.scaler.load_state_dict(s["scaler"] or self.scaler.state_dict())
        try:
            checkpoint.set_rng_state(s["rng"])
        except ValueError as e:
            fix = "use an earlier checkpoint"
            raise ValueError(f"{path / checkpoint.STATE}: state.{e}; {fix}") from None
        self.step, self.position, self.seconds = s["step"], s["position"], s["seconds"]
        self.val_loss, self.best, self.judged = s["val_loss"], s["best"], s["judged"]
        self.loader.position = self.position
        self.say(f"resume: {path}, step {self.step}")
        now = {"threads": torch.get_num_threads(), "ranks": self.ranks.world_size}
        for name, n in now.items():
            if (was := s.get(name, 1)) != n:
                change = f"the number of {name} was {was}, is now {n}"
                self.say(f"resume: {change}; the last bits may differ")

    def check_saved(self, path: Path, state: dict):
        "Refuse a state that does not belong to this run; for a subclass. ValueError, one line."

    def elapsed(self) -> float:  # seconds, those before a resume included
        return self.seconds + time.perf_counter() - self.start

    def batch(self) -> Batch:  # on the device
        "Take the next micro-batch; a GPU copies it while it computes."
        tensors = self.loader.next_batch()
        return Batch(*(t.to(self.device, non_blocking=True) for t in tensors))

    def part(self, name: str):  # a context manager
        "Mark a part of a step for a profile."
        return self.profiler.part(name) if self.profiler else nullcontext()

    def accumulate(self) -> Tensor:  # () mean loss of this rank's micro-batches, nats/token
        "Add up the gradients of the micro-batches."
        loss = torch.zeros((), device=self.device)
        for i in range(self.n_micro):
            x, y, positions, mask, share = self.next or self.batch()
            rows = {} if mask is None else {"positions": positions, "mask": mask}
            with dist.sync_if(self.forward, i == self.n_micro - 1):
                cast = device.autocast(self.device, self.dtype, cache=not self.config.recompute)
                with self.part("forward"), cast:
                    part = self.forward(x, y, **rows)[1]
                # DDP takes the mean over the ranks, so each multiplies its share by their number
                many = self.ranks.world_size
                part = part / self.n_micro if share is None else part * (share * many)
                with self.part("backward"):
                    self.scaler.scale(part).backward()
            loss += part.detach()
            with self.part("data"):
                self.next = self.batch()  # the GPU is still at work
        return loss

    def train_step(
        self, stop: Stop | None = None
    ) -> tuple[float, float]:  # loss, norm of the gradient before clipping
        """Take one step of the optimisers.

        The loss is in nats/token, over all ranks, which also agree whether one caught a signal.
        """
        self.set_rates()
        loss, norm = self.descend(stop)
        self.step += 1
        self.position += self.config.total_batch // self.config.block_size  # windows
        return loss, norm

    def set_rates(self):
        "Give the optimisers the learning rates of this step."
        warmup = self.config.warmup_steps
        share = lr_at(self.step, 1.0, self.last_share, warmup, self.max_steps)
        set_lr(self.optimizers, share)

    def descend(self, stop: Stop | None) -> tuple[float, float]:  # as for `train_step`
        "Compute the gradient and move the weights along it, once."
        c = self.config
        loss = self.accumulate()
        signalled = loss.new_tensor(float(bool(stop and stop.caught)))
        seen = dist.mean_over_ranks(torch.stack([loss, signalled]))
        with self.part("optimizer"):
            for o in self.optimizers:
                self.scaler.unscale_(o)
            norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), c.grad_clip)
            norm = float(whole_tensor(norm))
        loss, signalled = seen.tolist()
        self.ends = signalled > 0
        self.check_finite("loss", loss)
        if not self.scaler.is_enabled():  # a scaler passes over such a step
            self.check_finite("norm of the gradient", norm)
        with self.part("optimizer"):
            self.update(math.isfinite(norm))
        return loss, norm

    def update(self, finite: bool):
        "Move the weights, forget the gradients. Under fp16 all optimisers take the step, or none."
        for o in self.optimizers:
            if finite:
                self.scaler.step(o)
            # DDP keeps them in its buckets
            o.zero_grad(set_to_none=self.ranks.world_size == 1 or self.parts.split)
        self.scaler.update()

    def check_finite(self, name: str, value: float):
        "Stop a run that has diverged, before it is saved."
        if not math.isfinite(value):
            end = self.position + self.config.total_batch // self.config.block_size
            raise ValueError(
                f"{name} is {value} at step {self.step} (windows {self.position} to {end}); "
                "the last checkpoint is from before; "
                "resume with a lower --lr or with --dtype fp32"
            )

    def judge(self) -> dict:
        "Validate, and ask the questions that apply; every rank takes part."
        c = self.config
        where = {"device": self.device, "dtype": self.dtype, "ranks": self.ranks}
        sizes = (c.val_tokens, c.block_size, self.B, c.val_overlap)
        subject = Subject(self.model, self.tokenizer, *where.values(), self.B)
        with dist.whole(self.model):  # a rank may have a batch more than another
            self.val_loss = validation_loss(self.compiled, self.val_shards, *sizes, **where)
            self.check_finite("validation loss", self.val_loss)
            self.best, self.judged = min(self.best, self.val_loss), self.step
            found = {"loss": self.val_loss, "best": self.best}
            with self.eager():
                for task, items in self.parts.data.questions.items():
                    found |= task.logged(subject, items)
        if self.ranks.is_main:
            self.log.write("val", step=self.step, seconds=self.elapsed(), **found)
            self.tell(self.step, {f"val/{k}": v for k, v in found.items()})
        return found

    def eager(self):  # a context manager
        "Run the blocks of a split model uncompiled: questions and samples have many shapes."
        compiled = self.parts.split and self.parts.machine.compiled.value
        return torch.compiler.set_stance("force_eager") if compiled else nullcontext()

    def samples(self, n: int, max_tokens: int) -> list[str]:
        "Write n texts from the same seed each time, with a generator that training does not use."
        generator = torch.Generator().manual_seed(self.config.seed)
        options = {"num_seq": n, "temperature": 0.8, "generator": generator}
        if asked := self.parts.data.samples[:n]:
            said = replies(self.model, self.tokenizer, asked, max_tokens)  # on this rank
            said = [answer_text(self.tokenizer, ids) for ids in said]
            texts = [f"{q.prompt}\n{a}" for q, a in zip(asked, said, strict=True)]
        else:
            texts = complete(self.model, self.tokenizer, "", max_tokens, **options)
        self.log.write("sample", step=self.step, texts=texts)
        return texts

    def run(
        self, stop: Stop | None = None, live: bool = False
    ) -> dict | None:  # the last event, "done"; None if stopped
        "Train to the horizon, then judge. With `live`, a notebook shows the curve meanwhile."
        plot = LivePlot(self.log) if live and self.ranks.is_main else None
        many = self.ranks.world_size > 1
        if self.ranks.is_main and not self.locked():  # it has run before
            self.claim()
        with ExitStack() as ends:  # in reverse order, each whatever became of the others
            ends.callback(self.close)
            ends.callback(self.untell or (lambda: None))
            ends.push(self.last_save)
            if self.profiler:
                ends.callback(self.profiler.close)
            if isinstance(self.loader, Ahead):
                ends.callback(self.loader.close)
            with nullcontext(stop) if stop else stop_signals() as stop:
                try:
                    # ranks stop together, after a step
                    with stop.held() if many else nullcontext():
                        done = self.loop(stop, plot)
                except Stopped:  # while the model was judged or wrote samples
                    done = None
                except Exception as e:
                    if not (stop.raised or isinstance(e, RuntimeError)):
                        raise
                    used = replace(self.config, micro_batch=self.B)
                    # a library may have made another error of Stopped
                    done = None if stop.raised else explain(e, stop, used, self.ranks, self.step)
                if done is None:
                    stop.raised = False  # an error while it is saved is its own
                    self.end_early(stop)
                return done

    def last_save(self, kind: type | None, error: BaseException | None, trace):
        "Wait for the save under way; that it failed must not hide why the run did."
        try:
            self.saver.wait()
        except Exception as e:
            if error is None:
                raise
            self.say(f"the last save failed too: {e}")

    def end_early(self, stop: Stop):
        "Save, and say how to resume."
        with stop.held():
            self.save()
        if self.ranks.is_main:
            self.log.write("stopped", step=self.step, signal=stop.caught)
        why = stop.caught or "a signal to another rank"
        how = f"go on with --resume {typed(self.folder)}"
        self.say(f"{why}: saved step {self.step} of {self.max_steps}; {how}")

    def wait_ahead(self, step_seconds: float) -> float:  # seconds
        "Estimate the time to the end from that of a step: steps that are left, and validations."
        c, total = self.config, self.max_steps
        judgements = total // c.eval_every - self.step // c.eval_every
        judgements += total % c.eval_every > 0
        n = min(c.val_tokens, len(self.val_shards)) / (1 - c.val_overlap)  # tokens of a validation
        n += sum(task.tokens * len(items) for task, items in self.parts.data.questions.items())
        # of a token; a training step costs three of it, or four if blocks are computed twice
        forward = step_seconds / c.total_batch / (3 + c.recompute)
        return (total - self.step) * step_seconds + judgements * n * forward

    def loop(self, stop: Stop, plot: LivePlot | None) -> dict | None:
        "Take the steps that are left, and do on the clock what is due; then finish."
        c = self.config
        watch = SpikeWatch(c.max_spike)
        pace = Pace(self.step)
        off = not (sys.stderr.isatty() and self.ranks.is_main)
        with tqdm(total=self.max_steps, initial=self.step, unit="step", disable=off) as bar:
            if self.step and self.judged < self.step and self.step % c.eval_every == 0:
                self.judge()  # a signal had ended the run before it was done
            while self.step < self.max_steps:
                before, began = self.position, time.perf_counter()
                with stop.held():
                    loss, norm = self.train_step(stop)
                    if self.profiler:
                        self.profiler.step()
                pace.add(self.step, loss, time.perf_counter() - began)
                self.look(loss, watch.sees(loss, before), pace)
                bar.update()
                last, rate = self.step == self.max_steps, pace.steps_per_second() * c.total_batch
                if self.step % 10 == 0 or last:
                    bar.set_postfix_str(f"loss {loss:.3f}, {rate:,.0f} tokens/s", refresh=False)
                    self.write_line(pace.mean_loss(), norm, rate)
                if self.ends:
                    return None
                if self.step % c.eval_every == 0 or last:
                    self.say(self.progress(loss, self.judge(), rate, pace))
                if self.step % c.sample_every == 0 and not last:
                    with dist.whole(self.model), self.eager():
                        self.show_sample()
                if self.step % c.save_every == 0 or last:
                    with stop.held():  # a thread that is about to start must not be lost
                        self.save(wait=last)
                    if stop.caught and not stop.waits:
                        raise Stopped(stop.caught)
                if plot:
                    plot.update(last)
        return self.finish()

    def show_sample(self):
        "Write a short sample on rank 0."
        if self.ranks.is_main:
            self.say(f"step {self.step} sample: {self.samples(1, SAMPLE_TOKENS)[0]}")

    def look(self, loss: float, spike: int | None, pace: Pace):
        "Say the time that the run takes and the first loss; stop at a loss that stays high."
        if seconds := pace.usual_step():
            name = setup.describe_machine(self.parts.machine, self.ranks).rpartition(", torch ")[0]
            precision = {torch.float32: "fp32", torch.bfloat16: "bf16"}.get(self.dtype, "fp16")
            wait = duration(self.wait_ahead(seconds))
            self.say(f"time: about {wait} on this machine ({name}, {precision})")
        if spike is not None:
            above = f"{self.config.max_spike} nats above its recent mean since window {spike}"
            raise ValueError(
                f"the loss is {loss:.3f} at step {self.step}, {above}; the last checkpoint is "
                "whole; try a lower --lr, or --max_spike 0 to go on"
            )
        if self.step == 1:
            self.say(self.first_line(loss))

    def first_line(self, loss: float) -> str:
        "Put the first loss into a line."
        ln_v = f"ln V, knowing nothing: {math.log(self.model.config.vocab_size):.3f}"
        return f"step 1/{self.max_steps} train {loss:.3f} ({ln_v})"

    def write_line(self, loss: float, norm: float, rate: float):  # rate: tokens/s
        "Write a line of the log, and tell the tracker."
        if self.ranks.is_main:
            values = {"loss": loss, "norm": norm, "lr": self.optimizers[-1].param_groups[0]["lr"]}
            values |= {"tokens_per_s": rate, "mfu": mfu(rate, self.parts.flops, self.parts.peak)}
            self.log.write("train", step=self.step, **values)
            self.tell(self.step, {f"train/{k}": v for k, v in values.items()})

    def progress(self, loss: float, found: dict, rate: float, pace: Pace) -> str:
        "Put what a validation found into a line."
        figures = [task.figure for task in TASKS.values() if task.figure in found]
        more = "".join(f" {k} {found[k]:.3f}" for k in reversed(figures))
        left = duration(pace.left(self.step, self.max_steps))
        losses = f"train {loss:.3f} val {self.val_loss:.3f}{more}"
        return f"step {self.step}/{self.max_steps} {losses} tokens/s {rate:,.0f} left {left}"

    def finish(self) -> dict:  # the last event
        "Judge the trained model and write it down."
        if self.judged != self.step or not math.isfinite(self.val_loss):
            self.judge()
        self.saved()
        tokens = self.step * self.config.total_batch
        done = {"val_loss": self.val_loss, "seconds": round(self.elapsed(), 1), "tokens": tokens}
        with dist.whole(self.model), self.eager():
            return self.write_end(done) if self.ranks.is_main else done

    def write_end(self, done: dict) -> dict:  # the last event
        "Compare with what can be reached, and write down how the run ended."
        done |= {"bigram": None, "floor": None}
        if not self.config.questions:
            val = self.val_shards[: min(self.config.val_tokens, len(self.val_shards) - 1) + 1]
            known = is_stories(self.config)
            done |= bigram_and_floor(self.train_shards, val, self.tokenizer, known)
        last = next((e for e in reversed(self.log.read()) if e["event"] == "val"), {})
        for task in reversed(TASKS.values()):
            done |= {k: last.get(k) for k in (task.figure, f"{task.figure}_error")}
        plot_loss(self.log, self.folder / "loss.png", done["floor"], done["bigram"])
        samples = self.samples(3, self.config.block_size)
        self.keep_adapter()
        self.log.write("done", **done)
        return done | {"samples": samples}

    def keep_adapter(self):
        "Write the adapter, if that is what was trained, into a folder of its own."
        c, tokenizer = self.config, self.tokenizer
        if not c.lora_rank:
            return
        if not adapter_fits(c, tokenizer):
            why = "other tokens or another context than the model that it began with"
            self.say(f"adapter: not written: the run has {why}; use the run, {typed(self.folder)}")
            return
        n = tokenizer.n_vocab
        old = min(tokenizer.special.get(token, n) for token in CHAT)  # ids of the base model
        where = save_adapter(self.model, self.folder / "adapter", c.init_from, n, old)
        if c.questions:  # its tokenizer has four ids more
            tokenizer.save(where)
        self.say(f"adapter: {where}")
