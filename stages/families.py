"""Families of systems: which stages each uses, and the model behind each role.

Models are imported when they are built: listing families loads nothing heavy. A row per family;
a new family adds a row, its models live in the rooms vision, memory and control.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.artifacts.artifact import Artifact
from stages.artifacts.disk import digest_file
from stages.artifacts.weights import unpack_tensors
from stages.errors import ArtifactDamaged, UsageError

if TYPE_CHECKING:
    import torch

    from stages.memory.mdn_rnn import MDNRNN
    from stages.vision.vae import VAE

WEIGHTS = "weights.safetensors"


@dataclass(frozen=True)
class Family:
    """One published system: the order of its stages."""

    name: str
    stages: tuple[str, ...]


FAMILIES = {
    "world-models": Family(
        "world-models",
        (
            "rollout",
            "train-vision",
            "sample-latents",
            "train-memory",
            "train-control",
            "evaluate",
        ),
    ),
}


def family_named(name: str) -> Family:
    """The family; UsageError when a recipe names one that is not built."""
    if name not in FAMILIES:
        raise UsageError(
            f"The family '{name}' is unknown.",
            why=f"This version has {', '.join(FAMILIES)}.",
            fix="Mend `family` in the recipe.",
        )
    return FAMILIES[name]


def build_vision(shape: Mapping[str, Any], *, seed: int = 0) -> "VAE":
    """An untrained V, its weights drawn from the seed."""
    from stages.vision.vae import VAE

    return VAE(shape["latent_size"], seed=seed)


def build_memory(shape: Mapping[str, Any], *, seed: int = 0) -> "MDNRNN":
    """An untrained M, its weights drawn from the seed."""
    from stages.memory.mdn_rnn import MDNRNN, MDNRNNShape

    known = {f.name for f in fields(MDNRNNShape)}
    return MDNRNN(MDNRNNShape(**{n: told for n, told in shape.items() if n in known}), seed=seed)


def start_from(model: "torch.nn.Module", parents: Sequence[Artifact], kind: str) -> None:
    """Fill a model with the weights of the parent of its own kind, if there is one."""
    for parent in parents:
        if parent.kind == kind:
            load_into(model, parent.file(WEIGHTS))


def check_unchanged(path: Path, digest: str) -> None:
    """ArtifactDamaged when a file is not any more what it was when the command began."""
    if digest_file(path) != digest:
        raise ArtifactDamaged(
            f"{path} has changed since this command began to use it.",
            why=f"Its sha256 is not {digest}.",
            fix="Put it back, then run the same command again: it goes on where it stopped.",
        )


def load_into(model: "torch.nn.Module", path: Path, *, digest: str = "") -> None:
    """Fill a model from a safetensors file; all must be finite.

    Without the sha256 in `digest` the caller has just checked the file. Workers give it: one that
    starts days later must not use other weights than those before it.
    """
    import torch

    from stages.artifacts.weights import check_finite, check_shapes

    if digest:
        check_unchanged(path, digest)
    tensors, _ = unpack_tensors(path)
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    check_shapes(tensors, expected)
    check_finite(tensors, source=str(path))
    model.load_state_dict({name: torch.from_numpy(value) for name, value in tensors.items()})
    model.eval()
