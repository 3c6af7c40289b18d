"""What README.md and ARCHITECTURE.md name exists, and the README's commands run."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from command_line import KINDS, MICRO, ROOT, copied, environment, settings, wm

from stages.events import number_text

GUIDES = ("docs/tutorial.md", "docs/resume.md", "docs/headless.md", "docs/seeds.md")
OWN = ("docs/own-data.md", "docs/own-environment.md", "docs/metrics.md")
REFERENCE = ("docs/reliability.md", "docs/report.md", "docs/recipes.md", "docs/formats.md")
MEASURED = ("docs/benchmarks.md", "docs/experiments.md")
PAGES = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", *REFERENCE, *MEASURED, *GUIDES, *OWN)
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
SHELL = {"console", "bash", "sh", "shell"}
OURS = re.compile(r"^(?:xvfb-run (?:-\w+ )*)?(wm|make)\b")
TOP = sorted(path.name for path in ROOT.iterdir() if not path.name.startswith("."))
MADE = ("data/workspaces", "data/torture")  # what running it makes: not in the repository


@dataclass(frozen=True)
class Page:
    """A page of documentation: its code, in spans and in blocks."""

    name: str

    @property
    def text(self) -> str:
        return (ROOT / self.name).read_text()

    def spans(self) -> list[str]:
        """Those in the text, which may go on in the next line."""
        found = re.findall(r"`((?:[^`\n]|\n(?!\n))+)`", FENCE.sub("", self.text))
        return [" ".join(span.split()) for span in found]

    def shell_lines(self) -> list[str]:
        """Commands of blocks that call wm or make, without prompts and comments."""
        lines: list[str] = []
        for language, block in FENCE.findall(self.text):
            if language in SHELL or language == "":
                joined = block.replace("\\\n", " ").splitlines()
                prompted = any(line.startswith("$ ") for line in joined)
                kept = [line for line in joined if line.startswith("$ ") or not prompted]
                lines += [re.sub(r"\s+#.*$", "", line.removeprefix("$ ")).strip() for line in kept]
        return [line for line in lines if OURS.match(line)]

    def commands(self) -> list[str]:
        """Everything that calls wm or make, in spans and blocks."""
        return [span for span in self.spans() if OURS.match(span)] + self.shell_lines()

    def paths(self) -> list[str]:
        """Files and folders of the repository that spans, links and trees name."""
        links = re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", self.text)
        folder = (ROOT / self.name).parent
        links = [os.path.relpath(folder / link, ROOT) for link in links]
        named = [word for span in self.spans() for word in span.split() if _is_path(word)]
        return sorted({*links, *named, *self.trees()})

    def trees(self) -> list[str]:
        """Entries of trees of files in blocks without a language, where the repository has them."""
        return [
            path
            for language, block in FENCE.findall(self.text)
            if language in {"", "text"}
            for path in _tree_paths(block)
            if path.partition("/")[0] in TOP and not path.startswith(MADE)
        ]


def _is_path(word: str) -> bool:
    if re.search(r"[<>*{}$=:]|NNNN|\.\.\.", word) or word.startswith(("/", "-", "~", *MADE)):
        return False
    return word.partition("/")[0] in TOP and ("/" in word or "." in word)


def _tree_paths(block: str) -> list[str]:
    """Paths of an indented tree, drawn with lines or with spaces; text after the name is free."""
    parents: list[tuple[int, str]] = []
    paths = []
    for line in block.splitlines():
        match = re.match(r"^([\s│├└─|`+-]*)((?:[\w.][\w./-]*(?:/|\.\w+) ?)+)(?: |$)", line)
        if not match:
            continue
        depth, names = len(match[1]), match[2].split()
        parents = [(d, p) for d, p in parents if d < depth]
        paths += ["/".join([p for _, p in parents] + [name.rstrip("/")]) for name in names]
        if names[0].endswith("/"):
            parents.append((depth, names[0].rstrip("/")))
    return paths


def test_trees_of_files_are_understood():
    drawn = "stages/   verbs\n├── rollout.py  a\n└── control/\n    └── pilot.py\nmake x\n"
    plain = "stages/\n  control/   C: see x.py\n    pilot.py search.py\n  vision/\ntests/ x\n"
    assert _tree_paths(drawn) == [
        "stages",
        "stages/rollout.py",
        "stages/control",
        "stages/control/pilot.py",
    ]
    assert _tree_paths(plain)[1:] == [
        "stages/control",
        "stages/control/pilot.py",
        "stages/control/search.py",
        "stages/vision",
        "tests",
    ]


@pytest.mark.parametrize("name", PAGES)
def test_files_that_are_named_exist(name):
    paths = Page(name).paths()
    assert [path for path in paths if not (ROOT / path).exists()] == []
    assert paths, "the page names no file at all?"


def helps() -> dict[str, str]:
    """Help of every command, hidden ones included."""
    from typer.main import get_command

    from wm_cli.app import app

    found = {}
    for name, command in get_command(app).commands.items():
        found[name] = " ".join(wm(name, "--help", COLUMNS="500").said.split())
        assert command.help, name
    return found


@pytest.fixture(scope="module")
def help_of() -> dict[str, str]:
    return helps()


def test_every_command_has_help_with_an_example(help_of):
    assert set(help_of) >= {"rollout", "run", "status", "verify", "doctor", "config"}
    for name, text in help_of.items():
        assert f"Example: wm {name}" in text, name
        (example,) = re.findall(rf"Example: wm {name}(.*)$", text)
        for option in re.findall(r"--[a-z-]+", example):
            assert text.count(option) > 1, f"{name}'s example uses {option}"


@pytest.mark.parametrize("name", PAGES)
def test_commands_that_are_named_exist(name, help_of):
    makefile = (ROOT / "Makefile").read_text()
    targets = set(" ".join(re.findall(r"^([a-z][a-z -]*):", makefile, re.MULTILINE)).split())
    for line in Page(name).commands():
        match = OURS.match(line)
        words = line[match.end() :].split()
        plain = [word for word in words if not re.match(r"-|[A-Z]+=", word)]
        if match[1] == "make":
            assert set(plain[:1]) <= targets, line
        elif plain and re.fullmatch(r"[a-z-]+", words[0]):
            assert words[0] in help_of, line
            for option in re.findall(r"(?<=\s)--[a-z-]+", line):
                assert option in help_of[words[0]], line
            for key in re.findall(r"(?<=\s)\w+\.\w+(?==)", line):
                assert key in keys(), line
            assert not re.search(r"(?<!--set)\s\w+\.\w+=", line), f"a --set is missing: {line}"


@cache
def keys() -> set[str]:
    """Every setting there is."""
    (table,) = wm("config", "--json").report["tables"]
    return {row["key"] for row in table["rows"]}


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory) -> Path:
    """A copy of the checkout to try commands in, with `wm` and no environment to make."""
    folder = tmp_path_factory.mktemp("tour") / "wm"
    tracked = [name for name in TOP if name not in {"data", "build", "dist"}]
    for name in tracked:
        source = ROOT / name
        ignore = shutil.ignore_patterns("__pycache__")
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=ignore)
        else:
            folder.mkdir(exist_ok=True)
            shutil.copy2(source, folder / name)
    for name in ("sample", "agents"):
        if (ROOT / "data" / name).is_dir():
            shutil.copytree(ROOT / "data" / name, folder / "data" / name)
    bin_folder = folder / ".venv" / "bin"
    bin_folder.mkdir(parents=True)
    script = f'#!/bin/sh\nexec "{sys.executable}" -m wm_cli "$@"\n'
    (bin_folder / "wm").write_text(script)
    (bin_folder / "wm").chmod(0o755)
    (bin_folder / "python").symlink_to(sys.executable)
    return folder


def as_debug(line: str) -> str:
    """The same command on the preset debug; a display is not needed."""
    line = re.sub(r"^xvfb-run (?:-\w+ )*", "", line)
    line = re.sub(r"(--preset[ =])\S+", r"\1debug", line)
    line = re.sub(r"PRESET=\S+", "", line)
    return re.sub(r"^make\b", "make -o .venv/.ready -o .venv/.ready-dev PRESET=debug", line)


def workspace_of(line: str) -> str | None:
    """The workspace that a line of wm works on; None for the words of `make`."""
    if line.startswith("make"):
        return None
    found = re.search(r"(?:-w|--workspace)[ =](\S+)", line)
    return found[1] if found else "data/workspaces/default"


# ------------------------------------------------------- the guides' commands, run as they stand

# Until the run to be killed has begun to record and is not done with it.
WAIT_FOR_WORK = (
    "for _ in $(seq 600); do ls data/workspaces/resume/rollouts/.partial-*/shard-*.h5 "
    "> /dev/null 2>&1 && break; sleep 0.1; done"
)


def script_of(page: Page) -> str:
    """All console lines of a guide as one script, small; what is left running is waited for."""
    lines = []
    for language, block in FENCE.findall(page.text):
        if language == "console":
            lines += [line.removeprefix("$ ") for line in block.splitlines()]
    script: list[str] = []
    for line in lines:
        script.append(WAIT_FOR_WORK if line.startswith("sleep") else small(line))
        if line.startswith("nohup"):
            script.append("wait")
        if line.startswith("kill"):
            script.append('code=0; wait $! || code=$?; echo "killed: $code"')
    return "\n".join(script)


def small(line: str) -> str:
    """The same command on the smallest pipeline there is, and on one seed that is made already."""
    tiny = " ".join(["--preset debug", *settings(*MICRO)])
    line = re.sub(r"--preset \S+", tiny, line)
    if line.startswith("wm doctor"):  # what this machine lacks is no matter of the page
        line += " || [ $? = 6 ]"
    return line.replace("seed in 0 1 2", "seed in 7").replace("seed-0", "seed-7")


@pytest.mark.pipeline
@pytest.mark.parametrize("name", GUIDES)
def test_the_guides_commands_run(sandbox, micro_workspace, name):
    """Each page from its first command to its last; only the tutorial and a kill begin anew."""
    if "seeds" in name:
        copied(micro_workspace, sandbox / "data/workspaces/seed-7")
    if "headless" in name:
        copied(micro_workspace, sandbox / "data/workspaces/server")
    path = os.pathsep.join([str(sandbox / ".venv" / "bin"), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-c", f"set -eo pipefail\n{script_of(Page(name))}"],
        cwd=sandbox,
        env=environment(PATH=path, PYTHONPATH=str(sandbox)),
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    told = done.stdout + done.stderr
    assert done.returncode == 0, told
    assert "\x1b" not in told
    CHECKS[name](sandbox, told)


def check_tutorial(folder: Path, told: str) -> None:
    made = folder / "data/workspaces/tutorial"
    assert all((made / kind / "0001/manifest.json").exists() for kind in KINDS)
    beside = made.parent
    assert {"recorded.mp4", "dream.mp4"} <= {path.name for path in beside.iterdir()}
    assert (beside / "my-agent/manifest.json").exists()
    assert str(made / "vision/0001/reconstructions.png") in told
    assert "Everything is up to date." in told


def check_resumed(folder: Path, told: str) -> None:
    assert "killed: 137" in told, "it was over before it was killed"
    _, after = told.split("killed: 137")
    assert "unfinished work" in after
    assert "Resuming rollout" in told
    made = folder / "data/workspaces/resume"
    assert all((made / kind / "0001/manifest.json").exists() for kind in KINDS)
    assert not list(made.glob("*/.partial-*"))


def check_headless(folder: Path, told: str) -> None:
    assert {"server.mp4", "server-dream.mp4"} <= {path.name for path in folder.iterdir()}
    log = (folder / "run.log").read_text()
    assert "up to date" in log
    assert all(line.isprintable() for line in log.splitlines()), "a log has no control characters"
    assert "evaluations/0001" in told.splitlines(), "of the JSON"


def check_seeds(folder: Path, told: str) -> None:
    assert (folder / "data/workspaces/seed-7/control/0002/manifest.json").exists()
    scores = folder / "data/workspaces/seed-7/evaluations/0001/scores.json"
    mean = json.loads(scores.read_text())["agent"]["mean"]
    assert re.search(rf"^mean +{re.escape(number_text(mean))}$", told, re.MULTILINE)
    evaluated = json.loads(
        (folder / "data/workspaces/seed-7/evaluations/0002/manifest.json").read_text()
    )
    assert "control/0002" in [parent["id"] for parent in evaluated["parents"]]


CHECKS = dict(
    zip(GUIDES, (check_tutorial, check_resumed, check_headless, check_seeds), strict=True)
)

# ----------------------------------------------------------------------- the README's commands, run

UNTRIED = re.compile(r"^make (?:test|setup|setup-dev|lint|types|contracts|quicktest|format)\b")


@pytest.mark.pipeline
def test_the_readmes_commands_run(sandbox, debug_workspace):
    """In order, in one place; workspaces they would make are there already, finished."""
    tried = 0
    copied(debug_workspace, sandbox / "data/workspaces/carracing-debug")
    for line in Page("README.md").shell_lines():
        if UNTRIED.match(line):
            continue
        place = workspace_of(as_debug(line))
        if place and "--recipe" not in line and not (sandbox / place).exists():
            copied(debug_workspace, sandbox / place)
        path = os.pathsep.join([str(sandbox / ".venv" / "bin"), os.environ["PATH"]])
        extra = {"PATH": path, "PYTHONPATH": str(sandbox)}
        done = subprocess.run(
            ["bash", "-c", f"set -o pipefail; {as_debug(line)}"],
            cwd=sandbox,
            env=environment(**extra),
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        tried += 1
    assert tried >= 2
