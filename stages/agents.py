"""Trained agents: from artifacts to a policy in a worker, and the episodes it drives there.

What crosses to a worker is plain: paths whose digests have been checked, shapes, and parameters.
"""

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stages.artifacts.artifact import Artifact
from stages.artifacts.weights import check_shapes, unpack_tensors
from stages.artifacts.workspace import Workspace
from stages.contracts import ActionSpec, EpisodeOutcome, World, WorldSpec
from stages.families import WEIGHTS, build_memory, build_vision, load_into

if TYPE_CHECKING:
    from stages.control.pilot import Pilot, PilotShape
    from stages.memory.mdn_rnn import MDNRNN
    from stages.vision.vae import VAE

Parameters = NDArray[np.floating]


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


def run_trial(trial: Trial) -> list[EpisodeOutcome]:
    """Drive one episode per seed; runs in a worker."""
    from stages.worlds.driving import StopRule, drive

    world = cached_world(trial.world, trial.engine)
    return drive(
        world,
        load_pilot(trial.agent, trial.parameters, world.action_spec),
        trial.seeds,
        stop_rule=StopRule(trial.patience) if trial.patience else None,
        max_steps=trial.max_steps or None,
    )


def action_spec(world: WorldSpec, engine: str) -> ActionSpec:
    """What an action is in this world."""
    from stages.worlds.making import make_world

    with closing(make_world(world, engine=engine)) as opened:
        return opened.action_spec


def agent_files(vision: Artifact, memory: Artifact | None, pilot: "PilotShape") -> AgentFiles:
    """The record from which workers build V and M; digests are checked here, once."""
    return AgentFiles(
        vision=str(vision.file(WEIGHTS)),
        vision_digest=vision.manifest.payload_digest,
        vision_shape=vision.manifest.summary["shape"],
        memory=str(memory.file(WEIGHTS)) if memory is not None else None,
        memory_digest=memory.manifest.payload_digest if memory is not None else "",
        memory_shape=memory.manifest.summary["shape"] if memory is not None else None,
        pilot=pilot,
    )


def lineage(workspace: Workspace, control: Artifact) -> tuple[Artifact, ...]:
    """A controller's artifact followed by the vision and the memory that it was searched with."""
    models = [workspace.resolve(parent) for parent in control.manifest.parents]
    return (control, *models)


def trained_agent(workspace: Workspace, control: Artifact) -> tuple[AgentFiles, Parameters]:
    """The agent of a control artifact: the files of V and M, and the parameters [P] of its C."""
    from stages.control.controllers import ControllerShape, join_parameters
    from stages.control.pilot import PilotShape

    _, *models = lineage(workspace, control)
    by_kind = {artifact.kind: artifact for artifact in models}
    summary = control.manifest.summary
    tensors, _ = unpack_tensors(control.file(WEIGHTS))
    shape = ControllerShape(**summary["shape"])
    check_shapes(tensors, shape.tensors, source=f"{control.id}/{WEIGHTS}")
    pilot = PilotShape(**{**summary["pilot"], "squash": tuple(summary["pilot"]["squash"])})
    files = agent_files(by_kind["vision"], by_kind.get("memory"), pilot)
    return files, join_parameters(shape, tensors)


def load_pilot(agent: AgentFiles, parameters: Parameters, action_spec: ActionSpec) -> "Pilot":
    """The agent with controllers [B, P] (or one for all lanes, [1, P]); runs in a worker."""
    from stages.control.controllers import Controllers
    from stages.control.pilot import Pilot

    vision = cached_vision(agent.vision_digest, agent.vision, agent.vision_shape["latent_size"])
    memory = cached_memory(agent.memory_digest, agent.memory, _items(agent.memory_shape))
    memory_size = agent.memory_shape["hidden_size"] if agent.memory_shape else 0
    shape = agent.pilot.controller(vision.latent_size, memory_size, action_spec.size)
    controllers = Controllers(shape, parameters)
    return Pilot(vision, memory, controllers, shape=agent.pilot, action_spec=action_spec)


def _items(shape: Mapping[str, Any] | None) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted(shape.items())) if shape else ()


@lru_cache(maxsize=1)
def cached_world(world: WorldSpec, engine: str) -> World:
    """The world of a spec, kept by this process: a reused world equals a fresh one."""
    from stages.worlds.making import make_world

    return make_world(world, engine=engine)


@lru_cache(maxsize=2)
def cached_vision(digest: str, path: str, latent_size: int) -> "VAE":
    """V from a checked file, kept by this process."""
    del digest  # part of the key: the path of an artifact may hold another one after a move
    model = build_vision({"latent_size": latent_size})
    load_into(model, Path(path))
    return model


@lru_cache(maxsize=2)
def cached_memory(
    digest: str, path: str | None, shape: tuple[tuple[str, Any], ...]
) -> "MDNRNN | None":
    """M from a checked file, kept by this process; None without one."""
    del digest
    if path is None:
        return None
    model = build_memory(dict(shape))
    load_into(model, Path(path))
    return model
