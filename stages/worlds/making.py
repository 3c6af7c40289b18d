"""Which engine a world runs on, and the world itself. Importing this loads no engine."""

import os
from dataclasses import replace
from importlib.metadata import version
from importlib.util import find_spec

from stages.contracts import World, WorldSpec
from stages.errors import EnvironmentLacks, UsageError
from stages.worlds.lanes import Engine
from stages.worlds.repeat import Repeat

ENVPOOL_ENVS = ("CarRacing-v3",)  # checked against Gymnasium; its others have other interfaces
FAST = "-fast"  # the same physics and pictures, drawn with less work
_HEADLESS = {
    "SDL_VIDEODRIVER": "dummy",
    "SDL_AUDIODRIVER": "dummy",
    "PYGAME_HIDE_SUPPORT_PROMPT": "1",
}


def headless() -> None:
    """Ask SDL and pygame for neither window, sound nor greeting, where nobody chose otherwise."""
    for name, value in _HEADLESS.items():
        os.environ.setdefault(name, value)


def engines_for(env: str) -> tuple[str, ...]:
    """The engines that can step this environment, the reference first."""
    return ("gymnasium", "envpool") if env in ENVPOOL_ENVS else ("gymnasium",)


def resolve_engine(spec: WorldSpec) -> str:
    """`gymnasium` or `envpool`: what `auto` means on this machine, or the engine asked for."""
    offered = engines_for(spec.env)
    if spec.engine == "auto":
        return "envpool" if "envpool" in offered and _has_envpool() else "gymnasium"
    if spec.engine not in offered:
        raise UsageError(
            f"The engine {spec.engine} does not offer {spec.env}.",
            fix=f"Use --set world.engine=auto, or one of: {', '.join(offered)}.",
        )
    if spec.engine == "envpool" and not _has_envpool():
        raise EnvironmentLacks(
            "EnvPool is not installed.",
            why=f"world.engine = envpool asks for it to step {spec.env}.",
            fix='Install it with: pip install "wm-pixels[fast]"',
        )
    return spec.engine


def same_pictures(engine: str, other: str) -> bool:
    """Whether two engines draw the same frames, bit for bit, inside CarRacing's rows [0:84]."""
    return engine.removesuffix(FAST) == other.removesuffix(FAST)


def lap_rule(env: str, engine: str) -> str:
    """How a lap ends, for the artifacts that hold rewards; empty for worlds without laps.

    `every-tile`: the 95 % rule is inert (Farama-Foundation/Gymnasium#1269), because tile 0 is
    visited at reset. Once upstream mends it, scores shift, hence the version.
    """
    if not env.startswith("CarRacing"):
        return ""
    return f"every-tile ({engine} {version(engine)})"


def make_world(
    spec: WorldSpec, *, engine: str | None = None, threads: int = 1, raw: bool = False
) -> World:
    """The world of a spec; `engine` overrides the spec's, `threads` are EnvPool's.

    With `raw` observations are the engine's own frames; the action repeat stays.
    """
    headless()
    asked = replace(spec, engine=engine or spec.engine)
    made = _engine(spec, resolve_engine(asked), threads)
    world: World = Repeat(made, spec.repeat) if spec.repeat > 1 else made
    if raw:
        return world
    from stages.worlds.prepare import Prepared

    return Prepared(world, crop=spec.crop, size=spec.size)


def _engine(spec: WorldSpec, engine: str, threads: int) -> Engine:
    if engine == "envpool":
        from stages.worlds.envpool_world import EnvPoolWorld

        return EnvPoolWorld(spec.env, num_threads=threads, max_frames=spec.max_frames)
    from stages.worlds.gymnasium_world import GymnasiumWorld
    from stages.worlds.opening import open_lane

    return GymnasiumWorld(lambda: open_lane(spec.env, max_frames=spec.max_frames))


def _has_envpool() -> bool:
    return find_spec("envpool") is not None
