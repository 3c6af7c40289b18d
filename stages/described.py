"""What manifests describe of V, M and C, held against each other and against their files.

A manifest may come from anywhere with all of its digests right: nothing of a size that it tells is
built before a file has shown tensors of that size.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_type_hints

from stages.artifacts.artifact import Artifact
from stages.artifacts.summaries import actions_of
from stages.artifacts.weights import check_shapes, unpack_tensors
from stages.contracts import SettingRule
from stages.errors import ArtifactDamaged, UsageError
from stages.settings.values import convert

if TYPE_CHECKING:
    from stages.control.controllers import ControllerShape
    from stages.control.pilot import PilotShape
    from stages.memory.mdn_rnn import MDNRNNShape

Record = TypeVar("Record")


def described(
    summary: Mapping[str, Any], source: str
) -> "tuple[PilotShape, int, MDNRNNShape | None, ControllerShape]":
    """Pilot, Z, M and C as a manifest describes them; ArtifactDamaged when they do not fit."""
    from stages.control.controllers import ControllerShape
    from stages.control.pilot import PilotShape
    from stages.memory.mdn_rnn import MDNRNNShape

    try:
        shapes = summary["shapes"]
        pilot = record_of(PilotShape, summary["pilot"])
        latent_size = convert(shapes["vision"]["latent_size"], int, _SIZE, key="latent_size")
        memory = record_of(MDNRNNShape, shapes["memory"]) if pilot.features != "z" else None
        controller = record_of(ControllerShape, shapes["control"])
        memory_size = memory.hidden_size if memory else 0
        needed = pilot.controller(latent_size, memory_size, controller.num_outputs)
        sizes = (latent_size, controller.num_outputs)
        if controller != needed or (memory and (memory.latent_size, memory.action_size) != sizes):
            raise ValueError(f"{latent_size}, {memory} and {controller} do not fit together")
        convert(summary["engine"], str, SettingRule(""), key="engine")
    except (KeyError, TypeError, ValueError, UsageError) as error:
        raise ArtifactDamaged(
            f"{source}/manifest.json does not describe an agent.", why=f"{error!r}."
        ) from error
    return pilot, latent_size, memory, controller


_SIZE = SettingRule("a size", low=0)
# What artifacts of earlier versions do not tell: the default holds.
_LATER = {"joint_mixture", "head_hidden", "num_blocks", "block_hidden"}


def record_of(cls: type[Record], values: Mapping[str, Any]) -> Record:
    """A record from what a manifest says of its fields; raises when that is not its type."""
    wanted = {n: kind for n, kind in get_type_hints(cls).items() if n in values or n not in _LATER}
    rules = {name: _SIZE if kind is int else SettingRule("") for name, kind in wanted.items()}
    return cls(**{n: convert(values[n], wanted[n], rules[n], key=n) for n in wanted})


def told_actions(artifact: Artifact, size: int) -> Mapping[str, Any]:
    """The actions that something was trained with: all of them, or what is known, their number."""
    told = actions_of(artifact.manifest)
    return asdict(told) if told else {"size": size}


def check_vision(path: Path, latent_size: int, source: str) -> None:
    """Refuse weights of a V with another number of latents."""
    from stages.vision.vae import FLAT

    _check_some(path, {"encoder.mu.weight": (latent_size, FLAT)}, source)


def check_memory(path: Path, shape: "MDNRNNShape", source: str) -> None:
    """Refuse weights of an M of another size."""
    units = shape.hidden_size
    lstm = {"lstm.weight_ih": (4 * units, shape.num_inputs)}
    width = units + shape.latent_size + shape.action_size
    wide = {"wide.weight": (shape.head_hidden, width)} if shape.head_hidden else {}
    blocks = {}
    if shape.num_blocks:
        rows = shape.num_blocks * shape.block_hidden
        blocks = {
            "blocks.weight": (rows, shape.num_seen),
            "before.weight": (rows, shape.latent_size),
            "after.weight": (shape.num_outputs, shape.block_hidden),
        }
    head = {"head.weight": (shape.num_outputs, shape.num_seen)}
    _check_some(path, {**lstm, **wide, **blocks, **head}, source)


def _check_some(path: Path, expected: Mapping[str, tuple[int, ...]], source: str) -> None:
    """Refuse a file in which these tensors have other shapes, before a model of them is built.

    The model looks at the others.
    """
    tensors, _ = unpack_tensors(path)
    found = {key: tensors[key] for key in expected if key in tensors}
    check_shapes(found, expected, source=source)
