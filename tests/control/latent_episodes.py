"""Recorded episodes with random latents, in memory."""

import numpy as np

from stages.artifacts.latents import LatentRecord

Z, A = 4, 2


class Recorded:
    """Episodes of different lengths whose latents are all different."""

    def __init__(self, lengths):
        self.lengths = np.array(lengths)
        random = np.random.default_rng(3)
        self.records = [
            LatentRecord(
                seed=number,
                mu=random.standard_normal((length + 1, Z)).astype(np.float16),
                logvar=random.standard_normal((length + 1, Z)).astype(np.float16),
                actions=random.standard_normal((length, A)).astype(np.float32),
                rewards=np.zeros(length),
                terminations=np.zeros(length, dtype=bool),
                truncations=np.zeros(length, dtype=bool),
            )
            for number, length in enumerate(lengths)
        ]

    def episode(self, number):
        return self.records[number]
