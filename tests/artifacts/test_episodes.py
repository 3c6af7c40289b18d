import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest
from artifact_samples import commit, episode, episodes_image, latent_episode, new_workspace
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.artifacts.episodes import EpisodeSet, EpisodeShard, EpisodeShardWriter
from stages.artifacts.latents import LatentSet, LatentShard, latents_image
from stages.artifacts.shards import MAX_OPEN, shard_name
from stages.errors import InputMissing, NumbersBad

LENGTHS = [1, 15, 16, 17, 40, 2, 100]  # around and across the chunks of 16 frames
STEP_NAMES = ("actions", "rewards", "terminations", "truncations")
FACTS = ("off_road", "num_tiles")


def shard_at(path, seeds_and_steps, **options):
    path.write_bytes(episodes_image(seeds_and_steps, **options))
    return EpisodeShard(path)


def plain_loop(path):
    """Every episode of a file, read by h5py alone as docs/formats.md tells."""
    with h5py.File(path, "r", locking=False) as file:
        for i, seed in enumerate(file["seeds"]):
            states = slice(file["observation_offsets"][i], file["observation_offsets"][i + 1])
            steps = slice(file["step_offsets"][i], file["step_offsets"][i + 1])
            yield (
                int(seed),
                {n: file[n][states] for n in ("observations", "mu", "logvar") if n in file},
                {name: file[name][steps] for name in STEP_NAMES},
                {name: file["facts"][name][steps] for name in file.get("facts", ())},
            )


def assert_same(record, other):
    assert record.seed == other.seed
    for name in ("observations", *STEP_NAMES):
        np.testing.assert_array_equal(getattr(record, name), getattr(other, name))
        assert getattr(record, name).dtype == getattr(other, name).dtype
    assert set(record.facts) == set(other.facts)
    for name, values in record.facts.items():
        np.testing.assert_array_equal(values, other.facts[name])


def test_episodes_of_any_length_come_back(tmp_path):
    shard = shard_at(tmp_path / "shard.h5", enumerate(LENGTHS))
    assert shard.num_episodes == len(LENGTHS)
    assert shard.lengths.tolist() == LENGTHS
    assert shard.seeds.tolist() == list(range(len(LENGTHS)))
    assert (shard.engine, shard.env, shard.policy) == ("gymnasium", "CarRacing-v3", "brownian")
    assert shard.fact_names == ("num_tiles", "off_road")
    for i, num_steps in enumerate(LENGTHS):
        assert_same(shard.episode(i), episode(i, num_steps))


def test_the_reader_agrees_with_a_plain_loop_over_h5py(tmp_path):
    shard = shard_at(tmp_path / "shard.h5", enumerate(LENGTHS))
    for i, (seed, states, steps, facts) in enumerate(plain_loop(tmp_path / "shard.h5")):
        record = shard.episode(i)
        assert record.seed == seed
        np.testing.assert_array_equal(record.observations, states["observations"])
        for name in STEP_NAMES:
            np.testing.assert_array_equal(getattr(record, name), steps[name])
        for name in FACTS:
            np.testing.assert_array_equal(record.facts[name], facts[name])


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_frames_across_episodes_and_chunks(tmp_path_factory, data):
    lengths = data.draw(st.lists(st.integers(1, 40), min_size=1, max_size=5))
    path = tmp_path_factory.mktemp("frames") / "shard.h5"
    shard = shard_at(path, enumerate(lengths), size=2)
    frames = np.concatenate([episode(i, n, size=2).observations for i, n in enumerate(lengths)])
    start = data.draw(st.integers(0, len(frames)))
    stop = data.draw(st.integers(start, len(frames)))
    np.testing.assert_array_equal(shard.frames(start, stop), frames[start:stop])
    shard.close()


def test_the_file_is_stored_as_documented(tmp_path):
    shard_at(tmp_path / "shard.h5", [(1, 40), (2, 3)])
    with h5py.File(tmp_path / "shard.h5", locking=False) as file:
        assert dict(file.attrs) == {
            "format": "wm-episodes",
            "version": 1,
            "engine": "gymnasium",
            "env": "CarRacing-v3",
            "policy": "brownian",
        }
        frames = file["observations"]
        assert (frames.chunks[0], frames.compression, frames.compression_opts) == (16, "gzip", 1)
        assert frames.shuffle
        assert [axis.label for axis in frames.dims] == ["observation", "row", "column", "channel"]
        assert file["actions"].fletcher32 and file["actions"].compression is None
        assert [axis.label for axis in file["actions"].dims] == ["step", "action"]
        assert file["observation_offsets"][:].tolist() == [0, 41, 45]
        assert file["step_offsets"][:].tolist() == [0, 40, 43]
        assert file["facts"]["off_road"].shape == file["rewards"].shape == (43,)
        stored = frames.id.get_storage_size()
        chunks = sum(frames.id.get_chunk_info(i).size for i in range(frames.id.get_num_chunks()))
        assert stored == chunks and frames.id.get_num_chunks() == 3


def test_choices_are_stored_as_numbers(tmp_path):
    writer = EpisodeShardWriter(engine="gymnasium", env="ALE/Breakout-v5", policy="white")
    record = episode(1, 5, facts=False)
    record = type(record)(**{**vars(record), "actions": np.array([0, 3, 1, 2, 0])})
    writer.append(record)
    (tmp_path / "shard.h5").write_bytes(writer.image())
    found = EpisodeShard(tmp_path / "shard.h5").episode(0)
    assert found.actions.dtype == np.int64 and found.actions.tolist() == [0, 3, 1, 2, 0]
    assert found.facts == {}


@pytest.mark.parametrize("name", ["rewards", "actions"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_bad_numbers_never_reach_the_disk(name, value):
    record = episode(7, 5)
    getattr(record, name)[3] = value
    writer = EpisodeShardWriter(engine="gymnasium", env="CarRacing-v3", policy="brownian")
    with pytest.raises(NumbersBad, match=f"{name} of the episode with seed 7 .* row 3"):
        writer.append(record)


def test_a_caller_may_reuse_its_arrays(tmp_path):
    writer = EpisodeShardWriter(engine="gymnasium", env="CarRacing-v3", policy="brownian")
    record = episode(1, 5)
    writer.append(record)
    for name in ("observations", "rewards"):
        getattr(record, name)[:] = 0
    (tmp_path / "shard.h5").write_bytes(writer.image())
    assert_same(EpisodeShard(tmp_path / "shard.h5").episode(0), episode(1, 5))


def test_a_shard_can_be_sent_to_a_worker_and_closed(tmp_path):
    shard = shard_at(tmp_path / "shard.h5", [(1, 5)])
    before = shard.episode(0)
    sent = pickle.loads(pickle.dumps(shard))
    shard.close()
    assert_same(sent.episode(0), before)
    assert_same(shard.episode(0), before)
    with shard:
        pass


def test_a_missing_shard_is_missing(tmp_path):
    with pytest.raises(InputMissing, match=r"absent\.h5"):
        _ = EpisodeShard(tmp_path / "absent.h5").seeds


def test_episodes_are_counted_through_shards_and_artifacts(tmp_path):
    workspace = new_workspace(tmp_path)
    plans = [[[(0, 3), (1, 7)], [(2, 1)]], [[(3, 20)], [(4, 5), (5, 6), (6, 2)]]]
    for number, plan in enumerate(plans):
        files = {shard_name(i): episodes_image(part) for i, part in enumerate(plan)}
        commit(workspace, files={**files, "metrics.jsonl": b""}, number=number)
    everything = EpisodeSet.of(workspace.artifacts("rollouts"))
    lengths = [3, 7, 1, 20, 5, 6, 2]
    assert everything.num_episodes == 7
    assert everything.lengths.tolist() == lengths
    places = [everything.locate(i) for i in range(7)]
    assert [inside for _, inside in places] == [0, 1, 0, 0, 0, 1, 2]
    for i, num_steps in enumerate(lengths):
        assert_same(everything.episode(i), episode(i, num_steps))
    for outside in (-1, 7):
        with pytest.raises(IndexError):
            everything.locate(outside)
    everything.close()


def open_files():
    return sum(path.exists() for path in Path("/dev/fd").iterdir())


def test_few_files_are_open_however_many_shards_there_are(tmp_path):
    shards = [shard_at(tmp_path / shard_name(i), [(i, 2)], size=2) for i in range(MAX_OPEN + 9)]
    before = open_files()
    everything = EpisodeSet(shards)
    for i in [*range(len(shards)), 0, 5, len(shards) - 1]:
        assert everything.episode(i).seed == i
        assert open_files() - before <= MAX_OPEN
    everything.close()
    assert open_files() == before


def test_latents_agree_with_a_plain_loop_over_h5py(tmp_path):
    records = [latent_episode(i, n) for i, n in enumerate(LENGTHS)]
    path = tmp_path / "shard.h5"
    path.write_bytes(latents_image(records))
    latents = LatentSet([LatentShard(path)])
    assert latents.lengths.tolist() == LENGTHS
    for i, (seed, states, steps, _) in enumerate(plain_loop(path)):
        found = latents.episode(i)
        assert found.seed == seed == records[i].seed
        for name in ("mu", "logvar"):
            np.testing.assert_array_equal(getattr(found, name), states[name])
            np.testing.assert_array_equal(getattr(found, name), getattr(records[i], name))
        for name in STEP_NAMES:
            np.testing.assert_array_equal(getattr(found, name), steps[name])
            np.testing.assert_array_equal(getattr(found, name), getattr(records[i], name))
    latents.close()


def test_an_infinite_latent_is_refused():
    record = latent_episode(3, 4)
    with np.errstate(over="ignore"):
        record.mu[2, 1] = np.float32(1e6)  # infinite in float16
    with pytest.raises(NumbersBad, match=r"mu of the episode with seed 3 .* row 2"):
        latents_image([record])
