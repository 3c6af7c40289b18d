"""Environments of the user's own, named `module:EnvId`: importing the module registers them.

That runs the module's code, so it happens only where a world is opened, never where a recipe or an
artifact is read.
"""

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gymnasium
from gymnasium.error import Error

from stages.artifacts.disk import digest_bytes, digest_file
from stages.errors import EnvironmentLacks, StageError, UsageError
from stages.worlds.lanes import MEND_THE_WORLD

PLACE = "It must be installed, or lie in the folder in which wm is called."
_OURS = Path(__file__).resolve().parents[2]  # frames of our own are not the user's place


def own_spec(env: str) -> Any:
    """Gymnasium's specification of `module:EnvId`, after its module was imported.

    Raises:
        UsageError: there is no such module, it fails, or it registers no such id.
        EnvironmentLacks: it needs a package that is not installed.
    """
    module, _, name = env.partition(":")
    if not all(part.isidentifier() for part in module.split(".")) or not name:
        raise UsageError(
            f"world.env = {env!r} is not the name of an environment.",
            why="An environment of your own is named module:EnvId.",
            fix="For example: --set world.env=my_world:MyWorld-v0",
        )
    _import(module)
    try:
        return gymnasium.spec(name)
    except Error as error:
        mine = sorted(each for each, spec in gymnasium.registry.items() if _is_of(spec, module))
        raise UsageError(
            f"The module {module} registers no environment {name!r}.",
            why=f"It registers {', '.join(mine)}." if mine else f"{error}",
            fix=f'Let it call gymnasium.register("{name}", entry_point=...) when it is imported.',
        ) from error


def code_digest(env: str) -> str:
    """The sha256 of the Python files of the module of `module:EnvId`, or of the package it is in.

    Empty where it is not found. Nothing of it is run.
    """
    _look_here()
    try:
        found = find_spec(env.partition(":")[0].partition(".")[0])
    except ValueError:  # no name, or one that was never a file
        return ""
    if found is None or found.origin is None or not found.has_location:
        return ""
    folders = [Path(each) for each in found.submodule_search_locations or ()]
    paths = [path for folder in folders for path in sorted(folder.rglob("*.py"))]
    told = "".join(f"{digest_file(path)}\n" for path in paths or [Path(found.origin)])
    return digest_bytes(told.encode())


def _is_of(spec: Any, module: str) -> bool:
    entry = spec.entry_point
    home = entry.partition(":")[0] if isinstance(entry, str) else getattr(entry, "__module__", "")
    return bool(home == module)


def _import(module: str) -> None:
    _look_here()
    try:
        import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module}.".startswith(f"{error.name}."):
            raise UsageError(
                f"world.env names the module {module!r}, which is not found.", why=PLACE
            ) from error
        raise EnvironmentLacks(
            f"The module {module} needs a package that is not installed.", why=f"{error}."
        ) from error
    except Exception as error:
        raise _failed(f"The module {module} cannot be imported", error) from error


def _look_here() -> None:
    """Let modules be found in the current folder."""
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)  # last: it hides nothing that is installed


@contextmanager
def blamed(env: str, doing: str) -> Iterator[None]:
    """Say that the environment failed, and where, when its own code raises in this block."""
    try:
        yield
    except StageError:
        raise
    except Exception as error:
        raise _failed(f"The environment {env} failed in {doing}", error) from error


def _failed(what: str, error: Exception) -> UsageError:
    told = f"{type(error).__name__}: {error}".rstrip(":. ")
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [one for one in frames if not Path(one.filename).is_relative_to(_OURS / "stages")]
    place = f" ({Path(theirs[-1].filename).name}, line {theirs[-1].lineno})" if theirs else ""
    return UsageError(f"{what}.", why=f"{told}{place}.", fix=MEND_THE_WORLD)
