"""Which engine a world runs on, and the world itself. Importing this loads no engine."""

import os
from dataclasses import replace
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING

from stages.contracts import IMPORTED, NO_WORLD, FrameWorld, WorldSpec
from stages.errors import EnvironmentLacks, UsageError
from stages.events import Monitor, Noted
from stages.worlds.lanes import Engine
from stages.worlds.repeat import Repeat

if TYPE_CHECKING:
    from stages.artifacts.partial import Partial
    from stages.worlds.prepare import Prepared

CAR_RACING, DOOM = "CarRacing", "Vizdoom"  # how ids begin that are driven in a way of their own
ENVPOOL_ENVS = ("CarRacing-v3",)  # checked against Gymnasium; its others have other interfaces
BOX2D_AGAIN = "pip install --force-reinstall Box2D==2.3.10"
BOX2D_SOURCE = (
    "in an activated virtual environment, with a C++ compiler: pip install swig 'setuptools<81' "
    "wheel && pip install --no-build-isolation box2d-py==2.3.8"
)
CODE = "code"  # key of the state under which a partial tells the digest of an own environment
GYMNASIUM_FAST = "gymnasium-fast"  # Gymnasium's physics and pictures, drawn with less work
ATARI_FRAMES_PER_SECOND = 60.0  # of the NTSC console
USUAL_FRAMES_PER_SECOND = 30.0  # where an environment does not say
FAST_REPEAT = 4  # frames per action from which on it keeps up with EnvPool
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
    if env in ENVPOOL_ENVS:
        return ("gymnasium", GYMNASIUM_FAST, "envpool")
    return ("gymnasium",)


def resolve_engine(spec: WorldSpec) -> str:
    """What `auto` means for this world, or the engine asked for, once it is known to be there.

    `auto` draws Gymnasium's own pictures where that is as fast: it pays per frame seen, EnvPool
    per frame stepped (docs/experiments.md has the figures).
    """
    offered = engines_for(spec.env)
    if spec.engine == "auto":
        if "envpool" in offered and _has_envpool() and spec.repeat < FAST_REPEAT:
            return "envpool"
        return GYMNASIUM_FAST if GYMNASIUM_FAST in offered else "gymnasium"
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


def is_own(env: str) -> bool:
    """Whether it is named `module:EnvId`: opening it imports a module that is not ours."""
    return ":" in env


def check_world_known(env: str, doing: str = "This") -> None:
    """UsageError where the settings name no environment, and one is needed."""
    if env == NO_WORLD:
        raise UsageError(
            f"{doing} needs an environment, and this workspace has none.",
            why="Its episodes were imported (world.env=none).",
            fix="Say which one it is: --set world.env=module:EnvId",
        )


def same_pictures(engine: str, other: str) -> bool:
    """Whether two engines draw the same frames, bit for bit; imported ones may be of any."""
    if IMPORTED in (engine, other):
        return True
    return engine.removesuffix("-fast") == other.removesuffix("-fast")


def is_of(env: str, family: str) -> bool:
    """Whether this id is one of gymnasium's or ViZDoom's own of that name, of any version.

    A module of the user's may be called CarRacingMods: that says nothing.
    """
    return not is_own(env) and env.startswith(family)


def note_code(partial: "Partial", env: str, progress: Monitor) -> None:
    """Warn where work goes on with another code of the user's environment than it began with."""
    if not is_own(env):
        return
    from stages.worlds.own import code_digest

    now, begun = code_digest(env), partial.recorded().get(CODE)
    if begun is None:
        partial.record({CODE: now})
    elif begun != now:
        module = env.partition(":")[0]
        text = f"The module {module} has changed since this work began: old and new are mixed."
        progress.emit(Noted(f"{text} Afterwards --force makes a new one.", warning=True))


def lap_rule(env: str, engine: str) -> str:
    """How a lap ends, for the artifacts that hold rewards; empty for worlds without laps.

    `every-tile`: the 95 % rule is inert (Farama-Foundation/Gymnasium#1269), because tile 0 is
    visited at reset. Once upstream mends it, scores shift, hence the version.
    """
    if not is_of(env, CAR_RACING):
        return ""
    package = engine.removesuffix("-fast")
    return f"every-tile ({package} {version(package)})"


def time_limit(spec: WorldSpec) -> int:
    """Actions after which this world cuts an episode; 0 where nobody says."""
    frames = spec.max_frames
    if not frames and spec.env != NO_WORLD:
        from stages.worlds.opening import registered_limit

        headless()
        frames = registered_limit(spec.env)
    return -(-frames // spec.repeat)


def frames_per_second(env: str) -> float:
    """How many engine frames make a second of this world, for films at their true speed.

    What the environment says of itself, except for Atari: its console draws 60 a second, of which
    the environment's own frame skip leaves some out.
    """
    if env == NO_WORLD:
        return USUAL_FRAMES_PER_SECOND
    from stages.worlds.opening import open_lane

    headless()
    opened = open_lane(env).env
    try:
        skip = opened.spec.kwargs.get("frameskip")
        if isinstance(skip, int):  # only Atari's have it
            return ATARI_FRAMES_PER_SECOND / skip
        return float(opened.metadata.get("render_fps") or USUAL_FRAMES_PER_SECOND)
    finally:
        opened.close()


def choice_names(env: str) -> tuple[str, ...]:
    """What the choices of this world mean ("NOOP", "FIRE", "RIGHT" ...); () where it says nothing.

    Atari's environments do.
    """
    if env == NO_WORLD:
        return ()
    from stages.worlds.opening import open_lane

    headless()
    opened = open_lane(env).env
    try:
        told = getattr(opened.unwrapped, "get_action_meanings", None)
        return tuple(str(name) for name in told()) if told is not None else ()
    finally:
        opened.close()


def check_random_start(env: str, engine: str, *, key: str = "rollout.random_start") -> None:
    """UsageError where episodes cannot begin at a random place of the track."""
    racing = is_of(env, CAR_RACING)
    if not racing or engine == "envpool":
        raise UsageError(
            f"Episodes of {env} on {engine} cannot begin at a random place.",
            why="Only the car of CarRacing can be moved along its track, on gymnasium's engines.",
            fix=f"Use --set {key}=false"
            + (f", or --set world.engine={GYMNASIUM_FAST}." if racing else "."),
        )


def make_world(
    spec: WorldSpec,
    *,
    engine: str | None = None,
    threads: int = 1,
    raw: bool = False,
    random_start: bool = False,
) -> FrameWorld:
    """The world of a spec; `engine` overrides the spec's, `threads` are EnvPool's.

    With `raw` observations are the engine's own frames; the action repeat stays. With
    `random_start` episodes begin anywhere on the track (`check_random_start`).
    """
    made = _repeated(spec, engine, threads, random_start=random_start)
    return made if raw else _prepared(spec, made)


def make_prepared(spec: WorldSpec, *, engine: str | None = None, threads: int = 1) -> "Prepared":
    """The same world by its own type, which keeps the engine's frames in `raw`, for films."""
    return _prepared(spec, _repeated(spec, engine, threads))


def _prepared(spec: WorldSpec, world: FrameWorld) -> "Prepared":
    from stages.worlds.prepare import Prepared

    return Prepared(world, crop=spec.crop, size=spec.size)


def _repeated(
    spec: WorldSpec, engine: str | None, threads: int, *, random_start: bool = False
) -> FrameWorld:
    headless()
    asked = replace(spec, engine=engine or spec.engine)
    made = _engine(spec, resolve_engine(asked), threads, random_start=random_start)
    return Repeat(made, spec.repeat) if spec.repeat > 1 else made


def _engine(spec: WorldSpec, engine: str, threads: int, *, random_start: bool) -> Engine:
    if random_start:
        check_random_start(spec.env, engine)
    if engine == "envpool":
        from stages.worlds.envpool_world import EnvPoolWorld

        return EnvPoolWorld(spec.env, num_threads=threads, max_frames=spec.max_frames)
    from stages.worlds.gymnasium_world import GymnasiumWorld
    from stages.worlds.opening import open_lane

    return GymnasiumWorld(
        lambda: open_lane(
            spec.env,
            max_frames=spec.max_frames,
            culled=engine == GYMNASIUM_FAST,
            random_start=random_start,
        )
    )


def _has_envpool() -> bool:
    return find_spec("envpool") is not None
