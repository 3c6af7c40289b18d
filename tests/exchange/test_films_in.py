"""Films as episodes: which frames are taken, where they are cut, and what is no film."""

import av
import numpy as np
import pytest

from stages.artifacts.film_data import FilmData
from stages.errors import ArtifactDamaged, InputMissing


def nothing() -> None:
    pass


def film(path, greys, *, codec="ffv1", size=(32, 48)):
    """A film without loss whose n-th frame is all of one grey."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=20)
        stream.height, stream.width = size
        stream.pix_fmt = "bgr0" if codec == "ffv1" else "yuv420p"
        for grey in greys:
            frame = av.VideoFrame.from_ndarray(np.full((*size, 3), grey, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return str(path)


def read(places, **options):
    data = FilmData(places, **{"every": 1, "cut": 1000, "poll": nothing, **options})
    found = [reader() for _, reader in data.episodes(lambda frames, _: frames)]
    return data, [one and one.observations[:, 0, 0, 0].tolist() for one in found], found


def test_every_frame_of_every_film_is_taken_in_order(tmp_path):
    places = [film(tmp_path / "a.mkv", range(100)), film(tmp_path / "b.mkv", range(7, 10))]
    data, greys, found = read(places)
    assert greys == [list(range(100)), [7, 8, 9]]
    assert found[0].observations.shape == (100, 32, 48, 3)
    assert (data.frames_per_second, data.num_items, data.name) == (20, 2, "a.mkv, b.mkv")
    assert not found[0].rewards.any()
    assert not found[0].terminations.any()


def test_some_frames_and_pieces(tmp_path):
    place = film(tmp_path / "a.mkv", range(100))
    data, greys, _ = read([place], every=3, cut=10)
    taken = list(range(0, 100, 3))
    expected = [taken[start : start + 10] for start in range(0, len(taken), 10)]
    assert greys == expected
    assert data.frames_per_second == pytest.approx(20 / 3)


@pytest.mark.parametrize("count", [10, 20, 80, 640])
def test_a_film_of_whole_pieces_has_no_more(tmp_path, count):
    """Not an empty one at its end, which would count as left out."""
    _, greys, _ = read([film(tmp_path / "a.mkv", [7] * count)], cut=10)
    assert greys == [[7] * 10] * (count // 10)


def test_a_single_frame_is_no_episode(tmp_path):
    assert read([film(tmp_path / "a.mkv", range(21))], cut=10)[1][-1] is None


def test_what_is_no_film_is_refused(tmp_path):
    with pytest.raises(InputMissing):
        read([str(tmp_path / "none.mp4")])
    for name, content in (("a.mp4", b"no film"), ("b.m3u8", b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ArtifactDamaged, match=name):
            read([str(tmp_path / name)])


def test_a_film_that_is_cut_short_is_refused(tmp_path):
    place = tmp_path / "a.mp4"
    film(place, range(0, 200, 2), codec="h264")
    content = place.read_bytes()
    for size in (len(content) // 3, len(content) // 2):
        place.write_bytes(content[:size])
        with pytest.raises(ArtifactDamaged):
            read([str(place)])
