"""Whether inputs belong together: what does not is refused with both sides, field by field."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from stages import Stage, stage_writing
from stages.artifacts.artifact import Artifact
from stages.artifacts.manifest import ParentRef
from stages.artifacts.producing import only
from stages.artifacts.workspace import Workspace
from stages.contracts import NO_WORLD
from stages.errors import InputsMismatch

WORLD_FIELDS = ("env", "repeat", "crop", "size", "max_frames")  # what two stages must agree on
_SHOWN = 12  # characters of a digest


def check_world(world: Mapping[str, Any], artifact: Artifact, *, fix: str = "") -> None:
    """Refuse an artifact of another world, showing both sides field by field.

    One that belongs to none, as what was imported without an environment, fits every world in
    which frames have its size.
    """
    theirs = artifact.manifest.config["world"]
    free = theirs["env"] == NO_WORLD
    ours = {name: world[name] for name in (("size",) if free else WORLD_FIELDS)}
    sides = differing("world", theirs, ours)
    if sides:
        raise InputsMismatch(
            f"{artifact.id} belongs to another world than this command.",
            why=sides,
            fix=fix
            or f"Make it again with `wm {artifact.manifest.stage}`, or use the settings it was "
            "made with (`wm config` shows yours).",
        )


def check_same_actions(artifacts: Sequence[Artifact]) -> None:
    """Refuse artifacts of one environment whose actions are not the same, field by field.

    One whose manifest does not tell them, as those of earlier versions, is passed over.
    """
    first, *others = (one for one in artifacts if one.manifest.summary.get("actions"))
    for other in others:
        theirs, ours = (one.manifest.summary["actions"] for one in (other, first))
        sides = differing("actions", theirs, ours, there=f"in {other.id}", here=f"in {first.id}")
        if sides:
            raise InputsMismatch(
                f"{other.id} knows other actions than {first.id}.",
                why=sides,
                fix="Leave one of them out, or make both again with one version of the "
                "environment's package.",
            )


def check_actions_known(artifacts: Sequence[Artifact]) -> None:
    """Refuse episodes of films: nobody knows what was done in them."""
    for one in artifacts:
        if one.manifest.summary["actions"]["kind"] == "none":
            raise InputsMismatch(
                f"{one.id} has no actions: its episodes are films.",
                why="M learns what comes of an action, and C which one to choose.",
                fix="V alone learns from films. For M and C: wm import minari, wm import npz, or "
                "wm rollout, and wm sample-latents of that.",
            )


def world_fields(artifacts: Sequence[Artifact]) -> dict[str, Any]:
    """What of the world all of these agree on: that of one that belongs to a world, if one does."""
    worlds = [one.manifest.config["world"] for one in artifacts]
    chosen = next((world for world in worlds if world["env"] != NO_WORLD), worlds[0])
    return {name: chosen[name] for name in WORLD_FIELDS}


def start_of(
    chosen: Mapping[str, Sequence[Artifact]], stage: Stage, **described: Mapping[str, Any]
) -> Artifact:
    """The artifact to start from; it must be described as the new one will be.

    `described` holds what the summaries must have in common, as `shape={...}`.
    """
    start = only(chosen[stage.writes])
    check_start(start, **described)
    return start


def check_start(start: Artifact, **described: Mapping[str, Any]) -> None:
    """Refuse a start whose summary describes something else than the new one's."""
    for name, wanted in described.items():
        sides = differing("", start.manifest.summary[name], wanted)
        if sides:
            raise InputsMismatch(
                f"{start.id} cannot be the start: it was made with other settings.",
                why=sides,
                fix=f"Leave out `--from {start.id}`, or use the settings and parents that it has.",
            )


def check_grown(workspace: Workspace, start: Artifact, model: Artifact) -> None:
    """Refuse a start whose own model is neither this one nor one that this one started from.

    To another model's latents its weights would mean nothing.
    """
    theirs = parent_of(start, model.kind)
    if not any(one.payload_digest == theirs.payload_digest for one in _roots(workspace, model)):
        raise InputsMismatch(
            f"{start.id} cannot be the start: it belongs to {theirs.id}.",
            why=f"{model.id} is another {model.kind} and did not start from {theirs.id} "
            f"(payload {model.manifest.payload_digest[:_SHOWN]}, not "
            f"{theirs.payload_digest[:_SHOWN]}).",
            fix=f"Name `--from {theirs.id}`, or train {model.kind} on from it: "
            f"`wm {stage_writing(model.kind).name} --from {theirs.id}`.",
        )


def _roots(workspace: Workspace, model: Artifact) -> Iterator[ParentRef]:
    """The model and all of its kind that it goes back to; equal content counts once."""
    known: set[str] = set()
    waiting = [model.reference()]
    while waiting:
        one = waiting.pop()
        if one.payload_digest in known:
            continue
        known.add(one.payload_digest)
        yield one
        workspace.resolve(one)  # says so when it is gone
        for other in workspace.artifacts(one.kind):
            if other.manifest.payload_digest == one.payload_digest:
                waiting += [older for older in other.manifest.parents if older.kind == one.kind]


def parent_of(artifact: Artifact, kind: str) -> ParentRef:
    """The artifact's parent of this kind, as it names it."""
    for parent in artifact.manifest.parents:
        if parent.kind == kind:
            return parent
    raise InputsMismatch(f"{artifact.id} names no {kind} among its parents.")


def check_same_parent(child: Artifact, parent: Artifact) -> None:
    """Refuse a child that was made from another artifact of the parent's kind."""
    theirs = parent_of(child, parent.kind)
    if theirs.payload_digest == parent.manifest.payload_digest:
        return
    raise InputsMismatch(
        f"{child.id} was made from another {parent.kind} than {parent.id}.",
        why=f"It was made from {_named(theirs)}; here it is {_named(parent.reference())}.",
        fix=f"Make it again from {parent.id}: `wm sample-latents`, then `wm train-memory`; "
        f"or name both: `--from {theirs.id} --from {child.id}`.",
    )


def check_one_parent(children: Sequence[Artifact], kind: str) -> None:
    """Refuse children that were made from different artifacts of this kind."""
    parents = [parent_of(child, kind) for child in children]
    if len({parent.payload_digest for parent in parents}) > 1:
        pairs = zip(children, parents, strict=True)
        raise InputsMismatch(
            f"{', '.join(child.id for child in children)} were made by different {kind} models.",
            why="; ".join(f"{child.id} by {_named(parent)}" for child, parent in pairs) + ".",
            fix=f"Encode all rollouts with one {kind}: wm sample-latents --from {kind}/... "
            "--from rollouts/...",
        )


def differing(
    section: str,
    theirs: Mapping[str, Any],
    ours: Mapping[str, Any],
    *,
    there: str = "there",
    here: str = "here",
) -> str:
    """Both sides of every field of ours that is not the same there; empty when all are.

    What earlier versions did not know of is off there.
    """
    prefix = f"{section}." if section else ""
    unknown = {name: 0 if type(value) is int else False for name, value in ours.items()}
    pairs = [(name, {**unknown, **theirs}[name], value) for name, value in ours.items()]
    plain = [(name, _plain(a), _plain(b)) for name, a, b in pairs]
    sides = [f"{prefix}{name}: {a} {there}, {b} {here}" for name, a, b in plain if a != b]
    return "; ".join(sides) + "." if sides else ""


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _named(parent: ParentRef) -> str:
    return f"{parent.id} (payload {parent.payload_digest[:_SHOWN]})"
