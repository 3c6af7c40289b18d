"""Files that we never write are refused before anything of theirs is used."""

import io

import h5py
import numpy as np
import pytest
from artifact_samples import episodes_image, latent_episode, run_python

from stages.artifacts.episodes import EpisodeShard
from stages.artifacts.hdf5 import check_heaps
from stages.artifacts.latents import LatentShard, latents_image
from stages.errors import ArtifactDamaged


def hurt(path, change):
    """A good shard, changed by a function of the open file; what the reader says about it."""
    path.write_bytes(episodes_image([(1, 5), (2, 9)]))
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(ArtifactDamaged) as caught:
        EpisodeShard(path).episode(0)
    assert path.name in caught.value.what
    return str(caught.value)


def replace(name, **options):
    def change(file):
        del file[name]
        file.create_dataset(name, **options)

    return change


def soft_link(file):
    del file["rewards"]
    file["rewards"] = h5py.SoftLink("/seeds")


def external_link(file):
    del file["rewards"]
    file["rewards"] = h5py.ExternalLink("/etc/passwd", "/")


def link_among_facts(file):
    file["facts"]["secret"] = h5py.ExternalLink("other.h5", "/rewards")


def external_storage(file):
    del file["rewards"]
    file.create_dataset("rewards", (14,), "f8", external=[("/etc/passwd", 0, 112)])


def virtual(file):
    layout = h5py.VirtualLayout((14,), "f8")
    layout[:] = h5py.VirtualSource("other.h5", "rewards", (14,))
    del file["rewards"]
    file.create_virtual_dataset("rewards", layout)


def loop_of_groups(file):
    file["facts"]["again"] = file["facts"]


def group_for_data(file):
    del file["rewards"]
    file.create_group("rewards")


def data_for_group(file):
    del file["facts"]
    file["facts"] = np.zeros(14)


OBJECTS = h5py.string_dtype()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (soft_link, "link"),
        (external_link, "link"),
        (link_among_facts, "link"),
        (external_storage, "chunks"),
        (virtual, "chunks"),
        (loop_of_groups, "data set"),
        (group_for_data, "data set"),
        (data_for_group, "group"),
        (replace("rewards", shape=(14,), dtype=OBJECTS, chunks=(14,)), "type"),
        (replace("rewards", shape=(14,), dtype=h5py.ref_dtype, chunks=(14,)), "type"),
        (replace("rewards", shape=(14,), dtype="f4", chunks=(14,)), "type"),
        (replace("rewards", shape=(14,), dtype=">f8", chunks=(14,)), "type"),
        (replace("rewards", shape=(14, 2), dtype="f8", chunks=(14, 2)), "type"),
        (replace("rewards", data=np.zeros(14)), "chunks"),
        (replace("rewards", shape=(14,), dtype="f8", chunks=(14,), compression="lzf"), "filters"),
        (replace("rewards", shape=(2**60,), dtype="f8", chunks=(1024,)), "shape"),
        (replace("rewards", shape=(14,), dtype="f8", chunks=(2**24,), maxshape=(None,)), "shape"),
        (lambda file: file.create_dataset("code", data=np.zeros(3)), "'code'"),
        (lambda file: file.__delitem__("rewards"), "lacks rewards"),
        (lambda file: file["rewards"].resize(13, axis=0), "13 rows"),
        (lambda file: file["facts"]["off_road"].resize(15, axis=0), "15 rows"),
        (lambda file: file["observations"].resize(15, axis=0), "15 rows"),
        (lambda file: file["seeds"].resize(1, axis=0), "offsets"),
        (lambda file: file["step_offsets"].__setitem__(0, -5), "offsets"),
        (lambda file: file["step_offsets"].__setitem__(1, 14), "offsets"),
        (lambda file: file["observation_offsets"].__setitem__(1, 7), r"T + 1"),
        (lambda file: file.attrs.__setitem__("format", "wm-latents"), "wm-latents"),
        (lambda file: file.attrs.__setitem__("format", [b"wm-episodes"] * 2), "wm-episodes"),
        (lambda file: file.attrs.__delitem__("format"), "None"),
        (lambda file: file.attrs.__setitem__("version", 2), "version 2; this wm reads up to"),
        (lambda file: file.attrs.__setitem__("version", "1"), "version"),
        (lambda file: file.attrs.__delitem__("engine"), "engine"),
    ],
)
def test_what_we_never_write_is_refused(tmp_path, change, expected):
    assert expected in hurt(tmp_path / "shard.h5", change)


def test_latents_are_not_episodes(tmp_path):
    (tmp_path / "shard.h5").write_bytes(latents_image([latent_episode(1, 5)]))
    with pytest.raises(ArtifactDamaged, match="wm-episodes"):
        EpisodeShard(tmp_path / "shard.h5").episode(0)
    (tmp_path / "shard.h5").write_bytes(episodes_image([(1, 5)]))
    with pytest.raises(ArtifactDamaged, match="wm-latents"):
        LatentShard(tmp_path / "shard.h5").episode(0)


@pytest.mark.parametrize("percent", range(0, 100, 10))
def test_a_cut_file_is_refused_without_its_digest_too(tmp_path, percent):
    content = episodes_image([(1, 40)])
    (tmp_path / "shard.h5").write_bytes(content[: len(content) * percent // 100])
    with pytest.raises(ArtifactDamaged, match=r"shard\.h5"):
        EpisodeShard(tmp_path / "shard.h5").episode(0)


def test_changed_data_is_found_by_the_library_when_no_digest_was_checked(tmp_path):
    content = bytearray(episodes_image([(1, 40)]))
    with h5py.File(io.BytesIO(bytes(content)), "r") as file:
        places = [file[name].id.get_chunk_info(0) for name in ("rewards", "observations")]
    for place in places:
        altered = content.copy()
        altered[place.byte_offset + 50] ^= 4
        (tmp_path / "shard.h5").write_bytes(altered)
        with pytest.raises(ArtifactDamaged, match="cannot be read"):
            EpisodeShard(tmp_path / "shard.h5").episode(0)


def test_a_file_open_for_reading_takes_no_lock(tmp_path):
    path = tmp_path / "shard.h5"
    path.write_bytes(episodes_image([(1, 5)]))
    shard = EpisodeShard(path)
    assert shard.num_episodes == 1
    script = """
import sys, h5py
h5py.File(sys.argv[1], "r+", locking=True).close()  # fails where a reader holds a lock
"""
    run_python(script, path)
    shard.close()


def test_equal_episodes_give_equal_bytes_in_every_process():
    script = """
import hashlib
from artifact_samples import certificate, episodes_image, latent_episode
from stages.artifacts.latents import latents_image
from stages.artifacts.manifest import FileEntry, Manifest
from stages.artifacts.weights import pack_tensors
import numpy as np
tensors = {name: np.ones(5, dtype=kind) for name, kind in zip("cab", ("f4", "i8", "?"))}
metadata = {name: name for name in ("step", "kind", "shape", "seed")}
files = [FileEntry(name, 1, "0" * 64) for name in {"x", "y", "z"}]
manifest = Manifest.certified(
    certificate(config={name: 1 for name in {"p", "q", "r"}}),
    kind="rollouts", fingerprint="1" * 64, files=files,
)
for content in (
    episodes_image([(1, 40), (2, 3), (3, 100)]),
    latents_image([latent_episode(1, 300), latent_episode(2, 3)]),
    pack_tensors(tensors, metadata),
    manifest.to_bytes(),
):
    print(hashlib.sha256(content).hexdigest())
"""
    digests = [run_python(script, hash_seed=str(seed)) for seed in (1, 2, 3)]
    assert len(digests[0].split()) == 4
    assert digests[0] == digests[1] == digests[2]


def test_nothing_heavy_is_loaded_until_a_shard_is_used():
    script = """
import sys
import stages.artifacts.episodes, stages.artifacts.latents, stages.artifacts.weights
import stages.artifacts.workspace, stages.artifacts.versions, stages.artifacts.scores
print(sorted({"h5py", "torch", "gymnasium", "cma", "envpool"} & set(sys.modules)))
"""
    assert run_python(script) == "[]\n"


def test_a_writer_that_was_given_up_does_not_stand_in_the_way():
    """As where a task failed and its error is still held: the same process tries again."""

    def fails():
        yield latent_episode(1, 5)
        raise OSError("the disk")

    with pytest.raises(OSError, match="the disk") as held:
        latents_image(fails())
    both = latents_image([latent_episode(1, 5)]), latents_image([latent_episode(1, 5)])
    assert both[0] == both[1]
    assert held.value


def test_as_many_texts_as_a_file_has_room_for_are_walked(tmp_path):
    """A picture in JPEG is one; heaps that lie in each other have no end of them."""
    path = tmp_path / "many.h5"
    with h5py.File(path, "w") as file:
        file["texts"] = np.array([f"{number}" for number in range(12_000)], dtype=object)
    check_heaps(path)
    head = b"GCOL\x01\0\0\0" + (2**40).to_bytes(8, "little")  # as long as the file
    text = b"\x01\0" + bytes(6) + len(head).to_bytes(8, "little") + head
    path.write_bytes(text * 1500)  # as many heaps, and in each the texts of all that follow
    with pytest.raises(ArtifactDamaged, match="heaps of texts"):
        check_heaps(path)
    path.write_bytes(b"")
    check_heaps(path)
