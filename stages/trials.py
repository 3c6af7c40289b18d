"""Episodes that agents drive in one task: what a worker builds from plain paths, and keeps."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.agents import AgentFiles, Parameters, check_actions
from stages.artifacts.weights import unpack_tensors
from stages.contracts import ActionSpec, EpisodeOutcome, FrameWorld, Policy, World, WorldSpec
from stages.execution.worker import sign_of_life
from stages.families import build_memory, build_vision, check_unchanged, load_into

if TYPE_CHECKING:
    from stages.control.data_policies import Strays
    from stages.control.pilot import Choices, Pilot
    from stages.memory.dreaming import DreamingMemory
    from stages.memory.mdn_rnn import MDNRNN
    from stages.vision.vae import VAE
    from stages.worlds.dream import DreamTerms, DreamWorld, Starts
    from stages.worlds.following import Follower


@dataclass(frozen=True)
class DreamFiles:
    """All that a worker needs, besides the agent's files, to dream."""

    starts: str  # path of where dreams begin
    starts_digest: str
    action_spec: ActionSpec
    terms: "DreamTerms"
    precision: str = "float32"  # of M's matrix products
    device: str = "cpu"


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
        device = trial.dream.device
        choices = load_choices(trial.agent, trial.parameters, dream.action_spec, device=device)
        return dream, Dreamer(dream, choices)
    world = cached_world(trial.world, trial.engine, random_start=trial.random_start)
    if not trial.oracle:
        return world, load_pilot(trial.agent, trial.parameters, world.action_spec)
    from stages.worlds.oracle import OracleWorld

    seen = OracleWorld(world, load_follower(trial.agent))
    return seen, Dreamer(seen, load_choices(trial.agent, trial.parameters, world.action_spec))


def load_choices(
    agent: AgentFiles, parameters: Parameters, action_spec: ActionSpec, *, device: str = "cpu"
) -> "Choices":
    """Controllers [B, P], or one for all lanes [1, P], by themselves; runs in a worker."""
    from stages.control.controllers import Controllers
    from stages.control.pilot import Choices

    check_actions(agent, action_spec)
    memory_size = agent.memory_shape["hidden_size"] if agent.memory_shape else 0
    latent_size = agent.vision_shape["latent_size"]
    shape = agent.pilot.controller(latent_size, memory_size, action_spec.size)
    controllers = Controllers(shape, parameters, device=device)
    return Choices(controllers, agent.pilot, action_spec)


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
        agent.memory_digest,
        agent.memory,
        _items(agent.memory_shape),
        dream.precision,
        dream.device,
    )
    starts = cached_starts(dream.starts_digest, dream.starts)
    return DreamWorld(memory, starts, dream.action_spec, dream.terms)


def load_pilot(
    agent: AgentFiles,
    parameters: Parameters,
    action_spec: ActionSpec,
    strays: "Strays | None" = None,
) -> "Pilot":
    """The agent with controllers [B, P], or one for all lanes, [1, P]; runs in a worker."""
    from stages.control.pilot import Pilot

    return Pilot(load_follower(agent), load_choices(agent, parameters, action_spec), strays)


@lru_cache(maxsize=1)
def cached_dreaming(
    digest: str,
    path: str | None,
    shape: tuple[tuple[str, Any], ...],
    precision: str,
    device: str,
    compiled: bool = False,  # the draw
) -> "DreamingMemory":
    """M as it dreams, its products of this precision, on this device; kept by this process."""
    from stages.memory.dreaming import DreamingMemory
    from stages.training.precision import training_dtype

    memory = cached_memory(digest, path, shape)
    assert memory is not None, "a dream without a memory"
    if device != "cpu":
        memory = deepcopy(memory).to(device)  # the one on the processor goes on in the world
    return DreamingMemory(memory, dtype=training_dtype(precision), compiled=compiled)


@lru_cache(maxsize=2)  # those of candidates, and of the mean vector
def cached_starts(digest: str, path: str) -> "Starts":
    """Where dreams begin, from a file of which workers look at every byte again."""
    from stages.worlds.dream import Inside, Starts

    check_unchanged(Path(path), digest)
    tensors, _ = unpack_tensors(Path(path))
    told = tensors.pop("reward")
    reward = float(told[0]) if len(told) else None
    mu, logvar = tensors.pop("mu"), tensors.pop("logvar")
    return Starts(mu, logvar, reward, Inside(**tensors) if tensors else None)


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
