"""From where M is asked to dream: places in held-out episodes, after their real past.

Half of the starts are first frames, where the dreams of a search begin; the others lie anywhere.
Axes: `B` episodes of a batch, `T` steps, `S` starts, `Q` lags, `E` episodes, `N` steps of all
episodes, `Z` latent size, `A` action size, `H` LSTM units.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stages.memory.losses import Sequences
from stages.memory.lstm import State
from stages.memory.mdn_rnn import MDNRNN

NUM_STARTS = 64
MIN_STARTS = 8  # a lag that fewer recordings last for is not told
MAX_LAG = 2100  # steps: as long as a game of Doom may take

Ints = NDArray[np.int64]
Floats32 = NDArray[np.float32]


class Place(NamedTuple):
    """Where a dream starts."""

    episode: int  # among those that are looked at
    step: int  # 0: its first frame


class Episodes(NamedTuple):
    """Whole held-out episodes with latents drawn, and the means that they were drawn about."""

    drawn: Sequences
    mu: Floats32  # [B, T + 1, Z]
    logvar: Floats32  # [B, T + 1, Z]


@dataclass(frozen=True)
class Starts:
    """S starts: what M knows there, and what really came."""

    state: State  # [S, H] each, before the first dreamt step
    first: Tensor  # bool [S], first frames
    now: Floats32  # [S, Z], the latent there, drawn
    now_mu: Floats32  # [S, Z], its mean
    left: Ints  # [S], recorded steps that follow
    ended: NDArray[np.bool_]  # [S], the last of these ended the episode; else it was cut
    actions: Tensor  # [S, K, A], the recorded ones, then those of other episodes
    later: Floats32  # [S, Q, Z], the latent after each lag, drawn; zeros where the record is over
    later_mu: Floats32  # [S, Q, Z]
    later_logvar: Floats32  # [S, Q, Z]
    earned: NDArray[np.float64]  # [S, Q], sum of the rewards up to each lag


@dataclass(frozen=True)
class Known:
    """What M foresees with the real past before it, one step ahead: what ends are held against."""

    logit: NDArray[np.float64]  # [N], of the end; empty without a head for it
    ended: NDArray[np.bool_]  # [N]


def choose_places(
    lengths: Sequence[int], random: np.random.Generator, *, num_starts: int = NUM_STARTS
) -> list[Place]:
    """Different places in episodes of these lengths [E], in order."""
    sizes = np.asarray(lengths, dtype=np.int64)
    num_first = min(len(sizes), num_starts // 2)
    firsts = random.choice(len(sizes), size=num_first, replace=False)
    stops = np.cumsum(sizes - 1)  # of the later frames, one after the other
    num_later = min(num_starts - num_first, int(stops[-1]))
    tickets = random.choice(int(stops[-1]), size=num_later, replace=False)
    episodes = np.searchsorted(stops, tickets, side="right")
    steps = tickets - (stops - (sizes - 1))[episodes] + 1
    later = zip(episodes.tolist(), steps.tolist(), strict=True)
    return sorted([*(Place(int(e), 0) for e in firsts), *(Place(e, s) for e, s in later)])


def lags_of(left: Sequence[int], *, limit: int = MAX_LAG) -> list[int]:
    """1, 2, 5, 10, 20 ... as far as enough starts are followed, and that farthest one."""
    enough = min(MIN_STARTS, len(left))
    farthest = min(sorted(left)[-enough], limit)
    round_ones = [m * 10**e for e in range(len(str(farthest))) for m in (1, 2, 5)]
    lags = [lag for lag in round_ones if lag <= farthest]
    return [*lags, farthest] if farthest >= 1.25 * lags[-1] else lags


@torch.inference_mode()
def gather_starts(
    model: MDNRNN, batches: Iterable[Episodes], places: Sequence[Place], lags: Sequence[int]
) -> tuple[Starts, Known]:
    """Lead M through the real past up to every place; a batch is gone before the next comes."""
    found: list[_Start] = []
    tapes: list[Floats32] = []  # the actions of every episode
    logits, ends = [np.zeros(0)], [np.zeros(0, dtype=np.bool_)]
    for batch in batches:
        mask = batch.drawn.mask
        inside = [
            Place(place.episode - len(tapes), place.step)
            for place in places
            if len(tapes) <= place.episode < len(tapes) + len(mask)
        ]
        seen, states = _led(model, batch.drawn, sorted({place.step for place in inside}))
        _, logit = model.other_heads(seen)
        if logit is not None:
            assert batch.drawn.ends is not None, "the batch holds no ends"
            logits.append(logit[mask].cpu().double().numpy())
            ends.append(batch.drawn.ends[mask].bool().cpu().numpy())
        found += [_start(batch, place, states[place.step], lags) for place in inside]
        lengths = mask.sum(1).tolist()
        rows = zip(batch.drawn.actions.cpu().numpy(), lengths, strict=True)
        tapes += [actions[:length] for actions, length in rows]
    tape = [_tape(tapes, place, lags[-1]) for place in places]
    device = model.lstm.bias.device
    starts = _stacked(found, torch.from_numpy(np.stack(tape)).to(device))
    return starts, Known(np.concatenate(logits), np.concatenate(ends))


class _Start(NamedTuple):
    """One of `Starts`, without its actions."""

    h: Tensor
    c: Tensor
    first: bool
    now: Floats32
    now_mu: Floats32
    left: int
    ended: bool
    later: Floats32
    later_mu: Floats32
    later_logvar: Floats32
    earned: NDArray[np.float64]


def _led(model: MDNRNN, batch: Sequences, steps: Sequence[int]) -> tuple[Tensor, dict[int, State]]:
    """What M's heads see along episodes [B, T, S], and its state before each of these steps."""
    state = model.initial_state(len(batch.z))
    cuts = sorted({0, *steps, batch.mask.shape[1]})
    states, pieces = {0: state}, []
    for start, stop in pairwise(cuts):
        piece = slice(start, stop)
        restart = None if batch.restart is None else batch.restart[:, piece]
        z, a = batch.z[:, piece], batch.actions[:, piece]
        hidden, state = model.unroll(z, a, state, restart)
        pieces.append(model.seen(hidden, z, a))
        states[stop] = state
    return torch.cat(pieces, dim=1), states


def _start(batch: Episodes, place: Place, state: State, lags: Sequence[int]) -> _Start:
    row, step = place
    drawn = batch.drawn
    assert drawn.ends is not None and drawn.rewards is not None, "the batch holds no ends"
    length = int(drawn.mask[row].sum())
    z = drawn.z[row].cpu().numpy()
    there = [step + lag for lag in lags if step + lag <= length]
    rewards = drawn.rewards[row, step:length].cpu().double().numpy()

    def after(values: NDArray[np.floating]) -> Floats32:
        rows = np.zeros((len(lags), values.shape[1]), dtype=np.float32)
        rows[: len(there)] = values[there]
        return rows

    return _Start(
        h=state[0][row],
        c=state[1][row],
        first=step == 0,
        now=z[step],
        now_mu=batch.mu[row, step],
        left=length - step,
        ended=bool(drawn.ends[row, length - 1] > 0),
        later=after(z),
        later_mu=after(batch.mu[row]),
        later_logvar=after(batch.logvar[row]),
        earned=np.array([rewards[:lag].sum() for lag in lags]),
    )


def _tape(tapes: Sequence[Floats32], place: Place, num_steps: int) -> Floats32:
    """Actions [K, A] from a place on; behind its episode's end those of the next episodes."""
    parts = [tapes[place.episode][place.step :]]
    count, number = len(parts[0]), place.episode
    while count < num_steps:
        number = (number + 1) % len(tapes)
        parts.append(tapes[number])
        count += len(tapes[number])
    return np.concatenate(parts)[:num_steps]


def _stacked(found: Sequence[_Start], actions: Tensor) -> Starts:
    def stacked(name: str) -> NDArray[Any]:
        return np.stack([np.asarray(getattr(one, name)) for one in found])

    return Starts(
        state=(torch.stack([one.h for one in found]), torch.stack([one.c for one in found])),
        first=torch.from_numpy(stacked("first")).to(actions.device),
        actions=actions,
        **{name: stacked(name) for name in _Start._fields if name not in {"h", "c", "first"}},
    )
