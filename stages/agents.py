"""Trained agents: from artifacts to what a worker needs to build them.

What crosses to a worker is plain: paths whose digests have been checked, shapes, and parameters.
"""

from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stages.artifacts.agent_folder import CONTROL, MEMORY, VISION, AgentFolder
from stages.artifacts.artifact import Artifact
from stages.artifacts.fitting import differing
from stages.artifacts.summaries import actions_of
from stages.artifacts.weights import check_finite, check_shapes, unpack_tensors
from stages.artifacts.workspace import Workspace
from stages.contracts import NO_WORLD, ActionSpec, WorldSpec
from stages.described import check_memory, check_vision, described, record_of, told_actions
from stages.errors import InputsMismatch
from stages.families import WEIGHTS, build_memory, build_vision, load_into

if TYPE_CHECKING:
    from stages.control.pilot import PilotShape
    from stages.memory.mdn_rnn import MDNRNN
    from stages.vision.vae import VAE

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


def action_spec(world: WorldSpec, engine: str) -> ActionSpec:
    """What an action is in this world."""
    from stages.worlds.making import make_world

    with closing(make_world(world, engine=engine)) as opened:
        return opened.action_spec


def known_actions(world: WorldSpec, memory: Artifact | None) -> ActionSpec:
    """What an action is in this world; where there is none, what M learnt of it.

    Raises:
        UsageError: neither tells it.
    """
    from stages.worlds.making import check_world_known

    told = actions_of(memory.manifest) if memory is not None else None
    if world.env == NO_WORLD and told is not None:
        return told
    check_world_known(world.env, "A controller of this memory")
    return action_spec(world, world.engine)


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


def vision_model(vision: Artifact) -> "VAE":
    """V of an artifact, on the CPU."""
    path = vision_weights(vision)
    model = build_vision(vision.manifest.summary["shape"])
    load_into(model, path)
    return model


def memory_model(memory: Artifact) -> "MDNRNN":
    """M of an artifact, on the CPU."""
    from stages.memory.mdn_rnn import MDNRNNShape

    shape = record_of(MDNRNNShape, memory.manifest.summary["shape"])
    path = memory.file(WEIGHTS)
    check_memory(path, shape, f"{memory.id}/{WEIGHTS}")
    model = build_memory(vars(shape))
    load_into(model, path)
    return model


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
