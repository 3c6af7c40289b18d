"""What a search does in which generation."""

import pytest

from stages.control.schedule import Schedule


def schedule(**changes) -> Schedule:
    plain = {
        "generations": 10,
        "population": 3,
        "episodes": (1, 2),
        "max_steps": (75, 150, 0),
        "common_tracks": True,
    }
    return Schedule(**plain | changes)


def test_values_share_the_generations():
    made = schedule()
    assert [made.episodes_in(number) for number in range(10)] == [1] * 5 + [2] * 5
    assert [made.longest_in(number) for number in range(10)] == [75] * 4 + [150] * 3 + [0] * 3


@pytest.mark.parametrize("common", [True, False])
def test_no_track_is_driven_in_two_generations(common):
    made = schedule(common_tracks=common)
    used = [{seed for own in made.tracks(7, number) for seed in own} for number in range(10)]
    together = set().union(*used)
    assert len(together) == sum(map(len, used)) == made.num_seeds()
    assert made.num_seeds() == (15 if common else 45)


def test_common_tracks_are_the_same_for_every_candidate():
    tracks = schedule().tracks(7, 8)
    assert len(tracks) == 3 and len(tracks[0]) == 2
    assert tracks[0] == tracks[1] == tracks[2]


def test_own_tracks_differ_between_candidates():
    tracks = schedule(common_tracks=False).tracks(7, 8)
    assert len({seed for own in tracks for seed in own}) == 6


def test_tracks_depend_on_the_root_seed():
    assert schedule().tracks(7, 3) != schedule().tracks(8, 3)


def test_a_second_heat_has_tracks_of_its_own():
    made, plain = schedule(heats=2), schedule()
    assert [made.episodes_in(number) for number in range(10)] == [2] * 5 + [4] * 5
    assert made.num_seeds() == 2 * plain.num_seeds()
    used = [seed for number in range(10) for seed in made.tracks(7, number)[0]]
    assert len(set(used)) == len(used)


def test_efforts_are_episodes_times_their_length():
    assert schedule().efforts() == [75.0] * 4 + [150.0] + [300.0] * 2 + [300.0] * 3
    assert schedule(max_steps=(0,), episodes=(2,)).efforts() == [2.0] * 10
