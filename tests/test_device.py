"""Device, precision and compilation: decided from facts, with the reason said.

No GPU is needed, and none was used.
"""

import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from gpt2edu.machine import device as dv
from gpt2edu.train.log import RunLog

BF16, FP16, FP32 = torch.bfloat16, torch.float16, torch.float32
AMX, AVX = "amx_bf16", "avx512_bf16"

DTYPES = [  # kind, compute capability, CPU flags, precision, words of the reason
    ("cuda", (6, 0), [], FP32, "6.0 has no tensor cores"),  # P100
    ("cuda", (6, 1), [], FP32, "6.1 has no tensor cores"),  # GTX 1080
    ("cuda", (7, 0), [], FP16, "7.0 only emulates bf16"),  # V100
    ("cuda", (7, 5), [], FP16, "7.5 only emulates bf16, slowly; fp16 with loss scaling"),  # T4
    ("cuda", (8, 0), [], BF16, "8.0 multiplies bf16 in hardware"),  # A100
    ("cuda", (8, 9), [], BF16, "8.9"),  # RTX 4090
    ("cuda", (9, 0), [], BF16, "9.0"),  # H100
    ("cuda", (10, 0), [], BF16, "10.0"),  # B200: ten is more than eight
    ("cpu", None, [], FP32, "neither amx_bf16 nor avx512_bf16"),
    ("cpu", None, [AVX], BF16, AVX),
    ("cpu", None, [AMX], BF16, AMX),
    ("cpu", None, [AVX, AMX], BF16, AMX),
    ("mps", None, [], FP32, "not been tried"),
]


@pytest.mark.parametrize("kind,capability,flags,dtype,words", DTYPES)
def test_best_dtype(kind, capability, flags, dtype, words):
    choice = dv.best_dtype(kind, capability, frozenset(flags))
    assert choice.value == dtype and words in choice.reason and "\n" not in choice.reason


COMPILE = [  # kind, capability, what is missing, on, words
    ("cuda", (8, 0), "", True, "8.0"),
    ("cuda", (7, 5), "", True, "7.5"),
    ("cuda", (6, 1), "", False, "too old for triton"),
    ("cuda", (8, 0), "no triton", False, "no triton; everything works without"),
    ("cpu", None, "", False, "gains little"),
    ("cpu", None, "no C++ compiler (g++)", False, "no C++ compiler (g++)"),
    ("mps", None, "", False, "not been tried"),
]


@pytest.mark.parametrize("kind,capability,missing,on,words", COMPILE)
def test_best_compile(kind, capability, missing, on, words):
    choice = dv.best_compile(kind, capability, missing)
    assert choice.value is on and words in choice.reason


def fake_gpu(monkeypatch, capability):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)


def test_a_t4_gets_fp16_with_a_scaler_and_no_tf32(monkeypatch):
    fake_gpu(monkeypatch, (7, 5))
    device = dv.pick_device("auto").value
    assert device.type == "cuda"
    choice = dv.pick_dtype("auto", device)
    assert choice.value == FP16 and "emulates bf16" in choice.reason
    # given when asked for, with the warning
    assert "emulates bf16" in dv.pick_dtype("bf16", "cuda").reason
    assert dv.set_precision(device).value == "highest"
    monkeypatch.undo()
    assert (
        dv.grad_scaler("cpu", choice.value).is_enabled()
        and not dv.grad_scaler("cpu", BF16).is_enabled()
    )


def test_tf32_is_set_where_it_exists(monkeypatch):
    fake_gpu(monkeypatch, (8, 0))
    try:
        assert dv.set_precision("cuda").value == "high" == torch.get_float32_matmul_precision()
    finally:
        assert dv.set_precision("cpu").value == "highest" == torch.get_float32_matmul_precision()


def test_what_is_asked_for_is_given():
    assert dv.pick_device("cpu") == dv.Choice(torch.device("cpu"), "asked for")
    assert dv.pick_dtype("fp32", "cpu") == dv.Choice(FP32, "asked for")
    fp16 = dv.pick_dtype("fp16", torch.device("cpu"))
    assert fp16.value == FP16 and "auto takes" in fp16.reason
    assert dv.pick_compile("off", "cpu") == dv.Choice(False, "asked for")
    assert str(dv.Choice(BF16, "because")) == "bfloat16: because"


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_device_that_is_not_there_is_one_line():
    with pytest.raises(ValueError, match=r"device=cuda: PyTorch .* here; use auto or cpu") as e:
        dv.pick_device("cuda")
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    "pick,message",
    [
        (lambda: dv.pick_device("gpu"), "device='gpu' is not known; use auto, cpu, cuda or mps"),
        (
            lambda: dv.pick_device("cuda:7"),
            "device='cuda:7' is not known; use auto, cpu, cuda or mps; "
            "for that GPU: CUDA_VISIBLE_DEVICES=7",
        ),
        (
            lambda: dv.pick_dtype("float16", "cpu"),
            "dtype='float16' is not known; use auto, bf16, fp16 or fp32",
        ),
        (lambda: dv.pick_compile("yes", "cpu"), "compile='yes' is not known; use auto, on or off"),
    ],
)
def test_unknown_values_name_the_options(pick, message):
    with pytest.raises(ValueError) as e:
        pick()
    assert str(e.value) == message


@pytest.mark.parametrize(
    "compiler,words", [("/nonexistent/g++", "no C++ compiler"), ("false", "does not work")]
)
def test_without_a_working_compiler_auto_is_off_and_on_is_refused(monkeypatch, compiler, words):
    monkeypatch.setenv("CXX", compiler)
    assert words in dv.compiler_error()
    choice = dv.pick_compile("auto", "cpu")
    assert choice.value is False and words in choice.reason
    with pytest.raises(
        ValueError, match=r"compile=on cannot work: .*; install it, or use compile=off"
    ):
        dv.pick_compile("on", "cpu")


NO_OPENMP = {  # what the compilers say
    "clang of Apple": "clang: error: unsupported option '-fopenmp'",  # pytorch issue 93196
    "clang of Debian without libomp-dev": "<stdin>:1:10: fatal error: 'omp.h' file not found",
    "clang of Debian, at the end": "/usr/bin/ld: cannot find -lomp: No such file or directory",
}


@pytest.mark.skipif(
    sys.platform in ("win32", "darwin"), reason="OpenMP is looked for by PyTorch there"
)
@pytest.mark.parametrize("words", NO_OPENMP.values(), ids=NO_OPENMP.keys())
def test_a_compiler_without_openmp_is_named(monkeypatch, tmp_path, words):
    "Defect: it was said of such a clang++ that it does not work."
    if dv.compiler_error():
        pytest.skip("no working C++ compiler on this machine")
    clang = tmp_path / "clang++"
    compiler = os.environ.get("CXX", "g++")
    clang.write_text(
        f"""#!/bin/sh
case " $* " in *" -fopenmp "*) echo "{words}" >&2; exit 1;; esac
exec {compiler} "$@"
""",
        encoding="utf-8",
    )
    clang.chmod(0o755)
    monkeypatch.setenv("CXX", str(clang))
    found = f"{clang} has no OpenMP (package libomp-dev for clang, libgomp1 for gcc)"
    assert dv.compiler_error() == found
    assert dv.pick_compile("auto", "cpu") == dv.Choice(
        False, f"{found}; everything works without, more slowly"
    )
    with pytest.raises(ValueError) as e:
        dv.pick_compile("on", "cpu")
    assert str(e.value) == f"compile=on cannot work: {found}; install it, or use compile=off"


def test_missing_python_headers_are_named(monkeypatch, tmp_path):
    if dv.compiler_error():
        pytest.skip("no working C++ compiler on this machine")
    monkeypatch.setattr(dv.sysconfig, "get_path", lambda name: str(tmp_path))
    assert "python3-dev" in dv.compiler_error()


def test_importing_reads_no_environment_and_starts_nothing():
    code = "import os, platform, sys, sysconfig, tempfile, torch, importlib.util, gpt2edu\n"
    code += "class Spy(dict):\n    def get(self, k, d=None): sys.exit(f'read {k}')\n"
    code += "    __getitem__ = get\n"
    code += "os.environ = Spy()\nbefore = torch.get_float32_matmul_precision()\n"
    code += "import gpt2edu.machine.device\n"
    code += "assert torch.get_float32_matmul_precision() == before\n"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=os.getcwd()
    )
    assert done.returncode == 0, done.stderr


def test_autocast_multiplies_in_bf16_and_keeps_weights_and_loss_in_fp32():
    x, w, y = torch.randn(4, 8), torch.randn(8, 8, requires_grad=True), torch.arange(4)
    with dv.autocast("cpu", BF16):
        logits = x @ w
        loss = F.cross_entropy(logits, y)
    loss.backward()
    assert (logits.dtype, loss.dtype, w.dtype, w.grad.dtype) == (BF16, FP32, FP32, FP32)
    with dv.autocast("cpu", FP32):
        assert (x @ w).dtype == FP32


def test_the_scaler_saves_a_gradient_that_fp16_loses():
    def grad(scaler):
        w = torch.tensor(1.0, requires_grad=True)
        # d loss / d w = 1e-8; the smallest fp16 number is 6e-8
        loss = (w.half() * 1e-5).float() * 1e-3
        scaler.scale(loss).backward()
        scaler.unscale_(torch.optim.SGD([w]))
        return w.grad.item()

    assert grad(dv.grad_scaler("cpu", FP32)) == 0.0
    # 1e-5 is subnormal: 168 steps, so 0.3 %
    assert grad(dv.grad_scaler("cpu", FP16)) == pytest.approx(1e-8, rel=0.02)


def test_describe_names_the_hardware():
    text = dv.describe("cpu")
    assert torch.__version__ in text and "thread" in text and "\n" not in text


def test_cpu_flags_agree_with_the_kernel():
    try:
        words = open("/proc/cpuinfo", encoding="utf-8").read().split()
    except FileNotFoundError:
        pytest.skip("no /proc/cpuinfo")
    if "flags" not in words:
        pytest.skip("not an x86 processor")
    # else PyTorch was told to do without, or has to
    avx512 = torch.backends.cpu.get_cpu_capability() == "AVX512"
    assert dv.cpu_flags() == {f for f in dv.BF16_FLAGS if f in words and avx512}


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's own")
def test_kept_memory_is_used_again():
    """Memory from the system costs page faults, kept memory none.

    Eight tensors of 4 MiB cost 8,192.
    """
    code = (
        "import resource, sys, torch, gpt2edu.machine.device as d\n"
        "kept = sys.argv[1] == 'kept'\n"
        "assert not kept or d.keep_freed_memory()\n"
        "x, faults = torch.zeros(1 << 20), []\n"
        "for _ in range(20):\n"
        "    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)\n"
        "    [x + 1 for _ in range(8)]\n"
        "print(faults[-1] - faults[9])"
    )
    # glibc's own value, which it raises at times
    env = os.environ | {"MALLOC_MMAP_THRESHOLD_": "131072"}
    ways = ("given back", "kept")
    faults = [
        int(subprocess.check_output([sys.executable, "-c", code, how], env=env)) for how in ways
    ]
    assert faults[0] > 20_000 and faults[1] < faults[0] / 10


@pytest.mark.slow
def test_compiled_code_is_for_this_processor(tmp_path):
    "PyTorch stores it by what it computes: a training with AVX2 found that of one with AVX-512."
    if missing := dv.compiler_error():
        pytest.skip(missing)
    if torch.backends.cpu.get_cpu_capability() != "AVX512":
        pytest.skip("this processor has one kind of vector instructions")
    flags = "--max_steps 3 --eval_every 3 --sample_every 9 --device cpu --dtype fp32 --seed 1"
    losses = {}
    for compiled, kind in (("off", "avx512"), ("on", "avx512"), ("on", "avx2")):
        name = f"{compiled}_{kind}"
        line = [sys.executable, "-m", "gpt2edu.cli", "train", *flags.split(), "--name", name]
        line += ["--compile", compiled]
        env = {**os.environ, "ATEN_CPU_CAPABILITY": kind}
        env["TORCHINDUCTOR_CACHE_DIR"] = str(tmp_path / "cache")
        done = subprocess.run(line, cwd=tmp_path, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        rows = RunLog(tmp_path / "runs" / name / "log.jsonl").read()
        losses[name] = [row["loss"] for row in rows if "loss" in row]
        assert len(losses[name]) >= 2
    assert losses["off_avx512"] == pytest.approx(losses["on_avx512"], abs=1e-3)
    assert losses["off_avx512"] == pytest.approx(losses["on_avx2"], abs=1e-3)
