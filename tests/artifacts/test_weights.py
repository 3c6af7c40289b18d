import json
import struct

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from stages.artifacts.weights import check_finite, check_shapes, pack_tensors, unpack_tensors
from stages.errors import ArtifactDamaged, InputMissing, NumbersBad

KINDS = ["f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "?"]
ARRAYS = st.sampled_from(KINDS).flatmap(
    lambda kind: npst.arrays(kind, npst.array_shapes(min_dims=0, max_dims=3, min_side=0))
)
TENSORS = st.dictionaries(st.text(max_size=8).filter(lambda n: n != "__metadata__"), ARRAYS)


def assert_same(found, expected):
    assert set(found) == set(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape
        assert found[name].tobytes() == np.ascontiguousarray(array).tobytes()


@given(TENSORS, st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=4))
def test_the_library_reads_what_we_write_and_we_read_it_too(tensors, metadata):
    content = pack_tensors(tensors, metadata)
    assert_same(safetensors.numpy.load(content), tensors)
    found, found_metadata = unpack_tensors(content)
    assert_same(found, tensors)
    assert found_metadata == metadata


def test_we_read_what_the_library_writes(tmp_path):
    tensors = {"b": np.arange(6, dtype=np.float32).reshape(2, 3), "a": np.array([True, False])}
    safetensors.numpy.save_file(tensors, tmp_path / "w.safetensors", {"step": "7"})
    found, metadata = unpack_tensors(tmp_path / "w.safetensors")
    assert_same(found, tensors)
    assert metadata == {"step": "7"}


def test_order_and_memory_layout_do_not_matter():
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    one = pack_tensors({"a": array.T, "b": array[:, ::2]}, {"x": "1", "y": "2"})
    other = pack_tensors(
        {"b": array[:, ::2].copy(), "a": array.T.copy().astype(">f4")}, {"y": "2", "x": "1"}
    )
    assert one == other
    np.testing.assert_array_equal(unpack_tensors(one)[0]["a"], array.T)


def test_arrays_may_be_changed_and_are_aligned():
    found, _ = unpack_tensors(pack_tensors({"a": np.zeros(3, dtype=np.int8), "b": np.zeros(2)}))
    found["b"][0] = 1  # torch.from_numpy warns about arrays that may not
    assert found["b"].flags.aligned and found["a"].tolist() == [0, 0, 0]


@pytest.mark.parametrize("percent", range(0, 100, 5))
def test_a_cut_file_is_refused(tmp_path, percent):
    content = pack_tensors({"weight": np.arange(200, dtype=np.float32)}, {"step": "1"})
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content[: len(content) * percent // 100])
    with pytest.raises(ArtifactDamaged, match=r"weights\.safetensors"):
        unpack_tensors(path)


def file_with(header, num_bytes=8):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(num_bytes)


def tensor(start, stop, *, dtype="F32", shape=(1,)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, stop]}


@pytest.mark.parametrize(
    "content",
    [
        file_with({"a": tensor(0, 4), "b": tensor(0, 4)}, 4),  # overlapping
        file_with({"a": tensor(0, 4)}, 8),  # bytes that nobody owns
        file_with({"a": tensor(4, 8)}, 8),  # a hole
        file_with({"a": tensor(0, 8)}),  # size and shape disagree
        file_with({"a": tensor(0, 8, shape=(2**61, 4))}),
        file_with({"a": tensor(0, 4, dtype="BF16", shape=(2,)), "b": tensor(4, 8)}),  # no numpy
        file_with(b'{"a": %b, "a": %b}' % ((json.dumps(tensor(0, 8, shape=(2,))).encode(),) * 2)),
        file_with({"__metadata__": {"step": 1}, "a": tensor(0, 8, shape=(2,))}),
        file_with(b"[]"),
        file_with(b"[" * 5000),
        struct.pack("<Q", 2**63) + b"{}",
        b"\x80\x04\x95cos\nsystem\n(S'touch marker'\ntR.",  # a pickle
    ],
)
def test_hostile_files_are_refused(content):
    with pytest.raises(ArtifactDamaged):
        unpack_tensors(content)


def test_a_missing_file_is_missing(tmp_path):
    with pytest.raises(InputMissing, match="absent"):
        unpack_tensors(tmp_path / "absent")


def test_weights_of_another_model_are_refused_by_name():
    found = {"encoder": np.zeros((2, 3)), "extra": np.zeros(1)}
    check_shapes(found, {"encoder": (2, 3), "extra": (1,)})
    with pytest.raises(ArtifactDamaged) as caught:
        check_shapes(found, {"encoder": (3, 2), "decoder": (1,)}, source="vision/0001")
    assert "vision/0001" in caught.value.what
    for part in ("decoder is missing", "extra is unknown", "encoder has shape (2, 3), not (3, 2)"):
        assert part in caught.value.what


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", ["f2", "f4", "f8"])
def test_weights_that_are_no_numbers_are_refused(bad, kind):
    tensors = {"a": np.ones(3, dtype=kind), "b": np.ones((4, 5), dtype=kind)}
    check_finite(tensors | {"c": np.array([7]), "d": np.array(True)}, source="a file")
    tensors["b"][1, 2] = tensors["b"][3, 0] = bad
    with pytest.raises(NumbersBad, match=f"^b in a file holds {bad}") as caught:
        check_finite(tensors, source="a file")
    assert "2 of its 20 numbers" in caught.value.why
