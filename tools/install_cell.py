#| include: false
# @title Install gpt2edu
import importlib.metadata
import importlib.util
import re
import subprocess
import sys


class Stop(Exception):  # shows one line in place of a traceback; the cells below do not run
    def _render_traceback_(self):
        return [str(self)]


def _install(source="gpt2edu[offline] @ git+{url}@{tag}"):
    pip = [sys.executable, "-m", "pip", "install"]
    if "google.colab" not in sys.modules:  # on your own machine you decide what is installed
        raise Stop(
            f'gpt2edu is missing; install it and restart the kernel: {" ".join(pip)} "{source}"'
        )
    # Colab's, as they are
    kept = [f"{name}=={importlib.metadata.version(name)}" for name in ("torch", "numpy")]
    # the branch as long as the release has no tag
    for wanted in (source, source.replace("@{tag}", "@{branch}")):
        install = [*pip, "-q", "--no-color", wanted, *kept]
        done = subprocess.run(install, capture_output=True, text=True)
        if "pathspec '{tag}'" not in done.stderr:
            break
    if done.returncode:
        why = re.findall(r"^\s*(?:fatal|error|ERROR): (?!subprocess-exited)(.+)", done.stderr, re.M)
        got = f"beside {' and '.join(kept)}: {[*why, done.stderr.strip()[-200:]][0]!r}"
        raise Stop(
            f"gpt2edu could not be installed {got}; "
            "take Colab's newest runtime and run this cell again"
        )
    importlib.invalidate_caches()


if getattr(importlib.util.find_spec("gpt2edu"), "origin", None) is None:
    _install()
