"""Trained agents: from artifacts to a policy in a worker, and the episodes it drives there.

What crosses to a worker is plain: paths whose digests have been checked, shapes, and parameters.
"""

from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stages.artifacts.agent_folder import CONTROL, MEMORY, VISION, AgentFolder
from stages.artifacts.artifact import Artifact
from stages.artifacts.fitting import differing
from stages.artifacts.weights import check_finite, check_shapes, unpack_tensors
from stages.artifacts.workspace import Workspace
from stages.contracts import ActionSpec, EpisodeOutcome, FrameWorld, Policy, World, WorldSpec
from stages.described import check_memory, check_vision, described, record_of, told_actions
from stages.errors import InputsMismatch
from stages.execution.worker import sign_of_life
from stages.families import WEIGHTS, build_memory, build_vision, check_unchanged, load_into

if TYPE_CHECKING:
    from stages.control.pilot import Choices, Pilot, PilotShape
    from stages.memory.dreaming import DreamingMemory
    from stages.memory.mdn_rnn import MDNRNN
    from stages.vision.vae import VAE
    from stages.worlds.dream import DreamTerms, DreamWorld, Starts
    from stages.worlds.following import Follower

Parameters = NDArray[np.floating]
MODELS = ("vision", "memory")


@dataclass(frozen=True)
class AgentFiles:
    """All that a worker needs to build the agent; plain values, so that it can be sent."""

    vision: str  # path of V's weights
    vision_digest: str
    vision_shape: Mapping[str, Any]
    memory: str | None
    memory_digest: str
    memory_shape: Mapping[str, Any] | None
    pilot: "PilotShape"
    name: str = ""  # of whom messages speak
    actions: Mapping[str, Any] = field(default_factory=dict)  # trained with; an ActionSpec's fields


@dataclass(frozen=True)
class DreamFiles:
    """All that a worker needs, besides the agent's files, to dream."""

    starts: str  # path of how recorded episodes begin
    starts_digest: str
    action_spec: ActionSpec
    terms: "DreamTerms"
    precision: str = "float32"  # of M's matrix products


@dataclass(frozen=True)
class Trial:
    """Episodes that one agent, or one controller per lane, drives in one task."""

    world: WorldSpec
    engine: str
    agent: AgentFiles
    parameters: Parameters  # [B, P], or [1, P] for all lanes
    seeds: tuple[int, ...]  # [B]
    patience: int = 0  # give a lane up after so many actions without reward; 0: never
    max_steps: int = 0  # actions per episode at most; 0: to its end
    random_start: bool = False  # begin anywhere on the track
    drivers: tuple[str, ...] = ()  # [B], who drives, for messages; empty: one for all
    dream: DreamFiles | None = None  # in M's dream instead of the world
    oracle: bool = False  # in the world as a dream shows it


def run_trial(trial: Trial) -> list[EpisodeOutcome]:
    """Drive one episode per seed; runs in a worker."""
    from stages.worlds.driving import StopRule, drive

    world, policy = _played(trial)
    return drive(
        world,
        policy,
        trial.seeds,
        stop_rule=StopRule(trial.patience) if trial.patience else None,
        max_steps=trial.max_steps or None,
        tick=sign_of_life,
        drivers=trial.drivers,
    )


def _played(trial: Trial) -> "tuple[World, Policy]":
    """The world of a trial, and the agent in it."""
    from stages.control.pilot import Dreamer

    if trial.dream is not None:
        dream = load_dream(trial.agent, trial.dream)
        choices = load_choices(trial.agent, trial.parameters, dream.action_spec)
        return dream, Dreamer(dream, choices)
    world = cached_world(trial.world, trial.engine, random_start=trial.random_start)
    if not trial.oracle:
        return world, load_pilot(trial.agent, trial.parameters, world.action_spec)
    from stages.worlds.oracle import OracleWorld

    seen = OracleWorld(world, load_follower(trial.agent))
    return seen, Dreamer(seen, load_choices(trial.agent, trial.parameters, world.action_spec))


def load_choices(agent: AgentFiles, parameters: Parameters, action_spec: ActionSpec) -> "Choices":
    """Controllers [B, P], or one for all lanes [1, P], by themselves; runs in a worker."""
    from stages.control.controllers import Controllers
    from stages.control.pilot import Choices

    check_actions(agent, action_spec)
    memory_size = agent.memory_shape["hidden_size"] if agent.memory_shape else 0
    latent_size = agent.vision_shape["latent_size"]
    shape = agent.pilot.controller(latent_size, memory_size, action_spec.size)
    return Choices(Controllers(shape, parameters), agent.pilot, action_spec)


def load_follower(agent: AgentFiles) -> "Follower":
    """V, and M where C sees what it remembers."""
    from stages.worlds.following import Follower

    vision = cached_vision(agent.vision_digest, agent.vision, agent.vision_shape["latent_size"])
    memory = load_memory(agent) if agent.pilot.features != "z" else None
    return Follower(vision, memory, latent=agent.pilot.latent)


def load_dream(agent: AgentFiles, dream: DreamFiles) -> "DreamWorld":
    """The dream of an agent's M."""
    from stages.worlds.dream import DreamWorld

    memory = cached_dreaming(
        agent.memory_digest, agent.memory, _items(agent.memory_shape), dream.precision
    )
    starts = cached_starts(dream.starts_digest, dream.starts)
    return DreamWorld(memory, starts, dream.action_spec, dream.terms)


def action_spec(world: WorldSpec, engine: str) -> ActionSpec:
    """What an action is in this world."""
    from stages.worlds.making import make_world

    with closing(make_world(world, engine=engine)) as opened:
        return opened.action_spec


def agent_files(vision: Artifact, memory: Artifact | None, pilot: "PilotShape") -> AgentFiles:
    """The record from which workers build V and M; their files are checked here, once."""
    found = AgentFiles(
        vision=str(vision_weights(vision)),
        vision_digest=vision.entry(WEIGHTS).sha256,
        vision_shape=vision.manifest.summary["shape"],
        memory=None,
        memory_digest="",
        memory_shape=None,
        pilot=pilot,
        name=vision.id,
    )
    if memory is None:
        return found
    from stages.memory.mdn_rnn import MDNRNNShape

    shape = record_of(MDNRNNShape, memory.manifest.summary["shape"])
    path = memory.file(WEIGHTS)
    check_memory(path, shape, f"{memory.id}/{WEIGHTS}")
    return replace(
        found,
        memory=str(path),
        memory_digest=memory.entry(WEIGHTS).sha256,
        memory_shape=asdict(shape),
        name=memory.id,
        actions=told_actions(memory, shape.action_size),
    )


def vision_weights(vision: Artifact) -> Path:
    """V's file, after its digest and its size were compared with what the manifest says."""
    path = vision.file(WEIGHTS)
    check_vision(path, vision.manifest.summary["shape"]["latent_size"], f"{vision.id}/{WEIGHTS}")
    return path


def lineage(workspace: Workspace, control: Artifact) -> tuple[Artifact, ...]:
    """A controller's artifact followed by the vision and the memory that it was searched with.

    A packed agent stands alone.
    """
    if isinstance(control, AgentFolder):
        return (control,)
    named = [parent for parent in control.manifest.parents if parent.kind in MODELS]
    return (control, *(workspace.resolve(parent) for parent in named))


def trained_agent(workspace: Workspace, control: Artifact) -> tuple[AgentFiles, Parameters]:
    """The agent of a control artifact: the files of V and M, and the parameters [P] of its C.

    Instead of the artifact it may be a packed agent.
    """
    if isinstance(control, AgentFolder):
        return packed_agent(control)
    summary = control.manifest.summary
    by_kind = {one.kind: one for one in lineage(workspace, control)}
    shapes = {kind: one.manifest.summary["shape"] for kind, one in by_kind.items()}
    pilot, _, _, controller = described({**summary, "shapes": shapes}, control.id)
    files = agent_files(by_kind["vision"], by_kind.get("memory"), pilot)
    actions = told_actions(control, controller.num_outputs)
    return replace(files, name=control.id, actions=actions), controller_parameters(control)


def check_engine(engine: str, vision: Artifact) -> None:
    """Refuse an engine whose pictures V was not trained on."""
    from stages.worlds.making import same_pictures

    known = vision.manifest.summary["engines"]
    if not any(same_pictures(engine, other) for other in known):
        raise InputsMismatch(
            f"{vision.id} never saw pictures of the engine {engine}.",
            why=f"It was trained on pictures of {', '.join(known)}.",
            fix=f"Use --set world.engine={known[0]}, or record and train on {engine} too.",
        )


def controller_parameters(control: Artifact) -> Parameters:
    """The parameters [P] of the controller that a search kept."""
    from stages.control.controllers import ControllerShape, join_parameters

    tensors, _ = unpack_tensors(control.file(WEIGHTS))
    shape = record_of(ControllerShape, control.manifest.summary["shape"])
    check_shapes(tensors, shape.tensors, source=f"{control.id}/{WEIGHTS}")
    check_finite(tensors, source=f"{control.id}/{WEIGHTS}")
    return join_parameters(shape, tensors)


def packed_agent(agent: AgentFolder) -> tuple[AgentFiles, Parameters]:
    """The files of V and M in a packed agent, and the parameters [P] of its C.

    Its manifest may come from anywhere: what it says is held against the files, whose digests are
    checked, before anything of such a size is built.
    """
    from stages.control.controllers import join_parameters

    pilot, latent_size, memory, controller = described(agent.manifest.summary, agent.id)
    check_vision(agent.file(VISION), latent_size, f"{agent.id}/{VISION}")
    if memory is not None:
        check_memory(agent.file(MEMORY), memory, f"{agent.id}/{MEMORY}")
    tensors, _ = unpack_tensors(agent.file(CONTROL))
    check_shapes(tensors, controller.tensors, source=f"{agent.id}/{CONTROL}")
    check_finite(tensors, source=f"{agent.id}/{CONTROL}")
    files = AgentFiles(
        vision=str(agent.path / VISION),
        vision_digest=agent.entry(VISION).sha256,
        vision_shape={"latent_size": latent_size},
        memory=str(agent.path / MEMORY) if memory else None,
        memory_digest=agent.entry(MEMORY).sha256 if memory else "",
        memory_shape=asdict(memory) if memory else None,
        pilot=pilot,
        name=agent.id,
        actions=told_actions(agent, controller.num_outputs),
    )
    return files, join_parameters(controller, tensors)


def check_actions(agent: AgentFiles, spec: ActionSpec) -> None:
    """Refuse a world in which an action is something else, showing both sides field by field."""
    here = asdict(spec)
    sides = differing("actions", agent.actions, {name: here[name] for name in agent.actions})
    if sides:
        raise InputsMismatch(
            f"{agent.name} was trained with other actions than this world has.",
            why=sides,
            fix="Install the version of the environment's package that its manifest names, or "
            "train again from `wm rollout --force` on.",
        )


def load_pilot(agent: AgentFiles, parameters: Parameters, action_spec: ActionSpec) -> "Pilot":
    """The agent with controllers [B, P], or one for all lanes, [1, P]; runs in a worker."""
    from stages.control.pilot import Pilot

    return Pilot(load_follower(agent), load_choices(agent, parameters, action_spec))


@lru_cache(maxsize=1)
def cached_dreaming(
    digest: str, path: str | None, shape: tuple[tuple[str, Any], ...], precision: str
) -> "DreamingMemory":
    """M as it dreams, its products of this precision; kept by this process."""
    from stages.memory.dreaming import DreamingMemory
    from stages.training.precision import training_dtype

    memory = cached_memory(digest, path, shape)
    assert memory is not None, "a dream without a memory"
    return DreamingMemory(memory, dtype=training_dtype(precision))


@lru_cache(maxsize=1)
def cached_starts(digest: str, path: str) -> "Starts":
    """How recorded episodes begin, from a file of which workers look at every byte again."""
    from stages.worlds.dream import Starts

    check_unchanged(Path(path), digest)
    tensors, _ = unpack_tensors(Path(path))
    reward = tensors["reward"]
    return Starts(tensors["mu"], tensors["logvar"], float(reward[0]) if len(reward) else None)


def load_memory(agent: AgentFiles) -> "MDNRNN | None":
    """M of these files; None for an agent that sees z alone."""
    return cached_memory(agent.memory_digest, agent.memory, _items(agent.memory_shape))


def _items(shape: Mapping[str, Any] | None) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted(shape.items())) if shape else ()


@lru_cache(maxsize=2)
def cached_world(world: WorldSpec, engine: str, *, random_start: bool) -> FrameWorld:
    """The world of a spec, kept by this process: a reused world equals a fresh one."""
    from stages.worlds.making import make_world

    return make_world(world, engine=engine, random_start=random_start)


@lru_cache(maxsize=2)
def cached_vision(digest: str, path: str, latent_size: int) -> "VAE":
    """V from a file, of which workers look at every byte again; kept by this process."""
    model = build_vision({"latent_size": latent_size})
    load_into(model, Path(path), digest=digest)
    return model


@lru_cache(maxsize=2)
def cached_memory(
    digest: str, path: str | None, shape: tuple[tuple[str, Any], ...]
) -> "MDNRNN | None":
    """M from a file, of which workers look at every byte again; kept by this process."""
    if path is None:
        return None
    model = build_memory(dict(shape))
    load_into(model, Path(path), digest=digest)
    return model
