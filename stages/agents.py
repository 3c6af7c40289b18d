"""Trained agents: from artifacts to a policy in a worker, and the episodes it drives there.

What crosses to a worker is plain: paths whose digests have been checked, shapes, and parameters.
"""

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_type_hints

import numpy as np
from numpy.typing import NDArray

from stages.artifacts.agent_folder import CONTROL, MEMORY, VISION, AgentFolder
from stages.artifacts.artifact import Artifact
from stages.artifacts.partial import Partial
from stages.artifacts.weights import check_shapes, pack_tensors, unpack_tensors
from stages.artifacts.workspace import Workspace
from stages.contracts import ActionSpec, EpisodeOutcome, SettingRule, World, WorldSpec
from stages.errors import ArtifactDamaged, InputsMismatch, UsageError
from stages.families import WEIGHTS, build_memory, build_vision, load_into
from stages.settings.values import convert

if TYPE_CHECKING:
    from stages.control.basis import Basis
    from stages.control.controllers import ControllerShape
    from stages.control.pilot import Pilot, PilotShape
    from stages.memory.mdn_rnn import MDNRNN, MDNRNNShape
    from stages.vision.vae import VAE

Parameters = NDArray[np.floating]
Record = TypeVar("Record")
MODELS = ("vision", "memory")
BASIS = "basis.safetensors"  # mean and directions of the space that a search moves in
BASIS_STEPS = 40_000  # recorded steps from which it is computed


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
    random_start: bool = False  # begin anywhere on the track


def run_trial(trial: Trial) -> list[EpisodeOutcome]:
    """Drive one episode per seed; runs in a worker."""
    from stages.worlds.driving import StopRule, drive

    world = cached_world(trial.world, trial.engine, random_start=trial.random_start)
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
    from stages.control.pilot import PilotShape

    _, *models = lineage(workspace, control)
    by_kind = {artifact.kind: artifact for artifact in models}
    pilot = control.manifest.summary["pilot"]
    shape = PilotShape(**{**pilot, "squash": tuple(pilot["squash"])})
    files = agent_files(by_kind["vision"], by_kind.get("memory"), shape)
    return files, controller_parameters(control)


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
    shape = ControllerShape(**control.manifest.summary["shape"])
    check_shapes(tensors, shape.tensors, source=f"{control.id}/{WEIGHTS}")
    return join_parameters(shape, tensors)


def packed_agent(agent: AgentFolder) -> tuple[AgentFiles, Parameters]:
    """The files of V and M in a packed agent, and the parameters [P] of its C.

    Its manifest may come from anywhere: what it says is held against the files, whose digests are
    checked, before anything of such a size is built.
    """
    from stages.control.controllers import join_parameters
    from stages.vision.vae import FLAT

    pilot, latent_size, memory, controller = _described(agent)
    _check_some(agent, VISION, {"encoder.mu.weight": (latent_size, FLAT)})
    if memory is not None:
        units, outputs = memory.hidden_size, 3 * memory.latent_size * memory.num_mixtures
        lstm = {"lstm.weight_ih": (4 * units, memory.num_inputs)}
        _check_some(agent, MEMORY, {**lstm, "head.weight": (outputs, units)})
    tensors, _ = unpack_tensors(agent.file(CONTROL))
    check_shapes(tensors, controller.tensors, source=f"{agent.id}/{CONTROL}")
    files = AgentFiles(
        vision=str(agent.path / VISION),
        vision_digest=agent.entry(VISION).sha256,
        vision_shape={"latent_size": latent_size},
        memory=str(agent.path / MEMORY) if memory else None,
        memory_digest=agent.entry(MEMORY).sha256 if memory else "",
        memory_shape=asdict(memory) if memory else None,
        pilot=pilot,
    )
    return files, join_parameters(controller, tensors)


def _described(
    agent: AgentFolder,
) -> "tuple[PilotShape, int, MDNRNNShape | None, ControllerShape]":
    """Pilot, Z, M and C as the manifest describes them; ArtifactDamaged when they do not fit."""
    from stages.control.controllers import ControllerShape
    from stages.control.pilot import PilotShape
    from stages.memory.mdn_rnn import MDNRNNShape

    summary = agent.manifest.summary
    try:
        shapes = summary["shapes"]
        pilot = _record(PilotShape, summary["pilot"])
        latent_size = convert(shapes["vision"]["latent_size"], int, _SIZE, key="latent_size")
        memory = _record(MDNRNNShape, shapes["memory"]) if pilot.features != "z" else None
        controller = _record(ControllerShape, shapes["control"])
        memory_size = memory.hidden_size if memory else 0
        needed = pilot.controller(latent_size, memory_size, controller.num_outputs)
        if controller != needed or (memory and memory.latent_size != latent_size):
            raise ValueError(f"{latent_size}, {memory} and {controller} do not fit together")
        convert(summary["engine"], str, SettingRule(""), key="engine")
    except (KeyError, TypeError, ValueError, UsageError) as error:
        raise ArtifactDamaged(
            f"{agent.id}/manifest.json does not describe an agent.", why=f"{error!r}."
        ) from error
    return pilot, latent_size, memory, controller


_SIZE = SettingRule("a size", low=0)


def _record(cls: type[Record], values: Mapping[str, Any]) -> Record:
    """A record from what a manifest says of its fields; raises when that is not its type."""
    wanted = get_type_hints(cls)
    rules = {name: _SIZE if kind is int else SettingRule("") for name, kind in wanted.items()}
    return cls(**{n: convert(values[n], wanted[n], rules[n], key=n) for n in wanted})


def _check_some(agent: AgentFolder, name: str, expected: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse a file in which these tensors have other shapes; the model looks at the others."""
    tensors, _ = unpack_tensors(agent.file(name))
    found = {key: tensors[key] for key in expected if key in tensors}
    check_shapes(found, expected, source=f"{agent.id}/{name}")


def load_pilot(agent: AgentFiles, parameters: Parameters, action_spec: ActionSpec) -> "Pilot":
    """The agent with controllers [B, P] (or one for all lanes, [1, P]); runs in a worker."""
    from stages.control.controllers import Controllers
    from stages.control.pilot import Pilot

    vision = cached_vision(agent.vision_digest, agent.vision, agent.vision_shape["latent_size"])
    memory = load_memory(agent)
    memory_size = agent.memory_shape["hidden_size"] if agent.memory_shape else 0
    shape = agent.pilot.controller(vision.latent_size, memory_size, action_spec.size)
    controllers = Controllers(shape, parameters)
    return Pilot(vision, memory, controllers, shape=agent.pilot, action_spec=action_spec)


def fitted_basis(
    partial: Partial,
    latents: Sequence[Artifact],
    agent: AgentFiles,
    num_components: int,
    *,
    centred: bool,
) -> "Basis | None":
    """The space that is searched, computed once and kept in the partial; None: every weight."""
    from stages.artifacts.latents import LatentSet
    from stages.control.basis import Basis, fit_basis, inputs_of

    if not latents:
        return None
    if not partial.has(BASIS):
        with closing(LatentSet.of(latents)) as source:
            memory, features = load_memory(agent), agent.pilot.features
            inputs = inputs_of(source, memory, features, limit=BASIS_STEPS)
        fitted = fit_basis(inputs, num_components, centred=centred)
        partial.write(BASIS, pack_tensors(asdict(fitted)))
    tensors, _ = unpack_tensors(partial.path / BASIS)
    return Basis(mean=tensors["mean"], directions=tensors["directions"])


def load_memory(agent: AgentFiles) -> "MDNRNN | None":
    """M of these files; None for an agent that sees z alone."""
    return cached_memory(agent.memory_digest, agent.memory, _items(agent.memory_shape))


def _items(shape: Mapping[str, Any] | None) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted(shape.items())) if shape else ()


@lru_cache(maxsize=2)
def cached_world(world: WorldSpec, engine: str, *, random_start: bool) -> World:
    """The world of a spec, kept by this process: a reused world equals a fresh one."""
    from stages.worlds.making import make_world

    return make_world(world, engine=engine, random_start=random_start)


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
