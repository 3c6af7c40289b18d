"""Small episodes whose every frame says which one it is."""

import numpy as np

from stages.artifacts.episodes import EpisodeRecord, EpisodeSet, EpisodeShard, EpisodeShardWriter
from stages.artifacts.latents import LatentRecord, LatentSet, LatentShard, latents_image
from stages.training.parts import Part


def frame(episode, row):
    """[2, 2, 3], distinct for every (episode, row) below 256."""
    content = np.zeros((2, 2, 3), dtype=np.uint8)
    content[0, 0] = (episode, row // 200, row % 200)
    return content


def name_of(content):
    """(episode, row) of such a frame."""
    episode, high, low = (int(value) for value in content[0, 0])
    return episode, high * 200 + low


def last_step(num_steps):
    flags = np.zeros(num_steps, dtype=np.bool_)
    flags[-1] = True
    return flags


def episode_set(folder, lengths, *, per_shard):
    """Real shards with episodes of these numbers of steps."""
    shards = []
    for start in range(0, len(lengths), per_shard):
        writer = EpisodeShardWriter(engine="none", env="none", policy="none")
        for episode in range(start, min(start + per_shard, len(lengths))):
            steps = lengths[episode]
            writer.append(
                EpisodeRecord(
                    seed=episode,
                    observations=np.stack([frame(episode, row) for row in range(steps + 1)]),
                    actions=np.zeros((steps, 3), dtype=np.float32),
                    rewards=np.zeros(steps),
                    terminations=last_step(steps),
                    truncations=np.zeros(steps, dtype=np.bool_),
                )
            )
        path = folder / f"shard-{start:05d}.h5"
        path.write_bytes(writer.image())
        shards.append(EpisodeShard(path))
    return EpisodeSet(shards)


def latent_records(lengths, *, latent=4, action=2):
    random = np.random.default_rng(len(lengths))
    return [
        LatentRecord(
            seed=seed,
            mu=random.standard_normal((steps + 1, latent)).astype(np.float16),
            logvar=random.standard_normal((steps + 1, latent)).astype(np.float16),
            actions=random.standard_normal((steps, action)).astype(np.float32),
            rewards=random.standard_normal(steps),
            terminations=last_step(steps) if seed % 2 else np.zeros(steps, dtype=np.bool_),
            truncations=np.zeros(steps, dtype=np.bool_) if seed % 2 else last_step(steps),
        )
        for seed, steps in enumerate(lengths)
    ]


def latent_set(folder, records, *, per_shard):
    shards = []
    for start in range(0, len(records), per_shard):
        path = folder / f"shard-{start:05d}.h5"
        path.write_bytes(latents_image(records[start : start + per_shard]))
        shards.append(LatentShard(path))
    return LatentSet(shards)


def in_one_part(loss):
    """A function of the step to scalars as `fit` takes it."""
    return lambda step: [Part(1.0, lambda: loss(step))]
