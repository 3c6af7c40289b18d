"""A finished run, read and driven with numpy, h5py and safetensors alone.

Nothing of `stages` is used: manifests, weights and episodes are found as docs/formats.md says, and
V, M and C are computed by `world_models_numpy`.
"""

import hashlib
import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np
from safetensors.numpy import load_file

from oracles import world_models_numpy as models


@dataclass(frozen=True)
class Agent:
    """V, M (None for a controller that sees z alone) and C of a run."""

    vision: dict[str, np.ndarray]
    memory: dict[str, np.ndarray] | None
    memory_shape: dict
    controller: dict[str, np.ndarray]
    pilot: dict  # what C sees, and how its outputs become actions
    actions: dict  # kind, size, low, high


@dataclass(frozen=True)
class Episode:
    """One recorded episode: T + 1 frames and T actions."""

    seed: int
    frames: np.ndarray  # uint8 [T + 1, H, W, 3]
    actions: np.ndarray  # [T, A], or [T] for choices
    rewards: np.ndarray  # [T]


def read_manifest(folder: Path) -> dict:
    """The manifest of an artifact, after its digest and those of its files were compared."""
    content = (folder / "manifest.json").read_bytes()
    promised = (folder / "manifest.sha256").read_text().split()[0]
    assert hashlib.sha256(content).hexdigest() == promised, folder
    manifest = json.loads(content)
    lines = []
    for entry in manifest["files"]:
        payload = (folder / entry["name"]).read_bytes()
        assert len(payload) == entry["bytes"]
        assert hashlib.sha256(payload).hexdigest() == entry["sha256"]
        lines.append(f"{entry['name']} {entry['bytes']} {entry['sha256']}\n")
    found = hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()
    assert found == manifest["payload_digest"], folder
    return manifest


def find(workspace: Path, kind: str, payload_digest: str | None = None) -> tuple[Path, dict]:
    """The newest artifact of a kind, or the one that holds this."""
    folders = sorted((workspace / kind).glob("[0-9]*"), reverse=True)
    for folder in folders:
        manifest = read_manifest(folder)
        if payload_digest in (None, manifest["payload_digest"]):
            return folder, manifest
    raise FileNotFoundError(f"{kind} {payload_digest} in {workspace}")


def load_agent(workspace: Path) -> Agent:
    """The newest controller, and the V and M that it was searched with."""
    folder, manifest = find(workspace, "control")
    parents = {
        parent["kind"]: find(workspace, parent["kind"], parent["payload_digest"])
        for parent in manifest["parents"]
    }
    vision_folder, vision_manifest = parents["vision"]
    has_memory = manifest["summary"]["pilot"]["features"] != "z"
    _, rollouts = find(workspace, "rollouts", vision_manifest["parents"][0]["payload_digest"])
    return Agent(
        vision=_doubles(vision_folder),
        memory=_doubles(parents["memory"][0]) if has_memory else None,
        memory_shape=parents["memory"][1]["summary"]["shape"] if has_memory else {},
        controller=_doubles(folder),
        pilot=manifest["summary"]["pilot"],
        actions=rollouts["summary"]["actions"],
    )


def _doubles(folder: Path) -> dict[str, np.ndarray]:
    tensors = load_file(folder / "weights.safetensors")
    return {name: value.astype(np.float64) for name, value in tensors.items()}


def load_episodes(workspace: Path) -> list[Episode]:
    """Every episode of the newest rollout, in the order of its shards."""
    folder, manifest = find(workspace, "rollouts")
    names = sorted(one["name"] for one in manifest["files"] if one["name"].endswith(".h5"))
    return [episode for name in names for episode in _read_shard(folder / name)]


def _read_shard(path: Path) -> list[Episode]:
    with h5py.File(path, "r") as file:
        assert file.attrs["format"] == "wm-episodes"
        frames, steps = file["observation_offsets"][:], file["step_offsets"][:]
        return [
            Episode(
                seed=int(file["seeds"][k]),
                frames=file["observations"][frames[k] : frames[k + 1]],
                actions=file["actions"][steps[k] : steps[k + 1]],
                rewards=file["rewards"][steps[k] : steps[k + 1]],
            )
            for k in range(len(file["seeds"]))
        ]


def load_latents(workspace: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """(mu, logvar), each [T + 1, Z], of every episode."""
    folder, manifest = find(workspace, "latents")
    found = []
    names = sorted(one["name"] for one in manifest["files"] if one["name"].endswith(".h5"))
    for name in names:
        with h5py.File(folder / name, "r") as file:
            assert file.attrs["format"] == "wm-latents"
            cuts = file["observation_offsets"][:]
            for start, stop in pairwise(cuts):
                found.append((file["mu"][start:stop], file["logvar"][start:stop]))
    return found


def drive(agent: Agent, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the agent answers to the frames [T, 64, 64, 3] of one episode.

    Returns C's outputs [T, A] in -1..1, and the actions: [T, A] for a box, [T] for choices.
    """
    mu, _ = models.encode(agent.vision, frames)
    num_units = agent.memory_shape.get("hidden_size", 0)
    h, c = models.initial_state(1, num_units)
    outputs, actions = [], []
    for step in range(len(frames)):
        z = mu[step : step + 1]
        output = _control(agent, z, h, c)
        action, vector = _act(agent, output)
        outputs.append(output)
        actions.append(action)
        if agent.memory is not None:
            inputs = [z[0], vector]
            if agent.memory_shape["restart_flag"]:
                inputs.append([float(step == 0)])
            h, c = models.lstm_step(agent.memory, np.concatenate(inputs)[None], (h, c))
    return np.array(outputs), np.array(actions)


def _control(agent: Agent, z: np.ndarray, h: np.ndarray, c: np.ndarray) -> np.ndarray:
    parts = {"z": [z], "zh": [z, h], "zch": [z, c, h]}[agent.pilot["features"]]
    signal = np.concatenate(parts, axis=1)[0]
    for layer in range(2 if agent.pilot["hidden"] else 1):
        signal = agent.controller[f"layer{layer}.weight"] @ signal
        if agent.pilot["bias"]:
            signal = signal + agent.controller[f"layer{layer}.bias"]
        signal = np.tanh(signal)
    return signal


def _act(agent: Agent, output: np.ndarray) -> tuple[np.ndarray | int, np.ndarray]:
    """The action, and what M sees of it."""
    if agent.actions["kind"] == "choice":
        best = int(np.argmax(output))
        return best, np.eye(agent.actions["size"])[best]
    low, high = np.array(agent.actions["low"]), np.array(agent.actions["high"])
    kinds = agent.pilot["squash"] or ["linear"] * len(output)
    action = np.array(
        [
            low[k] + (x + 1) / 2 * (high[k] - low[k])
            if kind == "linear"
            else np.clip(x, low[k], high[k])
            for k, (kind, x) in enumerate(zip(kinds, output, strict=True))
        ]
    )
    return action, action
