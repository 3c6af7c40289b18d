"""Short names beside a chart: no longer than asked for, and never two alike."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.report.labelling import labels, told_apart


def test_short_names_stay_and_long_ones_lose_their_middle():
    assert labels(["first", "second"], 14) == ["first", "second"]
    (cut,) = labels(["carracing-hour-of-yesterday"], 14)
    assert len(cut) == 14
    assert cut.startswith("carrac") and cut.endswith("sterday")


@pytest.mark.parametrize(
    "names",
    [
        [f"carracing-world-model-seed-{seed}" for seed in range(20)],
        [f"carracing debug memory.hidden_size={size} control.place=dream" for size in (16, 17)],
        [f"{number}-of-many-that-have-one-name" for number in range(12)],
        ["a-very-long-name-of-a-folder", "a-very-long-name-of-a-folder-2"],
    ],
)
def test_what_differs_stays(names):
    found = labels(names, 20)
    assert len(set(found)) == len(names)
    assert all(len(label) <= 20 for label in found)


def test_names_that_differ_only_in_what_is_cut_keep_it():
    found = labels([f"carracing debug memory.hidden_size={size} a=dream" for size in (16, 17)], 20)
    assert ["16" in found[0], "17" in found[1]] == [True, True]


@given(st.lists(st.text("ab", max_size=40), min_size=1, max_size=30), st.integers(8, 20))
def test_no_two_labels_are_alike(names, most):
    found = labels(names, most)
    assert len(set(found)) == len(names) == len(found)
    assert all(len(label) <= most for label in found)


def test_folders_of_one_name_are_called_by_their_place():
    places = ["old/run", "new/run", "other"]
    assert told_apart(["run", "run", "other"], places) == places
