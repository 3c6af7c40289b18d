"""Who plays: the V, M and C of a workspace that belong together, and the scenes made of them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from stages.agents import AgentFiles, Parameters, agent_files, lineage, trained_agent
from stages.artifacts.agent_folder import AgentFolder, load_agent
from stages.artifacts.artifact import Artifact
from stages.artifacts.fitting import check_same_parent, check_world, parent_of
from stages.artifacts.producing import DREAM, only
from stages.artifacts.summaries import actions_of
from stages.artifacts.workspace import Workspace
from stages.contracts import ActionSpec, Job, Policy, WorldSpec
from stages.errors import InputMissing, InputsMismatch, UsageError
from stages.gathered import dream_terms, recorded_starts, whole_limit
from stages.playing.recording import REFERENCE, Site
from stages.playing.scene import Scene
from stages.training.seeding import episode_seeds
from stages.trials import cached_vision, load_choices, load_memory
from stages.worlds.making import make_prepared, same_pictures

if TYPE_CHECKING:
    from stages.control.config import Config
    from stages.control.pilot import Choices
    from stages.worlds.following import Follower

EPISODES = ("rollouts", "plays")  # kinds that hold episodes to be looked at
DREAM_STEPS = 1000  # after which a dream is cut where nothing says when
NAMED = ("vision", "memory", "control")


@dataclass(frozen=True)
class Cast:
    """The models that belong together; what is missing is None."""

    vision: Artifact | None = None
    memory: Artifact | None = None
    control: Artifact | None = None
    files: AgentFiles | None = None  # of V and M
    parameters: Parameters | None = None  # of C
    notes: tuple[str, ...] = ()

    @property
    def driving(self) -> tuple[Artifact, ...]:
        """What a recording names as its parents where the agent drove."""
        if self.control is None or isinstance(self.control, AgentFolder):
            return ()
        return tuple(one for one in (self.control, self.vision, self.memory) if one is not None)


def cast(workspace: Workspace, job: Job, *, by_agent: bool) -> Cast:
    """The newest models that belong together, or those that --from and --agent name.

    The newest controller drives where it belongs to them; with `by_agent` it decides which V and M
    they are.

    Raises:
        StageError: what was named is not there, is damaged, or does not fit.
    """
    _as_workers_do()
    if job.agent is not None:
        agent = load_agent(Path(job.agent))
        check_world(asdict(job.world), agent, fix="Play it in a workspace of its own (-w).")
        files, parameters = trained_agent(workspace, agent)
        return Cast(control=agent, files=files, parameters=parameters)
    named = _named(workspace, job)
    control = named.get("control")
    if control is None and by_agent and not named:
        control = workspace.newest("control")
    if control is not None:
        return _led(workspace, job, control, named)
    memory = named.get("memory") or (None if "vision" in named else workspace.newest("memory"))
    vision = named.get("vision")
    if vision is None and memory is not None:
        vision = workspace.resolve(parent_of(memory, "vision"))
    vision = vision or workspace.newest("vision")
    if vision is None:
        return Cast()
    memory = memory or _memory_of(workspace, vision)
    return _joined(workspace, job, vision, memory, workspace.newest("control"))


def _as_workers_do() -> None:
    """Let V and M compute on one thread: they give what they gave in a worker, bit for bit."""
    import torch

    torch.set_num_threads(1)


def _named(workspace: Workspace, job: Job) -> dict[str, Artifact]:
    """What --from names, by kind."""
    found: dict[str, list[Artifact]] = {}
    for name in job.parents:
        artifact = workspace.get(name)
        if artifact.kind not in NAMED:
            raise UsageError(
                f"`wm play` plays with no {artifact.kind}.",
                why=f"--from names one of {', '.join(NAMED)}.",
                fix=f"To look at its episodes: wm play {artifact.id}"
                if artifact.kind in EPISODES
                else f"Leave out `--from {artifact.id}`.",
            )
        found.setdefault(artifact.kind, []).append(artifact)
    return {kind: only(artifacts) for kind, artifacts in found.items()}


def _led(workspace: Workspace, job: Job, control: Artifact, named: Mapping[str, Artifact]) -> Cast:
    """The cast of a controller: its own V and M."""
    by_kind = {one.kind: one for one in lineage(workspace, control)}
    for kind, artifact in named.items():
        own = by_kind.get(kind)
        if own is not None and own.id != artifact.id:
            raise InputsMismatch(
                f"{control.id} belongs to {own.id}, not to {artifact.id}.",
                why="A controller understands the V and the M that it was searched with.",
                fix=f"Leave out `--from {artifact.id}`.",
            )
    memory = by_kind.get("memory") or named.get("memory")
    vision = by_kind["vision"]
    return _joined(workspace, job, vision, memory or _memory_of(workspace, vision), control)


def _joined(
    workspace: Workspace, job: Job, vision: Artifact, memory: Artifact | None, control: Any
) -> Cast:
    """V and M that belong together, with the controller if it belongs to them."""
    from stages.control.pilot import PilotShape

    for one in (vision, memory):
        if one is not None:
            check_world(asdict(job.world), one)
    if memory is not None:
        check_same_parent(memory, vision)
    files = agent_files(vision, memory, PilotShape())
    notes = tuple(_unknown_pictures(vision))
    if control is None:
        return Cast(vision, memory, files=files, notes=notes)
    stranger = _stranger(workspace, control, (vision, memory))
    if stranger:
        return Cast(vision, memory, files=files, notes=(*notes, stranger))
    check_world(asdict(job.world), control)
    trained, parameters = trained_agent(workspace, control)
    if trained.memory is None:  # it sees z alone; M is there to be looked at
        told = ("memory", "memory_digest", "memory_shape")
        trained = replace(trained, **{name: getattr(files, name) for name in told})
    return Cast(vision, memory, control, trained, parameters, notes)


def _stranger(workspace: Workspace, control: Artifact, models: Sequence[Artifact | None]) -> str:
    """Why the newest controller cannot drive here; empty when it can."""
    digests = {one.manifest.payload_digest for one in models if one is not None}
    for own in lineage(workspace, control)[1:]:
        if own.manifest.payload_digest not in digests:
            return (
                f"{control.id} belongs to {own.id}: it drives with `--from {control.id}`, which "
                "takes that one."
            )
    return ""


def _memory_of(workspace: Workspace, vision: Artifact) -> Artifact | None:
    """The newest M that learnt from this V."""
    wanted = vision.manifest.payload_digest
    found = [
        one
        for one in workspace.artifacts("memory")
        if parent_of(one, "vision").payload_digest == wanted
    ]
    return found[-1] if found else None


def _unknown_pictures(vision: Artifact) -> list[str]:
    known = vision.manifest.summary["engines"]
    if any(same_pictures(REFERENCE, engine) for engine in known):
        return []
    return [f"{vision.id} learnt from pictures of {', '.join(known)}: {REFERENCE}'s are others."]


def open_world(job: Job, cast: Cast) -> tuple[Scene, Site]:
    """The world on the reference engine, as the cast sees it."""
    from stages.playing.world_scene import WorldScene

    spec = replace(job.world, engine=REFERENCE)
    world = make_prepared(spec)
    scene = WorldScene(
        world,
        lambda number: _seed(job, number),
        follower=_follower(cast),
        choices=_choices(cast, world.action_spec),
        chance=_chance(world.action_spec, spec, world.observation_shape),
        end_weight=_end_weight(cast),
    )
    return scene, Site(REFERENCE, world.action_spec, driving=cast.driving)


def open_dream(workspace: Workspace, job: Job, cast: Cast, config: "Config") -> tuple[Scene, Site]:
    """The dream of the cast's M, on the terms of the `[control]` section.

    Raises:
        InputMissing: there is no V or no M.
    """
    from stages.memory.dreaming import DreamingMemory
    from stages.playing.dream_scene import DreamScene
    from stages.training.precision import training_dtype
    from stages.worlds.dream import EXPECTED, SAMPLED, DreamWorld

    vision, memory, files = cast.vision, cast.memory, cast.files
    if vision is None or memory is None or files is None:
        raise _no_dream(workspace, cast)
    named = [parent for parent in memory.manifest.parents if parent.kind == "latents"]
    latents = [workspace.resolve(parent) for parent in named]
    starts, _ = recorded_starts(latents)
    foresees = bool(memory.manifest.summary["shape"]["reward_head"])
    spec = actions_of(latents[0].manifest)
    model = load_memory(files)
    assert spec is not None, f"{latents[0].id} tells its actions"
    assert model is not None, "a cast with a memory has its files"
    limit = whole_limit(config, job.world) or DREAM_STEPS
    terms = dream_terms(config, memory, job.world, max_steps=limit)
    if terms.end == EXPECTED:  # whoever plays wants to know when it is over
        terms = replace(terms, end=SAMPLED)
    rewarded = foresees or starts.reward is not None
    if not rewarded:
        starts = replace(starts, reward=0.0)
    dreaming = DreamingMemory(model, dtype=training_dtype(config.precision))
    size = job.world.size
    scene = DreamScene(
        DreamWorld(dreaming, starts, spec, terms),
        lambda number: _seed(job, number),
        vision=cached_vision(files.vision_digest, files.vision, files.vision_shape["latent_size"]),
        choices=_choices(cast, spec),
        chance=_chance(spec, job.world, (size, size, 3)),
        temperature=config.temperature,
        rewarded=rewarded,
    )
    return scene, Site(DREAM, spec, watched=(vision, memory), driving=cast.driving)


def open_recorded(workspace: Workspace, name: str, cast: Cast) -> Scene:
    """The episodes of an artifact."""
    from stages.artifacts.episodes import EpisodeSet
    from stages.playing.recorded_scene import RecordedScene
    from stages.vision.vae import FRAME_SHAPE

    artifact = workspace.get(name)
    if artifact.kind not in EPISODES:
        raise UsageError(
            f"{artifact.id} holds no episodes to look at.",
            fix=f"Those of {' and '.join(EPISODES)} do: `wm status` lists them.",
        )
    size, actions = artifact.manifest.config["world"]["size"], actions_of(artifact.manifest)
    assert actions is not None, f"{artifact.id} tells its actions"
    own = cast.files is not None and cast.files.actions.get("size", actions.size) == actions.size
    follower = _follower(cast) if own and (size, size, 3) == FRAME_SHAPE else None
    episodes, weight = EpisodeSet.of([artifact]), _end_weight(cast)
    return RecordedScene(artifact.id, episodes, actions, follower=follower, end_weight=weight)


def _no_dream(workspace: Workspace, cast: Cast) -> InputMissing:
    if isinstance(cast.control, AgentFolder):
        return InputMissing(
            f"{cast.control.id} cannot be dreamt in.",
            why="A packed agent does not tell how episodes begin.",
            fix="Play it in the world: wm play world --agent DIR",
        )
    lacking = "train-memory" if cast.vision is not None else "train-vision"
    place = quote(str(workspace.root))
    return InputMissing(
        "There is nothing to dream with yet.",
        why=f"A dream needs V, which draws it, and M, which goes on with it; {workspace.root} has "
        + (f"{cast.vision.id} and no M of it." if cast.vision is not None else "neither."),
        fix=f"Run `wm {lacking} -w {place}` first, or `wm run -w {place}` for all that is missing.",
    )


def _seed(job: Job, number: int) -> int:
    return episode_seeds("play", job.seed, number, 1)[0]


def _follower(cast: Cast) -> "Follower | None":
    """V and M of the cast, to look on; None without a V."""
    from stages.worlds.following import Follower

    files = cast.files
    if files is None:
        return None
    vision = cached_vision(files.vision_digest, files.vision, files.vision_shape["latent_size"])
    return Follower(vision, load_memory(files), latent=files.pilot.latent)


def _end_weight(cast: Cast) -> float:
    """What an end weighed when M was trained; a packed agent does not tell it."""
    return cast.memory.manifest.config["memory"]["end_weight"] if cast.memory else 1.0


def _choices(cast: Cast, action_spec: ActionSpec) -> "Choices | None":
    """C by itself; None when there is none."""
    if cast.parameters is None or cast.files is None:
        return None
    return load_choices(cast.files, cast.parameters[None], action_spec)


def _chance(action_spec: ActionSpec, world: WorldSpec, shape: tuple[int, int, int]) -> Policy:
    """Who drives when nobody else does: actions that change slowly."""
    from stages.control.data_policies import make_data_policy

    name = "brownian" if action_spec.kind == "box" else "hold"
    return make_data_policy(name, action_spec, shape, repeat=world.repeat)
