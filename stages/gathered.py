"""What a search gathers from recorded latents before it begins: its space, how dreams begin."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stages.agents import AgentFiles, DreamFiles, load_memory
from stages.artifacts.artifact import Artifact
from stages.artifacts.disk import digest_file
from stages.artifacts.partial import Partial
from stages.artifacts.weights import pack_tensors, unpack_tensors
from stages.contracts import ActionSpec, WorldSpec
from stages.control.config import Config
from stages.errors import InputsMismatch, UsageError

if TYPE_CHECKING:
    from stages.control.basis import Basis

BASIS = "basis.safetensors"  # mean and directions of the space that a search moves in
BASIS_STEPS = 40_000  # recorded steps from which it is computed
STARTS = "starts.safetensors"  # mu and logvar of first frames, and the reward of a step
MAX_STARTS = 1000  # as many as the original kept


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


def dream_files(
    partial: Partial,
    latents: Sequence[Artifact],
    memory: Artifact,
    config: Config,
    world: WorldSpec,
    action_spec: ActionSpec,
) -> DreamFiles:
    """What a worker needs to dream.

    Raises:
        UsageError: nothing says how long a dream may last.
    """
    from stages.worlds.dream import DreamTerms

    max_steps = config.dream_steps or world.max_frames // world.repeat
    if not max_steps:
        raise UsageError(
            "A dream needs an end.",
            why=f"{world.env} keeps a time limit of its own, which is not known here.",
            fix="Say after how many actions: --set control.dream_steps=1000",
        )
    starts, digest = dream_starts(partial, latents, memory)
    terms = DreamTerms(
        temperature=config.temperature,
        max_steps=max_steps,
        end=config.dream_end,
        dropout=config.dream_dropout,
        repeat=world.repeat,
    )
    return DreamFiles(str(starts), digest, action_spec, terms, config.precision)


def dream_starts(
    partial: Partial, latents: Sequence[Artifact], memory: Artifact
) -> tuple[Path, str]:
    """How recorded episodes begin, gathered once and kept in the partial; its path and sha256.

    Raises:
        InputsMismatch: rewards differ from step to step, and M has no head for them.
    """
    if not partial.has(STARTS):
        first, rewards = recorded_starts(latents)
        alike = bool((rewards == rewards[0]).all())
        if not alike and not memory.manifest.summary["shape"]["reward_head"]:
            raise InputsMismatch(
                f"{memory.id} cannot be dreamt in: it does not foresee rewards.",
                why=f"Recorded steps earned {rewards.min():g} to {rewards.max():g}.",
                fix="Train one that does: wm train-memory --set memory.reward_head=true",
            )
        tensors: dict[str, NDArray[Any]] = {**first}
        tensors["reward"] = rewards[:1] if alike else rewards[:0]
        partial.write(STARTS, pack_tensors(tensors))
    return partial.path / STARTS, digest_file(partial.path / STARTS)


def recorded_starts(
    latents: Sequence[Artifact],
) -> tuple[dict[str, NDArray[np.float32]], NDArray[np.float64]]:
    """Mu and logvar [E, Z] of how the first episodes begin, and all their rewards."""
    from stages.artifacts.latents import LatentSet

    with closing(LatentSet.of(latents)) as source:
        records = [source.episode(n) for n in range(min(source.num_episodes, MAX_STARTS))]
    first = {
        name: np.stack([getattr(r, name)[0] for r in records]).astype(np.float32)
        for name in ("mu", "logvar")
    }
    return first, np.concatenate([record.rewards for record in records])
