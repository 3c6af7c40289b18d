"""Small artifacts, and ways to hurt them, for the tests of this room."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from stages.artifacts.artifact import Artifact
from stages.artifacts.canonical import fingerprint
from stages.artifacts.episodes import EpisodeRecord, EpisodeShardWriter
from stages.artifacts.latents import LatentRecord
from stages.artifacts.manifest import Certificate, ParentRef
from stages.artifacts.weights import pack_tensors
from stages.artifacts.workspace import Workspace

REPOSITORY = Path(__file__).parents[2]
STAGE_OF = {"rollouts": "rollout", "vision": "train-vision", "memory": "train-memory"}


def episode(seed, num_steps, *, size=8, facts=True):
    """An episode of noise, so that no two rows are alike."""
    rng = np.random.default_rng(seed)
    steps = np.arange(num_steps)
    return EpisodeRecord(
        seed=seed,
        observations=rng.integers(0, 256, (num_steps + 1, size, size, 3), dtype=np.uint8),
        actions=rng.standard_normal((num_steps, 3)).astype(np.float32),
        rewards=rng.standard_normal(num_steps),
        terminations=steps == num_steps - 1,
        truncations=np.zeros(num_steps, dtype=bool),
        facts={"off_road": rng.random(num_steps) < 0.5, "num_tiles": steps} if facts else {},
    )


def latent_episode(seed, num_steps, *, latent_size=4):
    """Latents of noise."""
    rng = np.random.default_rng(seed)
    return LatentRecord(
        seed=seed,
        mu=rng.standard_normal((num_steps + 1, latent_size)).astype(np.float16),
        logvar=rng.standard_normal((num_steps + 1, latent_size)).astype(np.float16),
        actions=rng.standard_normal((num_steps, 3)).astype(np.float32),
        rewards=rng.standard_normal(num_steps),
        terminations=np.arange(num_steps) == num_steps - 1,
        truncations=np.zeros(num_steps, dtype=bool),
    )


def episodes_image(seeds_and_steps, **options):
    """Content of a shard with these episodes."""
    writer = EpisodeShardWriter(engine="gymnasium", env="CarRacing-v3", policy="brownian")
    for seed, num_steps in seeds_and_steps:
        writer.append(episode(seed, num_steps, **options))
    return writer.image()


WORLD = {"env": "CarRacing-v3", "repeat": 4, "crop": [0, 84, 0, 96], "size": 8, "max_frames": 0}
BOX = {"kind": "box", "size": 3, "low": [-1, 0, 0], "high": [1, 1, 1]}
SUMMARIES = {
    "rollouts": {"engines": ["gymnasium"], "actions": BOX, "mean": 1.5},
    "vision": {"engines": ["gymnasium"], "shape": {"latent_size": 4}, "parameters": 6},
    "memory": {
        "shape": {"latent_size": 4, "action_size": 3, "hidden_size": 6, "num_mixtures": 2,
                  "reward_head": False, "end_head": False, "restart_flag": False,
                  "min_log_sigma": -7.0},
        "parameters": 6,
    },
}  # fmt: skip
PARENTS = {"rollouts": (), "vision": ("rollouts",), "memory": ("latents", "vision")}


def certificate(kind="rollouts", *, config=None, parents=()):
    """A plausible certificate; parents that its kind must have are made up where not given."""
    given = {parent.kind for parent in parents}
    others = [ParentRef(f"{k}/0001", k, "0" * 64) for k in PARENTS[kind] if k not in given]
    return Certificate(
        stage=STAGE_OF[kind],
        family="world-models",
        recipe="carracing",
        preset="debug",
        algorithm=1,
        config={"seed": 1, "world": WORLD} if config is None else config,
        parents=(*parents, *others),
        seeds={"purpose": "rollout", "first": 1, "count": 2},
        summary=SUMMARIES[kind],
        provenance={"host": "here"},
    )


def identity(kind="rollouts", number=1):
    """A fingerprint; another number gives another one."""
    return fingerprint(
        STAGE_OF[kind],
        algorithm=1,
        config={"number": number},
        parents=[],
        family="world-models",
    )


def commit(workspace, kind="rollouts", *, files=None, number=1, parents=()) -> Artifact:
    """Commit an artifact with these files: a shard, weights and a log unless told."""
    contents = sample_files() if files is None else files
    with workspace.lock(kind):
        partial = workspace.begin(kind, identity(kind, number))
        for name, content in contents.items():
            partial.write(name, content)
        return partial.commit(certificate(kind, parents=parents))


def sample_files():
    """One file of every format."""
    return {
        "shard-00000.h5": episodes_image([(1, 5), (2, 9)]),
        "weights.safetensors": pack_tensors({"weight": np.arange(6, dtype=np.float32)}),
        "metrics.jsonl": b'{"step": 1, "loss": 0.5}\n',
    }


def new_workspace(folder) -> Workspace:
    """An empty workspace."""
    return Workspace.open(Path(folder) / "workspace", create=True)


def run_python(script, *arguments, hash_seed="0", timeout=60):
    """Run a script in a fresh interpreter that can import the package; its output."""
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "PYTHONHASHSEED": hash_seed}
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment,
        cwd=Path(__file__).parent,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def seal(folder, change):
    """Change an artifact's manifest and bring both of its digests up to date, as a forger would."""
    manifest = json.loads((folder / "manifest.json").read_bytes())
    change(manifest)
    lines = [f"{one['name']} {one['bytes']} {one['sha256']}\n" for one in manifest["files"]]
    manifest["payload_digest"] = hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()
    content = json.dumps(manifest).encode()
    (folder / "manifest.json").write_bytes(content)
    line = f"{hashlib.sha256(content).hexdigest()}  manifest.json\n"
    (folder / "manifest.sha256").write_text(line)
