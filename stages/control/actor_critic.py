"""C learnt by the gradient of what it dreams: an actor and a critic in imagination.

The actor is C with noise: where a search tries thousands of controllers and keeps the return of
each, this one tries one, and learns from every step which actions went better than the critic
expected. Only the actor's mean is C.
Sources: Schulman et al. 2017 (PPO) and 2016 (GAE); actor and critic in a learnt world, from
recorded places on: Hafner et al. 2020 (Dreamer), Micheli et al. 2023 (IRIS).
Axes: `T` steps, `B` lanes, `n` steps of lanes that were live, `D` inputs of C, `A` its outputs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from stages.contracts import ActionSpec
from stages.control.controllers import ControllerShape, split_parameters, to_actions
from stages.control.pilot import join_features
from stages.memory.noise import normals, uniforms
from stages.training.adam import Adam
from stages.training.initial import initialise
from stages.worlds.dream import ACT, DreamWorld

CRITIC_UNITS = 128
LAMBDA = 0.95  # of GAE
CLIP = 0.2  # of PPO's ratio
ROWS = 8192  # of a minibatch
LEAST = 0.1  # of the median size of inputs: smaller ones are not stretched further


class ActorCritic(nn.Module):
    """Both see C's inputs, divided by how large these are on the average."""

    scale: Tensor  # [D], root mean square of the inputs
    worth: Tensor  # of a unit of the critic, in returns

    def __init__(self, shape: ControllerShape, *, seed: int) -> None:
        """The critic begins at random; so do hidden units of the actor, all else at zero."""
        super().__init__()
        self.shape = shape
        begun = split_parameters(shape, np.zeros((1, shape.num_parameters)))
        self.actor = nn.ParameterDict(
            {_key(name): nn.Parameter(value[0]) for name, value in begun.items()}
        )
        self.critic = nn.Sequential(
            nn.Linear(shape.num_inputs, CRITIC_UNITS), nn.Tanh(), nn.Linear(CRITIC_UNITS, 1)
        )
        initialise(self, seed=seed)
        with torch.no_grad():
            self.actor[_key(list(shape.tensors)[-2 if shape.bias else -1])].zero_()
        self.register_buffer("scale", torch.ones(shape.num_inputs))
        self.register_buffer("worth", torch.ones(()))

    def load(self, parameters: NDArray[np.floating]) -> None:
        """Begin with this C [P]."""
        found = split_parameters(self.shape, np.asarray(parameters)[None])
        with torch.no_grad():
            for name, value in found.items():
                here = self.actor[_key(name)]
                size = self.scale.cpu() if name == "layer0.weight" else 1.0
                here.copy_(value[0] * size)

    def parameters_of_c(self) -> NDArray[np.float64]:
        """All weights [P] of C, for inputs as they are."""
        with torch.no_grad():
            found = [
                self.actor[_key(name)] / (self.scale if name == "layer0.weight" else 1.0)
                for name in self.shape.tensors
            ]
            return torch.cat([part.flatten() for part in found]).cpu().double().numpy()

    def means(self, inputs: Tensor) -> Tensor:
        """C's outputs before the last tanh, [n, A], of scaled inputs [n, D]."""
        signal = inputs
        for layer in range(2 if self.shape.hidden else 1):
            if layer:
                signal = torch.tanh(signal)
            bias = self.actor[_key(f"layer{layer}.bias")] if self.shape.bias else None
            signal = functional.linear(signal, self.actor[_key(f"layer{layer}.weight")], bias)
        return signal

    def values(self, inputs: Tensor) -> Tensor:
        """What the critic expects from there on, [n], in units of `worth`."""
        value: Tensor = self.critic(inputs).squeeze(-1)
        return value


class Actor:
    """How C's outputs become actions by chance, and how likely these were.

    A box: C's outputs before the tanh are means of normal numbers. A choice: after it they are
    logits, of which C takes the largest.
    """

    def __init__(self, spec: ActionSpec, squash: tuple[str, ...]) -> None:
        self.spec, self._squash = spec, squash

    def draw(self, means: Tensor, seeds: Tensor, step: int, sigma: float) -> Tensor:
        """What is done with these means [B, A]: numbers before the tanh [B, A], or choices [B]."""
        if self.spec.kind == "choice":
            uniform = uniforms(seeds, step, means.shape[1], stream=ACT)
            logits = torch.tanh(means) / sigma
            return (logits - torch.log(-torch.log(uniform))).argmax(-1)  # Gumbel's trick
        return means + sigma * normals(seeds, step, means.shape[1], stream=ACT)

    def actions(self, drawn: Tensor) -> NDArray[np.generic]:
        """As the world accepts them, [B, ...]."""
        if self.spec.kind == "choice":
            return drawn.cpu().numpy()
        return to_actions(torch.tanh(drawn), self.spec, self._squash)

    def log_chance(self, means: Tensor, drawn: Tensor, sigma: float) -> Tensor:
        """Of what was done [n], up to what does not depend on the means [n, A]."""
        if self.spec.kind == "choice":
            chances = functional.log_softmax(torch.tanh(means) / sigma, dim=-1)
            return chances.gather(1, drawn[:, None])[:, 0]
        return (((drawn - means) / sigma) ** 2).sum(-1) / -2


class Dreamt(NamedTuple):
    """What the actor did in the dream, and what came of it."""

    inputs: Tensor  # [T, B, D], scaled
    drawn: Tensor  # [T, B, A], or [T, B]
    rewards: Tensor  # [T, B]
    kept: Tensor  # [T, B], chance that the dream goes on after the step
    chance: Tensor  # [T, B], of having come to it; 0 where a lane was no longer live
    last: Tensor  # [B, D], inputs after the last step
    returns: NDArray[np.float64]  # [B]
    num_frames: int


def dream(
    world: DreamWorld,
    model: ActorCritic,
    actor: Actor,
    features: str,
    seeds: Sequence[int],
    *,
    sigma: float,
    max_steps: int = 0,
    tick: Callable[[], None],
) -> Dreamt:
    """Let the actor act until every lane has ended or was cut, by `max_steps` at the latest.

    0 is no such limit; `tick` is called at every step.
    """
    world.reset(seeds)
    hashed = torch.tensor(list(seeds), device=model.scale.device)
    inputs: list[Tensor] = []
    drawn: list[Tensor] = []
    rewards: list[Tensor] = []
    kept: list[Tensor] = []
    chances = [world.chance.clone()]
    returns, num_frames = np.zeros(len(seeds)), 0
    with torch.no_grad():
        while world.live.any() and not 0 < max_steps <= len(inputs):
            tick()
            seen = join_features(features, world.latent, *world.state) / model.scale
            done = actor.draw(model.means(seen), hashed, len(inputs), sigma)
            live = chances[-1]
            step = world.step(actor.actions(done))
            returns += step.reward
            num_frames += int(step.num_frames.sum())
            gone = torch.from_numpy(step.terminated).to(live.device)
            now = torch.where(gone, 0.0, world.chance)
            inputs.append(seen)
            drawn.append(done)
            # The dream's own rewards count by the chance; the critic's do not know of it.
            earned = torch.from_numpy(step.reward).float().to(live.device)
            rewards.append(torch.where(live > 0, earned / live.clamp(min=1e-6), 0.0))
            kept.append(torch.where(live > 0, now / live.clamp(min=1e-6), 0.0))
            chances.append(now)
        last = join_features(features, world.latent, *world.state) / model.scale
    return Dreamt(
        torch.stack(inputs),
        torch.stack(drawn),
        torch.stack(rewards),
        torch.stack(kept),
        torch.stack(chances[:-1]),
        last,
        returns,
        num_frames,
    )


def advantages(
    rewards: Tensor,
    kept: Tensor,
    values: Tensor,
    last: Tensor,
    *,
    discount: float,
    decay: float = LAMBDA,
) -> Tensor:
    """Generalised advantages [T, B] (Schulman et al. 2016, equation 16).

    Args:
        rewards: [T, B].
        kept: chance that the episode goes on after the step, [T, B].
        values: what was expected before the step, [T, B].
        last: what is expected after the last one, [B].
        discount: of a step.
        decay: lambda, of what later steps say of earlier ones.
    """
    found = torch.zeros_like(rewards)
    later, follows = torch.zeros_like(last), last
    for step in reversed(range(len(rewards))):
        onwards = discount * kept[step]
        later = rewards[step] + onwards * (follows + decay * later) - values[step]
        found[step], follows = later, values[step]
    return found


@dataclass(frozen=True)
class Terms:
    """How one learns from a dream."""

    learning_rate: float
    discount: float
    passes: int  # over all steps of a dream


class Learner:
    """Actor, critic and their Adam."""

    def __init__(self, model: ActorCritic, actor: Actor, terms: Terms) -> None:
        self.model, self._actor, self._terms = model, actor, terms
        self.adam = Adam(model.parameters())

    def learn(
        self,
        dreamt: Dreamt,
        sigma: float,
        *,
        order: torch.Generator,
        tick: Callable[[], None],
    ) -> float:
        """Some passes over what was dreamt; the share of its returns that the critic foresaw.

        Broken off by `tick`, which is called before every step of Adam, it has changed the weights.
        """
        model, terms = self.model, self._terms
        inputs = dreamt.inputs.flatten(0, 1)
        with torch.no_grad():
            values = model.values(dreamt.inputs)
            found = advantages(
                dreamt.rewards / model.worth,
                dreamt.kept,
                values,
                model.values(dreamt.last),
                discount=terms.discount,
            )
            there = dreamt.chance > 0
            places = there.flatten().nonzero()[:, 0]  # of inputs, which are too large to copy
            drawn, weight, better = dreamt.drawn[there], dreamt.chance[there], found[there]
            target = (values + found)[there]
            weight = weight / weight.mean()
            before = self._actor.log_chance(model.means(inputs)[places], drawn, sigma)
            middle = (weight * better).mean()
            spread = (weight * (better - middle) ** 2).mean().sqrt()
            missed = (weight * found[there] ** 2).mean()
            varies = (weight * (target - (weight * target).mean()) ** 2).mean()
            better = (better - middle) / (spread + 1e-8)
        for _ in range(terms.passes):
            shuffled = torch.randperm(len(places), generator=order).to(places.device)
            for rows in torch.split(shuffled, ROWS):
                tick()
                seen = inputs[places[rows]]
                now = self._actor.log_chance(model.means(seen), drawn[rows], sigma)
                ratio = (now - before[rows]).exp()
                gain = torch.minimum(
                    ratio * better[rows], ratio.clamp(1 - CLIP, 1 + CLIP) * better[rows]
                )
                error = (model.values(seen) - target[rows]) ** 2
                loss = (weight[rows] * (error - gain)).mean()
                torch.autograd.backward(loss)
                self.adam.step(terms.learning_rate)
        return float(1 - missed / varies.clamp(min=1e-12))

    def measure(self, dreamt: Dreamt) -> None:
        """Learn from a first dream how large inputs and returns are; C stays what it is."""
        model = self.model
        kept = model.parameters_of_c()
        there = dreamt.chance > 0
        with torch.no_grad():
            size = model.scale * dreamt.inputs[there].square_().mean(0).sqrt()
            model.scale.copy_(size.clamp(min=max(LEAST * float(size.median()), 1e-6)))
            nothing = torch.zeros_like(dreamt.rewards)
            returns = advantages(
                dreamt.rewards,
                dreamt.kept,
                nothing,
                nothing[0],
                discount=self._terms.discount,
                decay=1.0,
            )
            worth = float(returns[there].square().mean().sqrt())
            model.worth.fill_(worth if worth > 0 else 1.0)
        model.load(kept)


def _key(name: str) -> str:
    """ParameterDict allows no dots in names."""
    return name.replace(".", "_")
