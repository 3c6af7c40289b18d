"""`wm export`: what leaves a workspace. An agent becomes one small folder that works anywhere.

V and M are stored as float16 and computed in float32; C stays float32: it is tiny, and its rounding
matters most.
"""

from collections.abc import Sequence
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np

from stages.agents import lineage, trained_agent
from stages.artifacts.agent_folder import (
    CONTROL,
    MEMORY,
    VISION,
    AgentFolder,
    check_place,
    load_agent,
    write_agent,
)
from stages.artifacts.artifact import Artifact
from stages.artifacts.canonical import fingerprint, plain_value
from stages.artifacts.manifest import Certificate
from stages.artifacts.versions import provenance
from stages.artifacts.weights import pack_tensors, unpack_tensors
from stages.artifacts.workspace import Workspace
from stages.errors import InputMissing, NumbersBad, StageError, UsageError
from stages.events import Monitor, Noted, Report, Table
from stages.families import WEIGHTS

NAME = "export"
ALGORITHM = 1


def export_agent(
    workspace: Workspace, target: Path, *, source: str, force: bool, progress: Monitor
) -> Report:
    """Pack the agent of a controller into a folder outside of the workspace.

    Args:
        workspace: where the controller is, and the V and M that it was searched with.
        target: the folder to make.
        source: id of the controller; empty takes the newest.
        force: replace an agent that is there.
        progress: hears of an evaluation that cannot be read.
    """
    control, *models = lineage(workspace, _controller(workspace, source))
    certificate = _certificate(control, models, _measured(workspace, control, progress))
    identity = fingerprint(
        NAME,
        algorithm=ALGORITHM,
        config=certificate.config,
        parents=[parent.payload_digest for parent in certificate.parents],
        family=certificate.family,
    )
    folder = target.resolve()
    existing = None if force else _same(folder, identity, certificate)
    if existing is not None:
        return _report(existing, up_to_date=True)
    check_place(folder, force=force)
    files = _packed(workspace, control)
    return _report(write_agent(folder, files, certificate, fingerprint=identity))


def _controller(workspace: Workspace, source: str) -> Artifact:
    found = workspace.get(source) if source else workspace.newest("control")
    if found is None:
        raise InputMissing(
            f"There is no controller in {workspace.root} yet.",
            why="An agent is a controller with the V and M that it was searched with.",
            fix="Make one: wm train-control, or `wm run` for all that is missing.",
        )
    if found.kind != "control":
        raise UsageError(
            f"An agent is packed from a controller, not from {found.id}.",
            fix="Write --from control/0001, or leave it out for the newest.",
        )
    return found


def _certificate(
    control: Artifact, models: Sequence[Artifact], measured: dict[str, Any] | None
) -> Certificate:
    """What the manifest of the agent says; of its parents it needs nothing but the digests."""
    told, summary = control.manifest, control.manifest.summary
    summaries = {model.kind: model.manifest.summary for model in models}
    memory = summaries.get("memory")
    return Certificate(
        stage=NAME,
        family=told.family,
        recipe=told.recipe,
        preset=told.preset,
        algorithm=ALGORITHM,
        config={"world": told.config["world"], "seed": told.config["seed"]},
        parents=tuple(one.reference() for one in (control, *models)),
        seeds=told.seeds,
        summary={
            "shapes": {
                "vision": summaries["vision"]["shape"],
                "memory": memory["shape"] if memory is not None else None,
                "control": summary["shape"],
            },
            "pilot": summary["pilot"],
            "actions": summary.get("actions"),
            "weights": {**dict.fromkeys(summaries, "float16"), "control": "float32"},
            "parameters": summary["parameters"]
            + sum(each["parameters"] for each in summaries.values()),
            "engine": summary["engine"],
            "engines": summaries["vision"]["engines"],
            "generations": summary["generations"],
            "frames": summary["frames"],
            "evaluation": measured,
        },
        provenance=provenance(device="cpu", threads=1),
    )


def _measured(workspace: Workspace, control: Artifact, progress: Monitor) -> dict[str, Any] | None:
    """What the newest evaluation of this controller says; None where there is none."""
    good, damaged = workspace.scan("evaluations")
    for error in damaged:
        progress.emit(Noted(f"{error.what} The agent's manifest does without it.", warning=True))
    reference = (control.kind, control.manifest.payload_digest)
    for evaluation in reversed(good):
        if reference in {(one.kind, one.payload_digest) for one in evaluation.manifest.parents}:
            summary = evaluation.manifest.summary
            return {
                "weights": "float32",  # before they were rounded
                **{name: summary[name] for name in ("mean", "stderr", "episodes", "engine")},
                "max_steps": evaluation.manifest.config["evaluate"]["max_steps"],
                "payload_digest": evaluation.manifest.payload_digest,
            }
    return None


def _same(folder: Path, identity: str, certificate: Certificate) -> AgentFolder | None:
    """The agent that is there already, when it is this one; ArtifactDamaged when it was."""
    try:
        found = load_agent(folder)
    except StageError:  # nothing, or something else: check_place says which
        return None
    told = found.manifest
    if (told.fingerprint, told.summary) != (identity, plain_value(certificate.summary)):
        return None
    for error in found.verify():
        raise error
    return found


def _packed(workspace: Workspace, control: Artifact) -> dict[str, bytes]:
    """The files of the agent: equal artifacts give equal bytes."""
    agent, _ = trained_agent(workspace, control)  # checks digests and C's shape
    tensors, _ = unpack_tensors(control.file(WEIGHTS))
    files = {CONTROL: pack_tensors(tensors), VISION: _halved(Path(agent.vision))}
    if agent.memory is not None:
        files[MEMORY] = _halved(Path(agent.memory))
    return files


def _halved(path: Path) -> bytes:
    """These weights rounded to float16, to the nearest."""
    tensors, _ = unpack_tensors(path)
    with np.errstate(over="ignore"):  # looked at below
        halves = {name: values.astype(np.float16) for name, values in tensors.items()}
    for name, values in halves.items():
        if not np.isfinite(values).all():
            raise NumbersBad(
                f"{name} in {path} cannot be stored as float16.",
                why="It holds a number beyond 65504 or one that is not finite.",
                fix="Train that model again, with a smaller learning rate.",
            )
    return pack_tensors(halves)


def _report(agent: AgentFolder, *, up_to_date: bool = False) -> Report:
    summary = agent.manifest.summary
    precision = {f"{role}.safetensors": kind for role, kind in summary["weights"].items()}
    files = [(one.name, precision[one.name], one.bytes) for one in agent.manifest.files]
    measured = summary["evaluation"]
    return Report(
        command=NAME,
        artifact=agent.id,
        path=str(agent.path),
        up_to_date=up_to_date,
        summary={
            "parameters": summary["parameters"],
            "generations": summary["generations"],
            "frames": summary["frames"],
            "mean_with_float32_weights": measured["mean"] if measured else None,
        },
        tables=(Table("Files", ("file", "weights", "bytes"), files),),
        notes=(f"Score it anywhere: wm evaluate --agent {quote(str(agent.path))}",),
    )
