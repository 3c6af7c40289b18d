"""Installed packages against the bounds that wm declares, and whether they can be imported."""

import ast
import json
import operator
import platform
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, metadata
from itertools import zip_longest
from pathlib import Path
from typing import Any

from stages.artifacts.versions import installed_version

DISTRIBUTION = "wm-pixels"
CHECKOUT = Path(__file__).parents[2] / "pyproject.toml"  # where a checkout declares its bounds
PROBE_SECONDS = 120.0

_REQUIREMENT = re.compile(
    r"\s*([A-Za-z0-9][\w.-]*)\s*(?:\[[^\]]*\])?\s*\(?([^;)]*)\)?\s*(?:;(.*))?"
)
_BOUND = re.compile(r"(<=|>=|==|!=|<|>|~=)\s*([\w.+*-]+)")
_EXTRA = re.compile(r"""extra\s*==\s*["']([\w.-]+)["']""")
_COMPARE: dict[str, Callable[[int, int], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
}
_SIGNS: dict[type[ast.cmpop], str] = {
    ast.LtE: "<=",
    ast.GtE: ">=",
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.Lt: "<",
    ast.Gt: ">",
}
_PROBE = """
import importlib, json, sys, warnings
warnings.simplefilter("ignore")

def more(name, module):
    if name == "h5py":
        return module.version.hdf5_version
    if name != "torch":
        return ""
    gpus = [module.cuda.get_device_name(i) for i in range(module.cuda.device_count())]
    mps = ["mps"] if module.backends.mps.is_available() else []
    return ", ".join(["cpu", *mps, *(f"cuda: {gpu}" for gpu in gpus)])

for name in sys.argv[1:]:
    try:
        said = "ok; " + more(name, importlib.import_module(name))
    except BaseException as error:
        said = f"error: {type(error).__name__}: {error}"
    sys.stderr.write(json.dumps([name, said]) + "\\n")
    sys.stderr.flush()
"""


@dataclass(frozen=True)
class Bounds:
    """Versions that are allowed, such as `>=2.10,<3`."""

    text: str

    def allows(self, version: str) -> bool:
        """Whether a version lies inside; of a version only its numbers count."""
        found = _numbers(version)
        return all(
            _COMPARE[sign](_order(found, _numbers(bound)), 0)
            for sign, bound in _BOUND.findall(self.text)
            if sign in _COMPARE
        )


@dataclass(frozen=True)
class Requirement:
    """One package that wm wants on this machine."""

    name: str
    bounds: Bounds
    extra: str | None  # None: the base
    installed: str | None  # version

    @property
    def text(self) -> str:
        """As one gives it to pip."""
        return f"{self.name}{self.bounds.text}"


def requirements() -> list[Requirement]:
    """What the base and the extras want here; lines for other machines are left out."""
    found = (_parse(line) for line in _declared())
    return [one for one in found if one is not None]


def supported_python() -> Bounds:
    """The versions of Python that this wm supports."""
    try:
        text = str(metadata(DISTRIBUTION)["Requires-Python"])
    except PackageNotFoundError:
        text = _checkout().get("requires-python", "")
    return Bounds(text)


def probe(modules: Iterable[str], *, seconds: float = PROBE_SECONDS) -> dict[str, str]:
    """Import each module in another process and tell `ok; ...` or `error: ...`.

    Another process, because a broken one can end it, and because none of them is wanted here.
    """
    wanted = list(modules)
    command = [sys.executable, "-P", "-c", _PROBE, *wanted]
    try:
        said = subprocess.run(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=seconds, check=False
        ).stderr
    except subprocess.TimeoutExpired as error:
        said = error.stderr or b""
    told = dict(_told(said.decode(errors="replace")))
    return {name: told.get(name, "error: the import ended its process") for name in wanted}


def _told(output: str) -> Iterable[tuple[str, str]]:
    """The lines of the probe among whatever else the modules wrote."""
    for line in output.splitlines():
        if line.startswith('["'):
            name, said = json.loads(line)
            yield name, said


def _declared() -> list[str]:
    """Requirement lines of the installed distribution, or of the checkout around this file."""
    try:
        return metadata(DISTRIBUTION).get_all("Requires-Dist") or []
    except PackageNotFoundError:
        project = _checkout()
    extras = project.get("optional-dependencies", {})
    marked = [_with_extra(line, extra) for extra, lines in extras.items() for line in lines]
    return [*project.get("dependencies", []), *marked]


def _with_extra(line: str, extra: str) -> str:
    """A requirement of an extra as the installed distribution writes it."""
    package, _, marker = line.partition(";")
    return f"{package}; {f'({marker.strip()}) and ' if marker else ''}extra == '{extra}'"


def _checkout() -> dict[str, Any]:
    return dict(tomllib.loads(CHECKOUT.read_text())["project"]) if CHECKOUT.is_file() else {}


def _parse(line: str) -> Requirement | None:
    match = _REQUIREMENT.fullmatch(line)
    if match is None or not applies(match[3] or "True"):
        return None
    extra = _EXTRA.search(match[3] or "")
    return Requirement(
        name=match[1],
        bounds=Bounds(match[2].strip()),
        extra=extra[1] if extra else None,
        installed=installed_version(match[1]),
    )


def applies(marker: str) -> bool:
    """Whether an environment marker, such as `sys_platform == 'linux'`, holds on this machine.

    Markers have the syntax of Python expressions; they are read here, never run. Extras count as
    asked for.
    """
    return _holds(ast.parse(marker.strip(), mode="eval").body)


def _holds(node: ast.expr) -> bool:
    if isinstance(node, ast.BoolOp):
        combine = all if isinstance(node.op, ast.And) else any
        return combine(_holds(value) for value in node.values)
    if isinstance(node, ast.Compare):
        left, right = _text(node.left), _text(node.comparators[0])
        if "extra" in {_name(node.left), _name(node.comparators[0])}:
            return True
        sign = _SIGNS[type(node.ops[0])]
        if _name(node.left).startswith("python"):
            return _COMPARE[sign](_order(_numbers(left), _numbers(right)), 0)
        return (left == right) == (sign == "==")
    return True


def _name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else ""


def _text(node: ast.expr) -> str:
    """The text of a literal, or what this machine says to the name of a variable."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    machine = {
        "python_version": ".".join(platform.python_version_tuple()[:2]),
        "python_full_version": platform.python_version(),
        "sys_platform": sys.platform,
        "platform_machine": platform.machine(),
        "platform_system": platform.system(),
    }
    return machine.get(_name(node), "")


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version.partition("+")[0])]


def _order(one: list[int], other: list[int]) -> int:
    """Below, at or above 0 as the first version is older, equal or newer; 3 equals 3.0."""
    pairs = zip_longest(one, other, fillvalue=0)
    return next((a - b for a, b in pairs if a != b), 0)
