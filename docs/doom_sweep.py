"""How long a player of Doom's TakeCover lives that walks from wall to wall and looks at nothing.

Usage: python docs/doom_sweep.py [TICS_PER_SWEEP [EPISODES]]
"""

import argparse
import sys
from contextlib import chdir
from tempfile import TemporaryDirectory

import gymnasium
import numpy as np
import vizdoom.gymnasium_wrapper  # noqa: F401  # registers the environment

RIGHT, LEFT = 1, 2
LIMIT = 2100
FIRST_SEED = 6000


def lived(env: gymnasium.Env, seed: int, sweep: int) -> int:
    """Tics of one episode; the first sweep is half a one, from the middle."""
    env.reset(seed=seed)
    for tic in range(LIMIT):
        back = (tic + sweep // 2) // sweep % 2
        _, _, ended, _, _ = env.step(RIGHT if back else LEFT)
        if ended:
            return tic + 1
    return LIMIT


def main(sweep: int, episodes: int) -> None:
    """Play, and print the mean with its standard error."""
    env = gymnasium.make("VizdoomTakeCover-v1", frame_skip=1)
    tics = np.array([lived(env, FIRST_SEED + number, sweep) for number in range(episodes)])
    env.close()
    error = tics.std(ddof=1) / np.sqrt(episodes)
    told = f"sweeps of {sweep} tics: {tics.mean():.0f} ± {error:.0f} tics ({episodes})"
    sys.stdout.write(told + "\n")


if __name__ == "__main__":
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("sweep", nargs="?", type=int, default=95, metavar="TICS_PER_SWEEP")
    words.add_argument("episodes", nargs="?", type=int, default=100, metavar="EPISODES")
    asked = words.parse_args()
    if asked.sweep < 1 or asked.episodes < 2:
        words.error("A sweep lasts a tic at least, and a standard error needs two episodes.")
    with TemporaryDirectory() as folder, chdir(folder):  # the engine leaves files where it runs
        main(asked.sweep, asked.episodes)
