"""What M foresees of held-out episodes: one step on, and k steps on in dreams.

The measures are those of `memory`; this gathers for them what they need of recorded latents, a few
episodes at a time.
Axes as in contracts.py.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from stages.events import Advanced, Doing, Monitor, Silent
from stages.memory.baselines import Transitions, reference_levels
from stages.memory.horizon import NUM_DREAMS, measured, useful_steps
from stages.memory.lags import LagSums
from stages.memory.losses import Sequences, draw_sequences, held_out_errors
from stages.memory.mdn_rnn import MDNRNN
from stages.memory.starts import Episodes, choose_places, gather_starts, lags_of
from stages.training.seeding import generator, torch_seed
from stages.training.sequences import LatentSource, in_order_sequences

BATCH = 16  # episodes at a time
HELD_OUT_STEP = 1 << 40  # noise of held-out batches: beyond every training step
HORIZON_STEP = 1 << 41  # the same of the episodes that dreams start from
MAX_BASELINE_STEPS = 20_000  # transitions on which the baselines are fitted and scored
MAX_KNOWN_STEPS = 50_000  # of the held-out episodes that dreams start from

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class HeldOut:
    """On what M is tested."""

    episodes: LatentSource
    train: Sequence[int]  # the episodes that M learnt from: baselines are fitted on these
    held_out: Sequence[int]  # the others
    seed: int
    end_weight: float  # of a step that ends
    device: torch.device


def one_step_errors(
    model: MDNRNN, test: HeldOut, *, progress: Monitor | None = None
) -> dict[str, float]:
    """Held-out errors of M beside what no model, or a trivial one, would reach."""
    monitor = progress or Silent()
    num_batches = -(-len(test.held_out) // BATCH)

    def batches() -> Iterator[Sequences]:
        found = in_order_sequences(test.episodes, test.held_out, batch_size=BATCH)
        for number, batch in enumerate(found):
            monitor.poll()
            monitor.emit(Doing("measuring M's errors on held-out episodes", number, num_batches))
            noise = batch.noise(seed=test.seed, step=HELD_OUT_STEP + number)
            yield draw_sequences(batch, noise, device=test.device)

    errors = held_out_errors(model, batches(), end_weight=test.end_weight)
    monitor.emit(Doing("fitting what M is compared with"))
    levels = reference_levels(
        _transitions(_drawn(test, test.train)), _transitions(_drawn(test, test.held_out))
    )
    return {
        **errors,
        **{f"baseline_{name}": value for name, value in levels.items()},
        "nll_above_floor": errors["nll"] - levels["entropy_floor"],
    }


def dreamt_errors(
    model: MDNRNN, test: HeldOut, *, progress: Monitor | None = None
) -> dict[str, Any]:
    """What `horizon.json` holds (docs/formats.md)."""
    monitor = progress or Silent()

    def tick(done: int, total: int) -> None:
        monitor.poll()
        monitor.emit(Advanced(done, total, "dreamt steps"))

    def tick_past(number: int) -> None:
        monitor.poll()
        total = -(-len(looked_at) // BATCH)
        monitor.emit(Doing("following the past up to where dreams begin", number, total))

    seed, looked_at = test.seed, _some(test)
    lengths = test.episodes.lengths[looked_at].tolist()
    places = choose_places(lengths, generator(seed, "horizon", "places"))
    at = lags_of([lengths[place.episode] - place.step for place in places])

    def batches() -> Iterator[Episodes]:
        found = in_order_sequences(test.episodes, looked_at, batch_size=BATCH)
        for number, batch in enumerate(found):
            tick_past(number)
            noise = batch.noise(seed=seed, step=HORIZON_STEP + number)
            drawn = draw_sequences(batch, noise, device=test.device)
            yield Episodes(drawn, batch.mu, batch.logvar)

    starts, known = gather_starts(model, batches(), places, at)
    monitor.emit(Doing("fitting what dreams are compared with"))
    sums = LagSums(at, model.shape.latent_size)
    for z, _ in _drawn(test, generator(seed, "horizon", "train").permutation(test.train).tolist()):
        sums.add(z)
    found = measured(
        model,
        starts,
        known,
        sums.fitted(),
        at=at,
        seed=torch_seed(seed, "horizon", "dreams"),
        end_weight=test.end_weight,
        tick=tick,
    )
    return {
        **found,
        "useful_steps": useful_steps(found["horizon"]),
        "starts": len(places),
        "first_frames": sum(place.step == 0 for place in places),
        "episodes": len({place.episode for place in places}),
        "dreams": NUM_DREAMS,
        "temperature": 1.0,
        "end_weight": test.end_weight,
    }


def _some(test: HeldOut) -> list[int]:
    """Some of the held-out episodes, all of them where they are few; sorted."""
    order = generator(test.seed, "horizon", "episodes").permutation(test.held_out)
    lengths = test.episodes.lengths[order]
    return sorted(order[np.cumsum(lengths) - lengths < MAX_KNOWN_STEPS].tolist())


def _transitions(drawn: Iterable[tuple[Floats, Floats]]) -> Transitions:
    """Pairs of consecutive latents of these episodes."""
    pairs = [(z[:-1], z[1:], logvar[1:]) for z, logvar in drawn]
    now, following, logvar = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    return Transitions(now, following, logvar)


def _drawn(test: HeldOut, numbers: Sequence[int]) -> Iterator[tuple[Floats, Floats]]:
    """Latents [T + 1, Z], drawn, and their log variances, of the first of these episodes."""
    count = 0
    for number in numbers:
        record = test.episodes.episode(number)
        mu, logvar = record.mu.astype(np.float32), record.logvar.astype(np.float32)
        random = generator(test.seed, "baselines", number)
        noise = random.standard_normal(mu.shape, dtype=np.float32)
        yield mu + np.exp(logvar / 2) * noise, logvar
        count += record.num_steps
        if count >= MAX_BASELINE_STEPS:
            break
