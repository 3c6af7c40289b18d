"""Controllers: their counts, their arithmetic against a loop, and what becomes of their outputs."""

import math

import numpy as np
import pytest
import torch

from stages.contracts import ActionSpec
from stages.control.controllers import (
    Controllers,
    ControllerShape,
    join_parameters,
    split_parameters,
    squashes,
    to_actions,
)
from stages.errors import UsageError

CAR = ActionSpec("box", 3, low=(-1.0, 0.0, 0.0), high=(1.0, 1.0, 1.0))
SHAPES = [
    ControllerShape(5, 3),
    ControllerShape(5, 3, bias=False),
    ControllerShape(4, 2, hidden=7),
    ControllerShape(4, 1, hidden=3, bias=False),
]


@pytest.mark.parametrize(
    ("shape", "published"),
    [
        pytest.param(ControllerShape(32 + 256, 3), 867, id="z h -> 3"),
        pytest.param(ControllerShape(32, 3, hidden=40), 1443, id="z -> 40 -> 3"),
        pytest.param(ControllerShape(64 + 512 + 512, 1, bias=False), 1088, id="z c h -> 1"),
    ],
)
def test_published_numbers_of_parameters(shape, published):
    assert shape.num_parameters == published
    vectors = np.arange(2 * published, dtype=np.float64).reshape(2, published)
    weights = Controllers(shape, vectors).weights
    assert sum(weight[0].numel() for weight in weights.values()) == published


def one_by_one(shape: ControllerShape, vector, inputs):
    """The paper's a = tanh(W x + b), number by number, weights taken from the vector in order."""
    rest = iter([float(value) for value in vector])
    widths = [shape.num_inputs] + ([shape.hidden] if shape.hidden else []) + [shape.num_outputs]
    signal = [float(value) for value in inputs]
    for fan_out in widths[1:]:
        rows = [[next(rest) for _ in signal] for _ in range(fan_out)]
        biases = [next(rest) if shape.bias else 0.0 for _ in range(fan_out)]
        signal = [
            math.tanh(math.fsum(w * x for w, x in zip(row, signal, strict=True)) + bias)
            for row, bias in zip(rows, biases, strict=True)
        ]
    assert next(rest, None) is None
    return signal


@pytest.mark.parametrize("shape", SHAPES)
def test_every_lane_is_its_own_controller(shape):
    random = np.random.default_rng(3)
    vectors = random.normal(size=(6, shape.num_parameters))
    inputs = random.normal(size=(4, shape.num_inputs)).astype(np.float32)
    lanes = torch.tensor([5, 0, 3, 3])
    found = Controllers(shape, vectors)(torch.from_numpy(inputs), lanes)
    expected = [one_by_one(shape, vectors[k], row) for k, row in zip(lanes, inputs, strict=True)]
    assert found.shape == (4, shape.num_outputs)
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-6)


def test_a_lanes_answer_does_not_depend_on_the_lanes_beside_it():
    shape = ControllerShape(288, 3)
    random = np.random.default_rng(4)
    controllers = Controllers(shape, random.normal(size=(32, shape.num_parameters)))
    inputs = torch.from_numpy(random.normal(size=(32, 288)).astype(np.float32))
    together = controllers(inputs, torch.arange(32))
    for lanes in ([0], [7, 30], list(range(13, 29))):
        alone = controllers(inputs[lanes], torch.tensor(lanes))
        assert torch.equal(alone, together[lanes])


@pytest.mark.parametrize("shape", SHAPES)
def test_named_weights_join_to_the_vector_they_were_cut_from(shape):
    vectors = np.random.default_rng(5).normal(size=(2, shape.num_parameters)).astype(np.float32)
    weights = split_parameters(shape, vectors)
    for lane, vector in enumerate(vectors):
        named = {name: value[lane].numpy() for name, value in weights.items()}
        assert np.array_equal(join_parameters(shape, named), vector)


def test_a_vector_of_another_length_is_refused():
    with pytest.raises(AssertionError, match="867"):
        Controllers(ControllerShape(288, 3), np.zeros((1, 866)))


def test_steering_and_gas_are_stretched_and_the_brake_is_clipped():
    outputs = torch.tensor([[-1.0, -1.0, -1.0], [0.5, 0.0, 0.25], [1.0, 1.0, 1.0]])
    found = to_actions(outputs, CAR, ("linear", "linear", "clip"))
    assert found.dtype == np.float32
    assert found.tolist() == [[-1.0, 0.0, 0.0], [0.5, 0.5, 0.25], [1.0, 1.0, 1.0]]


def test_without_a_squash_every_output_is_stretched_over_its_bounds():
    spec = ActionSpec("box", 2, low=(-2.0, 1.0), high=(2.0, 5.0))
    found = to_actions(torch.tensor([[0.5, -0.5]]), spec, ())
    assert found.tolist() == [[1.0, 2.0]]


def test_a_choice_is_the_largest_output():
    found = to_actions(
        torch.tensor([[0.1, 0.9, -1.0], [0.3, -0.2, 0.2]]), ActionSpec("choice", 3), ()
    )
    assert found.dtype == np.int64
    assert found.tolist() == [1, 0]


@pytest.mark.parametrize("squash", [("linear", "clip"), ("linear", "linear", "sine")])
def test_a_squash_that_does_not_fit_the_actions_is_refused(squash):
    with pytest.raises(UsageError, match=r"control\.squash"):
        squashes(CAR, squash)


@pytest.mark.parametrize("shape", SHAPES)
def test_blocks_answer_as_lanes_do(shape):
    random = np.random.default_rng(4)
    controllers = Controllers(shape, random.standard_normal((3, shape.num_parameters)))
    inputs = torch.from_numpy(random.standard_normal((3, 5, shape.num_inputs)).astype(np.float32))
    lanes = torch.arange(3).repeat_interleave(5)
    expected = controllers(inputs.flatten(0, 1), lanes).view(3, 5, -1)
    torch.testing.assert_close(controllers.in_blocks(inputs), expected, rtol=0, atol=2e-6)


def test_outputs_at_their_ends_never_leave_bounds_of_any_size():
    """A world asserts that its actions are inside: rounding may not carry one over."""
    random = np.random.default_rng(0)
    ends = np.sort(random.normal(size=(2000, 2)) * 10.0 ** random.integers(-3, 4, (2000, 1)))
    low, high = ends.astype(np.float32).T
    spec = ActionSpec("box", 2000, tuple(map(float, low)), tuple(map(float, high)))
    for raw in (-1.0, 1.0):
        found = to_actions(torch.full((1, 2000), raw), spec, ())[0]
        assert ((found >= low) & (found <= high)).all()
        np.testing.assert_allclose(found, low if raw < 0 else high, rtol=1e-5, atol=1e-5)
