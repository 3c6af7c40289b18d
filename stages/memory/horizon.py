"""How good M's dreams are k steps on, beside what really came: error, likelihood, drift, returns.

From every start (`starts`) M dreams several times at temperature 1 with the recorded actions and
sees nothing more of the world. A row for k counts the starts whose recording lasts k steps, so rows
of a large k speak of long episodes. Dreams that M ends go on, for the latents; for survival they
count as dead.
Axes: `S` starts, `P` dreams of a start, `L` = S * P lanes, `W` starts that last k steps, `Q` lags,
`Z` latent size, `H` LSTM units, `K` components.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stages.errors import NumbersBad
from stages.memory.baselines import entropy_floor
from stages.memory.calibration import agreement, reliability, survival
from stages.memory.dreaming import DreamingMemory, sound
from stages.memory.lags import Lags
from stages.memory.lstm import State
from stages.memory.mdn_rnn import MDNRNN
from stages.memory.mixture import Prediction, log_likelihood
from stages.memory.noise import normals, uniforms
from stages.memory.starts import Known, Starts

NUM_DREAMS = 16  # of every start
WEIGHTS, NOISE = 1, 2  # streams of random numbers

Row = dict[str, Any]
Tick = Callable[[int, int], None]


@dataclass(frozen=True)
class Dreamt:
    """All dreams after one more lag."""

    seen: Tensor  # [L, S], what M's heads saw when the step drew z
    z: Tensor  # [L, Z]
    lost: float  # share of dreams that stand still, for the next latent was NaN or huge
    earned: NDArray[np.float64] | None  # [L], the rewards that M foresaw so far
    alive: NDArray[np.float64] | None  # [L], 1 where M has not cut the episode: logit <= 0
    kept: NDArray[np.float64] | None  # [L], the probability not to have ended by chance


def measured(
    model: MDNRNN,
    starts: Starts,
    known: Known,
    lags: Lags,
    *,
    at: Sequence[int],
    seed: int,
    end_weight: float,
    tick: Tick = lambda done, total: None,  # noqa: ARG005
) -> Row:
    """What `horizon.json` says of M: a row per lag in `at`, and the calibration of ends.

    Args:
        model: M.
        starts: where it dreams from, with what came after the lags `at`.
        known: what it said of ends with the real past before it.
        lags: the moments of the training data.
        at: the lags, ascending.
        seed: of the noise; lanes have seeds of their own, so their number does not matter.
        end_weight: what a step that ends weighed when the end head was trained.
        tick: called after every dreamt step, with how many are done and how many there are.

    Raises:
        NumbersBad: a dream is NaN or huge after one step.
    """
    alive = survival(starts.left, starts.ended, at)
    rows = []
    dreams = dream(model, starts, at=at, seed=seed, end_weight=end_weight, tick=tick)
    for place, (lag, dreamt) in enumerate(zip(at, dreams, strict=True)):
        lasting = starts.left >= lag
        row: Row = {"steps": lag, "starts": int(lasting.sum())}
        row |= _latents(model, starts, lags, dreamt, lag, place, lasting)
        row |= {"lost": dreamt.lost, "reward": None, "alive": None}
        if dreamt.earned is not None:
            foreseen = dreamt.earned.reshape(len(lasting), -1).mean(1)
            row["reward"] = agreement(foreseen[lasting], starts.earned[lasting, place])
        if dreamt.alive is not None and dreamt.kept is not None:
            row["alive"] = {
                "real": alive[place],
                "hard": float(dreamt.alive.mean()),
                "sampled": float(dreamt.kept.mean()),
            }
        rows.append(row)
    ends = None
    if len(known.logit):
        ends = reliability(known.logit, known.ended, weight=end_weight)
    return {"horizon": rows, "ends": ends}


@torch.inference_mode()
def dream(
    model: MDNRNN,
    starts: Starts,
    *,
    at: Sequence[int],
    seed: int,
    end_weight: float,
    num_dreams: int = NUM_DREAMS,
    tick: Tick = lambda done, total: None,  # noqa: ARG005
) -> Iterator[Dreamt]:
    """Dream from every start at once, and show all lanes after each of these lags."""
    lanes = torch.arange(len(starts.left), device=starts.actions.device)
    lanes = lanes.repeat_interleave(num_dreams)  # [L], the start of each
    seeds = seed + torch.arange(len(lanes), device=lanes.device)
    dreaming = DreamingMemory(model)
    z = torch.from_numpy(starts.now).to(lanes.device)[lanes]
    state: State = (starts.state[0][lanes], starts.state[1][lanes])
    restart = starts.first[lanes]
    whole = torch.ones_like(restart)
    seen = dreaming.seen(state[0], z, starts.actions[lanes, 0])
    tally = _Tally(len(lanes), end_weight)
    for step in range(1, at[-1] + 1):
        flag = restart if step == 1 else torch.zeros_like(restart)
        before, a = (z, *state), starts.actions[lanes, step - 1]
        state = dreaming.advance(z, a, state, flag if model.shape.restart_flag else None)
        now = dreaming.seen(state[0], z, a)
        tally.count(*model.other_heads(now))
        z = dreaming.draw(
            now,
            uniform=uniforms(seeds, step, z.shape[1], stream=WEIGHTS),
            noise=normals(seeds, step, z.shape[1], stream=NOISE),
            temperature=1.0,
        )
        tick(step, at[-1])
        whole &= sound(z, state[0])
        if step == 1 and not whole.all():
            raise NumbersBad(
                "Dreams are NaN or huge after one step.",
                why="M's weights are too large.",
                fix="Train it again with a smaller memory.learning_rate.",
            )
        z, h, c = (
            torch.where(whole[:, None], new, old)
            for new, old in zip((z, *state), before, strict=True)
        )
        state = h, c
        seen = torch.where(whole[:, None], now, seen)
        if step in at:
            yield Dreamt(seen, z, 1 - float(whole.double().mean()), *tally.told())


class _Tally:
    """What the heads besides the mixture's have said so far, [L] each."""

    def __init__(self, num_lanes: int, end_weight: float) -> None:
        self._earned: NDArray[np.float64] | None = None
        self._alive: NDArray[np.float64] | None = None
        self._log_kept = np.zeros(num_lanes)
        self._shift = math.log(end_weight)

    def count(self, reward: Tensor | None, logit: Tensor | None) -> None:
        """One more step."""
        if reward is not None:
            earned = reward.cpu().double().numpy()
            self._earned = earned if self._earned is None else self._earned + earned
        if logit is not None:
            said = logit.cpu().double().numpy()
            alive = (said <= 0).astype(np.float64)
            self._alive = alive if self._alive is None else self._alive * alive
            self._log_kept = self._log_kept - np.logaddexp(0, said - self._shift)  # log(1 - p)

    def told(self) -> tuple[NDArray[np.float64] | None, ...]:
        """`earned`, `alive` and `kept` of `Dreamt`."""
        if self._alive is None:
            return self._earned, None, None
        return self._earned, self._alive, np.exp(self._log_kept)


@torch.inference_mode()
def _latents(
    model: MDNRNN,
    starts: Starts,
    lags: Lags,
    dreamt: Dreamt,
    lag: int,
    place: int,
    lasting: NDArray[np.bool_],
) -> Row:
    """Error, likelihood, spread and drift of the starts that last this lag."""
    chosen = torch.from_numpy(lasting).to(dreamt.seen.device)

    def of_starts(values: Tensor) -> Tensor:  # [L, ...] -> [W, P, ...]
        return values.view(len(lasting), -1, values.shape[1])[chosen]

    now, now_mu = starts.now[lasting].astype(np.float64), starts.now_mu[lasting]  # [W, Z]
    z, mu = starts.later[lasting, place].astype(np.float64), starts.later_mu[lasting, place]
    held = lags.held_nll(lag, now, z)
    seen, came = of_starts(dreamt.seen), torch.from_numpy(starts.later[lasting, place])
    prediction = model.heads(seen, came.to(seen.device)[:, None])  # [W, P, Z, K]
    means = predictive_means(model, seen)  # [W, P, Z]
    likelihood = _log_marginal(prediction, came)
    return {
        "error": _root_mean_square(means.mean(1) - mu),
        "error_held": _root_mean_square(now_mu - mu),
        "error_mean": _root_mean_square(lags.mean - mu),
        "nll": -float(likelihood.mean()),
        "nll_held": None if held is None else float(held.mean()),
        "nll_mean": float(lags.mean_nll(z).mean()),
        "entropy_floor": entropy_floor(starts.later_logvar[lasting, place]),
        "spread": math.sqrt(means.var(1, ddof=1).mean()),
        "distance": _root_mean_square(means - lags.mean),
        "distance_real": _root_mean_square(mu - lags.mean),
    }


def predictive_means(model: MDNRNN, seen: Tensor) -> NDArray[np.float64]:
    """Mean [..., Z] of what M says of the next latent by what its heads see [..., S]."""
    means: NDArray[np.float64] = model.means(seen).cpu().double().numpy()
    return means


def _log_marginal(prediction: Prediction, z: Tensor) -> NDArray[np.float64]:
    """Log density [W, Z] of z [W, Z] after k steps, every dimension by itself.

    Of an M with blocks it is that of a dimension given the blocks before it.

    The density of the k-th latent given the start is the mean over dreams of k - 1 steps of M's
    mixture after them; here over P dreams. That is a density of its own, exact for k = 1; for more
    steps its mean logarithm is below that of the mean over all dreams (Jensen).
    """
    log_density = log_likelihood(prediction, z.to(prediction.mean.device)[:, None])
    marginal = torch.logsumexp(log_density, dim=1) - math.log(log_density.shape[1])
    found: NDArray[np.float64] = marginal.cpu().double().numpy()
    return found


def _root_mean_square(values: NDArray[np.floating]) -> float:
    return float(np.sqrt(np.square(values, dtype=np.float64).mean()))


def useful_steps(rows: Sequence[Row]) -> int:
    """Up to which lag dreams say more of what comes than the start held, and than the mean."""
    useful = 0
    for row in rows:
        others = [row[name] for name in ("nll_held", "nll_mean") if row[name] is not None]
        if row["nll"] >= min(others):
            break
        useful = row["steps"]
    return useful
