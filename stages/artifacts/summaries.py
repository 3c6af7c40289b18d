"""What the manifest of each kind must tell its readers, looked at once, when it is loaded.

A manifest may come from anywhere with all of its digests right. Behind this door whatever a stage
takes out of its summary, its settings, its seeds and its parents is there, has its type, and is a
size that a model could have; whether it fits the files is for those who open them to see.
"""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from stages.artifacts.manifest import Manifest
from stages.artifacts.plain import (
    COUNT,
    FLAG,
    NUMBER,
    SIZE,
    TEXT,
    Rule,
    fault,
    keyed,
    listed,
    one_of,
    optional,
)
from stages.contracts import ActionSpec, WorldSpec
from stages.errors import ArtifactDamaged, UsageError
from stages.settings.schema import build

AGENTS = "agents"  # kind of a packed agent, a folder outside of workspaces
STAND_INS = {"rollouts": ("plays",)}  # kinds that are read as another where --from names them

_WORLD = {f.name for f in fields(WorldSpec)} - {"engine"}  # V and M belong to none
_ACTIONS = {
    "summary.actions.kind": one_of("box", "choice", "none"),
    "summary.actions.size": SIZE,
    "summary.actions.low": listed(NUMBER),
    "summary.actions.high": listed(NUMBER),
}
_ENGINES = {"summary.engines": listed(TEXT, least=1)}
_SEED = {"config.seed": COUNT}
_MEMORY_SHAPE = {
    **dict.fromkeys(("latent_size", "action_size", "hidden_size", "num_mixtures"), SIZE),
    **dict.fromkeys(("reward_head", "end_head", "restart_flag"), FLAG),
    "min_log_sigma": NUMBER,
    "joint_mixture": optional(FLAG),
    "head_hidden": optional(COUNT),
    "num_blocks": optional(COUNT),
    "block_hidden": optional(COUNT),
}
_TOLD: Mapping[str, Mapping[str, Rule]] = {
    "rollouts": {**_SEED, **_ACTIONS, **_ENGINES},
    "plays": {**_SEED, **_ACTIONS, **_ENGINES, "seeds.seeds": listed(COUNT)},
    "vision": {
        **_SEED,
        **_ENGINES,
        "summary.shape.latent_size": SIZE,
        "summary.parameters": COUNT,
    },
    "latents": {**_ACTIONS, **_ENGINES, "summary.latent_size": SIZE},
    "memory": {
        **_SEED,
        **{f"summary.shape.{name}": rule for name, rule in _MEMORY_SHAPE.items()},
        "summary.parameters": COUNT,
    },
    "control": {
        **_SEED,
        "summary.shape.num_inputs": SIZE,
        "summary.shape.num_outputs": SIZE,
        "summary.shape.hidden": COUNT,
        "summary.shape.bias": FLAG,
        "summary.pilot.features": one_of("z", "zh", "zch"),
        "summary.pilot.hidden": COUNT,
        "summary.pilot.bias": FLAG,
        "summary.pilot.latent": one_of("mean", "sample"),
        "summary.pilot.squash": listed(one_of("linear", "clip")),
        "summary.engine": TEXT,
        "summary.parameters": COUNT,
        "summary.generations": COUNT,
        "summary.frames": COUNT,
        "summary.frames_before": optional(COUNT),
        **{f"seeds.{purpose}.count": COUNT for purpose in ("search", "selection")},
        **{f"seeds.{purpose}.before": optional(COUNT) for purpose in ("search", "selection")},
    },
    "evaluations": {
        "config.evaluate.max_steps": COUNT,
        "summary.mean": NUMBER,
        "summary.stderr": NUMBER,
        "summary.episodes": COUNT,
        "summary.scores": keyed(keyed(optional(NUMBER))),
        "summary.engine": TEXT,
        "summary.trained_on": TEXT,
        "summary.lap_rule": TEXT,
        "summary.vision_error": optional(NUMBER),
        "seeds.seeds": listed(COUNT),
    },
}
_PARENTS = {
    "vision": ("rollouts",),
    "latents": ("rollouts", "vision"),
    "memory": ("latents", "vision"),
    "control": ("vision",),
}


def check_told(manifest: Manifest, source: str) -> None:
    """Refuse a manifest that lacks what readers of its kind need; `source` is its artifact's id.

    Raises:
        ArtifactDamaged: with the first place where it is wrong.
    """
    world_of(manifest, source)
    wrong = fault(vars(manifest), _TOLD.get(manifest.kind, {})) or _contradiction(manifest)
    if wrong:
        raise ArtifactDamaged(
            f"{source}/manifest.json is not that of {manifest.kind}.", why=f"{wrong}."
        )


def world_of(manifest: Manifest, source: str) -> WorldSpec:
    """The world that an artifact belongs to; ArtifactDamaged when its manifest tells none."""
    told = manifest.config.get("world")
    if not isinstance(told, Mapping) or not told.keys() >= _WORLD:
        raise ArtifactDamaged(f"{source}/manifest.json does not tell its world.")
    try:
        return build(WorldSpec, told, section="world", source=f"{source}/manifest.json")
    except UsageError as error:
        raise ArtifactDamaged(
            f"{source}/manifest.json tells a world that cannot be.", why=str(error)
        ) from error


def actions_of(manifest: Manifest) -> ActionSpec | None:
    """The action space that an artifact belongs to; None where its manifest does not tell it."""
    told = manifest.summary.get("actions")
    if told is None:
        return None
    return ActionSpec(told["kind"], told["size"], tuple(told["low"]), tuple(told["high"]))


def _contradiction(manifest: Manifest) -> str:
    """What the parts of a manifest say against each other; empty when nothing."""
    lacking = [
        kind
        for kind in _PARENTS.get(manifest.kind, ())
        if not _has(manifest, kind, *STAND_INS.get(kind, ()))
    ]
    if manifest.kind == "control" and manifest.summary["pilot"]["features"] != "z":
        lacking += [] if _has(manifest, "memory") else ["memory"]
    if manifest.kind == "evaluations" and not (_has(manifest, "control", AGENTS)):
        lacking.append("control")
    if lacking:
        return f"it names no {' and no '.join(lacking)} among its parents"
    return _action_fault(manifest)


def _has(manifest: Manifest, *kinds: str) -> bool:
    return any(parent.kind in kinds for parent in manifest.parents)


def _action_fault(manifest: Manifest) -> str:
    if manifest.summary.get("actions") is None:
        return ""
    wrong = fault(vars(manifest), _ACTIONS)
    if wrong:
        return wrong
    actions: Any = actions_of(manifest)
    bounds = list(zip(actions.low, actions.high, strict=False))
    expected = actions.size if actions.kind == "box" else 0
    if not len(actions.low) == len(actions.high) == expected or any(a > b for a, b in bounds):
        return f"its bounds {list(actions.low)} and {list(actions.high)} are not those of an action"
    return ""
