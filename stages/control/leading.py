"""M led through recorded episodes: what C would have seen there, and where dreams may begin.

Computed on one math thread, as C will be driven: more would give other last bits.
Axes: `n` steps, `D` inputs of C, `E` starts, `Z` latent size, `H` units of M.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray

from stages.artifacts.latents import LatentRecord
from stages.control.pilot import join_features
from stages.memory.mdn_rnn import MDNRNN
from stages.training.seeding import generator
from stages.training.sequences import LatentSource
from stages.worlds.dream import Inside, Starts

LANES = 64  # episodes that M reads side by side
MAX_EPISODES = 1000  # in which places are looked for


def inputs_of(
    source: LatentSource, memory: MDNRNN | None, features: str, *, limit: int
) -> NDArray[np.float32]:
    """What C would have seen in about `limit` recorded steps, [n, D], with z = mu."""
    lengths = source.lengths
    chosen = range(0, len(lengths), max(1, int(lengths.sum()) // limit))
    every = max(1, int(lengths[list(chosen)].sum()) // limit)  # steps of few long episodes
    with _one_thread():
        rows = [
            join_features(features, z, h, c)
            for start in range(0, len(chosen), LANES)
            for step, (z, h, c) in enumerate(
                _led([source.episode(n) for n in chosen[start : start + LANES]], memory)
            )
            if step % every == 0
        ]
        return torch.cat(rows).numpy()


def places_in(
    source: LatentSource, memory: MDNRNN, *, reward: float | None, count: int, seed: int
) -> Starts:
    """At most `count` different frames before an action, each as likely as any other."""
    random = generator(seed, "dream-starts")
    found = len(source.lengths)
    looked = np.sort(random.choice(found, size=min(MAX_EPISODES, found), replace=False))
    lengths = source.lengths[looked]
    stops = np.cumsum(lengths)
    total = int(stops[-1])
    tickets = np.sort(random.choice(total, size=min(count, total), replace=False))
    places = np.searchsorted(stops, tickets, side="right")
    episodes, steps = looked[places], tickets - (stops - lengths)[places]
    chosen = np.unique(episodes)
    mu: list[NDArray[np.float16]] = []
    logvar: list[NDArray[np.float16]] = []
    h: list[NDArray[np.float32]] = []
    c: list[NDArray[np.float32]] = []
    first: list[bool] = []
    with _one_thread():
        for start in range(0, len(chosen), LANES):
            some = {int(n): source.episode(int(n)) for n in chosen[start : start + LANES]}
            order = sorted(some, key=lambda n: -some[n].num_steps)  # as _led has its lanes
            wanted = [set(steps[episodes == n].tolist()) for n in order]
            for step, (_, *state) in enumerate(_led([some[n] for n in order], memory)):
                lanes = [lane for lane, here in enumerate(wanted) if step in here]
                mu += [some[order[lane]].mu[step] for lane in lanes]
                logvar += [some[order[lane]].logvar[step] for lane in lanes]
                h += list(state[0][lanes].numpy())
                c += list(state[1][lanes].numpy())
                first += [step == 0] * len(lanes)
    inside = Inside(np.stack(h), np.stack(c), np.array(first))
    frames = [np.stack(rows).astype(np.float32) for rows in (mu, logvar)]
    return Starts(frames[0], frames[1], reward, inside)


def _led(
    records: Sequence[LatentRecord], memory: MDNRNN | None
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """z, h and c before each action, of all lanes that have not ended, step after step.

    Lanes are the episodes by their length, the longest first.
    """
    records = sorted(records, key=lambda record: -record.num_steps)  # the live ones come first
    hidden = memory.shape.hidden_size if memory is not None else 0
    state = torch.zeros(len(records), hidden), torch.zeros(len(records), hidden)
    for step in range(records[0].num_steps):
        live = [record for record in records if record.num_steps > step]
        z = torch.from_numpy(np.stack([record.mu[step] for record in live]).astype(np.float32))
        state = state[0][: len(live)], state[1][: len(live)]
        yield z, *state
        if memory is not None:
            actions = torch.from_numpy(np.stack([record.actions[step] for record in live]))
            restart = torch.full((len(live),), step == 0) if memory.shape.restart_flag else None
            state = memory.advance(z, actions, state, restart)


@contextmanager
def _one_thread() -> Iterator[None]:
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            yield
    finally:
        torch.set_num_threads(num_threads)
