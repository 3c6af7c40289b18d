"""Scenes against the loop that drives everywhere else, and against M's own heads."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from command_line import copied

from stages.agents import trained_agent
from stages.artifacts.episodes import EpisodeSet
from stages.artifacts.workspace import Workspace
from stages.contracts import ActionSpec
from stages.control.controllers import Controllers
from stages.control.pilot import Choices, Dreamer, PilotShape
from stages.errors import InputMissing, InputsMismatch, UsageError
from stages.events import Silent
from stages.inspection.overview import look
from stages.memory.dreaming import DreamingMemory
from stages.memory.mdn_rnn import MDNRNN, MDNRNNShape
from stages.pipeline import Request
from stages.playing.casting import cast, open_dream, open_recorded, open_world
from stages.playing.dream_scene import DreamScene
from stages.training.seeding import episode_seeds
from stages.trials import load_pilot
from stages.vision.vae import VAE, decode_latents, encode_frames
from stages.worlds.dream import DreamTerms, DreamWorld, Starts
from stages.worlds.driving import Recorder, drive
from stages.worlds.making import make_world

STEPS = 12
Z, H = 4, 12


@pytest.fixture(autouse=True, scope="module")
def one_math_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def prepared(micro_workspace):
    return look(micro_workspace, Request(), progress=Silent())


def driven(world, policy, seed, *, steps):
    """The record of one episode as `drive` goes through it."""
    records = []
    drive(world, policy, [seed], observers=(Recorder(records.append),), max_steps=steps)
    return records[0]


def played(scene, chooses, *, steps):
    """Moments of a scene: what `chooses` says at each step."""
    moments = [scene.begin(0)]
    for number in range(steps):
        if moments[-1].ended:
            break
        moments.append(scene.step(chooses(number)))
    return moments


def test_the_agent_plays_as_it_is_evaluated(prepared):
    workspace, job = prepared.workspace, prepared.job
    scene, _ = open_world(job, cast(workspace, job, by_agent=True))
    moments = played(scene, lambda _: scene.choice("agent"), steps=STEPS)
    files, parameters = trained_agent(workspace, workspace.newest("control"))
    world = make_world(job.world, engine="gymnasium")
    seed = episode_seeds("play", job.seed, 0, 1)[0]
    pilot = load_pilot(files, parameters[None], world.action_spec)
    expected = driven(world, pilot, seed, steps=STEPS)
    assert moments[0].seed == seed
    assert np.array_equal([m.action for m in moments[1:]], expected.actions)
    assert [m.reward for m in moments[1:]] == expected.rewards.tolist()
    assert np.array_equal([m.frame for m in moments], expected.observations)
    scene.close()


def test_the_world_is_shown_as_the_agent_sees_it(prepared):
    workspace, job = prepared.workspace, prepared.job
    company = cast(workspace, job, by_agent=False)
    scene, _ = open_world(job, company)
    gas = np.array([0.0, 1.0, 0.0], np.float32)
    moment = played(scene, lambda _: gas, steps=3)[-1]
    names = ["frame", "prepared frame", "V's reconstruction", "M had foreseen"]
    assert [one.title for one in moment.pictures] == names
    raw = make_world(job.world, engine="gymnasium", raw=True)
    raw.reset([moment.seed])
    for _ in range(3):
        frame = raw.step(gas[None]).observation[0]
    assert np.array_equal(moment.pictures[0].pixels, frame)
    assert np.array_equal(moment.pictures[1].pixels, moment.frame)
    vision = scene._follower.vision
    mu, _ = encode_frames(vision, moment.frame[None])
    near = np.abs(moment.pictures[2].pixels.astype(int) - decode_latents(vision, mu)[0])
    assert near.max() <= 1
    scene.close()


def test_without_models_there_is_the_world_alone(prepared, tmp_path):
    job = prepared.job
    company = cast(Workspace(tmp_path / "none"), job, by_agent=True)
    scene, site = open_world(job, company)
    moment = scene.begin(0)
    assert [one.title for one in moment.pictures] == ["frame", "prepared frame"]
    assert scene.drivers == ("keyboard", "random")
    assert site.driving == ()
    scene.close()
    with pytest.raises(InputMissing, match="nothing to dream") as missing:
        open_dream(Workspace(tmp_path / "none"), job, company, control(prepared))
    assert "wm train-vision" in missing.value.fix


def control(prepared, **changes):
    return dataclasses.replace(prepared.settings.sections["control"], **changes)


def test_a_dream_is_played_to_its_end_where_candidates_dream_in_pieces(prepared):
    company = cast(prepared.workspace, prepared.job, by_agent=True)
    pieces = control(prepared, dream_starts="anywhere", dream_steps=2)
    scene, _ = open_dream(prepared.workspace, prepared.job, company, pieces)
    limit = 1000 // prepared.job.world.repeat  # frames of CarRacing
    assert scene._dream.terms.max_steps == limit > 2
    scene.close()


def test_the_agent_dreams_as_in_a_search(prepared):
    """The scene's dream is the search's world, driven by the search's policy."""
    workspace, job = prepared.workspace, prepared.job
    company = cast(workspace, job, by_agent=True)
    scene, site = open_dream(workspace, job, company, control(prepared, dream_steps=STEPS))
    moments = played(scene, lambda _: scene.choice("agent"), steps=STEPS + 5)
    dream, agent = scene._dream, scene._agent
    seed = moments[0].seed
    latents, actions = [dream.reset([seed]).copy()], []
    agent.reset([seed])
    while dream.live.any():
        actions.append(agent.act(latents[-1], dream.live))
        latents.append(dream.step(actions[-1]).observation.copy())
    assert len(moments) == STEPS + 1 and moments[-1].ended == "cut"
    assert np.array_equal([m.action for m in moments[1:]], np.concatenate(actions))
    frames = decode_latents(scene._vision, torch.from_numpy(np.concatenate(latents)))
    shown = np.stack([m.pictures[0].pixels for m in moments]).astype(int)
    assert np.abs(shown - frames).max() <= 1  # batches are rounded in other ways
    assert site.engine == "dream" and [one.kind for one in site.watched] == ["vision", "memory"]
    assert moments[1].reward is None, "this M foresees no rewards"


def lively():
    model, source = MDNRNN(MDNRNNShape(Z, 1, H, 3, end_head=True), seed=1), torch.Generator()
    source.manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.4 * torch.randn(parameter.shape, generator=source))
        model.end_head.bias.fill_(-3.0)
    return model.eval()


SPEC = ActionSpec("box", 1, low=(-1.0,), high=(1.0,))


def dream_scene(**terms):
    model = lively()
    mu = np.random.default_rng(5).standard_normal((7, Z)).astype(np.float32)
    starts = Starts(mu, np.full((7, Z), -3.0, np.float32), 1.0)
    kept = DreamTerms(**{"max_steps": 20, **terms})
    dream = DreamWorld(DreamingMemory(model), starts, SPEC, kept)
    shape = PilotShape()
    kind = shape.controller(Z, H, 1)
    parameters = np.random.default_rng(7).normal(size=(1, kind.num_parameters))
    choices = Choices(Controllers(kind, parameters), shape, SPEC)
    scene = DreamScene(
        dream,
        lambda number: 40 + number,
        vision=VAE(Z, seed=2).eval(),
        choices=choices,
        chance=None,
        temperature=kept.temperature,
        rewarded=True,
    )
    return scene, dream, choices, model


def test_a_dream_equals_drive_and_tells_its_end_probability():
    scene, dream, choices, model = dream_scene()
    moments = played(scene, lambda _: scene.choice("agent"), steps=30)
    outcome = drive(dream, Dreamer(dream, choices), [40])[0]
    assert (moments[-1].num_steps, moments[-1].total) == (outcome.num_steps, outcome.total_reward)
    assert (moments[-1].ended == "ended") == outcome.terminated
    dream.reset([40])
    z, state = dream.latent, model.initial_state(1)
    for moment in moments[1:]:
        action = torch.from_numpy(moment.action[None])
        with torch.inference_mode():
            state = model.advance(z, action, state)
            logit = float(model.heads(state[0]).end_logit)
        assert moment.end_probability == pytest.approx(1 / (1 + math.exp(-logit)), abs=1e-4)
        dream.step(moment.action[None])
        z = dream.latent


def test_the_temperature_changes_while_it_dreams():
    cold, _, _, _ = dream_scene(temperature=0.0)
    warm, _, _, _ = dream_scene(temperature=1.0)
    expected = played(cold, lambda _: np.zeros(1, np.float32), steps=4)
    warm.begin(0)
    for _ in range(30):
        moment = warm.warm(-0.05)
    assert moment.temperature == 0.0, "not below"
    found = [warm.step(np.zeros(1, np.float32)) for _ in range(4)]
    assert np.array_equal([m.frame for m in found], [m.frame for m in expected[1:]])
    assert found[0].outcome.facts["temperature"].tolist() == [0.0]
    assert warm.warm(0.25).temperature == 0.25


def test_recordings_go_forward_and_back(prepared):
    workspace, job = prepared.workspace, prepared.job
    company = cast(workspace, job, by_agent=False)
    scene = open_recorded(workspace, "rollouts/0001", company)
    source = EpisodeSet.of([workspace.get("rollouts/0001")])
    record = source.episode(1)
    nothing = np.zeros(0, np.float32)
    moments = [scene.begin(1)] + [scene.step(nothing) for _ in range(record.num_steps + 3)]
    whole = moments[: record.num_steps + 1]
    assert np.array_equal([m.frame for m in whole], record.observations)
    assert [m.reward for m in whole[1:]] == record.rewards.tolist()
    assert whole[-1].total == pytest.approx(record.rewards.sum())
    assert whole[-1].ended == "cut" and not any(m.ended for m in whole[:-1])
    assert moments[-1].num_steps == record.num_steps, "the end is the end"
    backwards = [scene.back() for _ in range(record.num_steps + 3)]
    assert np.array_equal([m.frame for m in backwards[:-3]], record.observations[-2::-1])
    assert backwards[-1].num_steps == 0
    names = ["recorded frame", "V's reconstruction", "M had foreseen"]
    assert [one.title for one in whole[5].pictures] == names
    # What M expected does not depend on how one came there.
    for forward, backward in ((whole[n], backwards[record.num_steps - 1 - n]) for n in (1, 7)):
        for one, other in zip(forward.pictures, backward.pictures, strict=True):
            assert np.array_equal(one.pixels, other.pixels)
    assert scene.begin(source.num_episodes).seed == source.episode(0).seed
    with pytest.raises(UsageError, match="no episodes"):
        open_recorded(workspace, "vision/0001", company)
    scene.close()


def test_who_does_not_belong_together_does_not_play_together(micro_workspace, tmp_path):
    root = copied(micro_workspace, tmp_path / "ws")
    prepared = look(root, Request(), progress=Silent())
    workspace, job = prepared.workspace, prepared.job
    named = dataclasses.replace(job, parents=("control/0001",))
    assert cast(workspace, named, by_agent=False).memory.id == "memory/0001"
    with pytest.raises(UsageError, match="plays with no rollouts") as refused:
        cast(workspace, dataclasses.replace(job, parents=("rollouts/0001",)), by_agent=False)
    assert "wm play rollouts/0001" in refused.value.fix
    other = dataclasses.replace(job, world=dataclasses.replace(job.world, repeat=7))
    with pytest.raises(InputsMismatch, match="another world"):
        cast(workspace, other, by_agent=False)
