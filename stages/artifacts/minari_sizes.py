"""What an episode in the file of a Minari data set would take, looked at before it is read."""

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any
from warnings import catch_warnings, simplefilter

import numpy as np

from stages.artifacts.foreign import MAX_FRAMES, check_frames
from stages.artifacts.shards import MAX_READ
from stages.errors import ArtifactDamaged

Place = tuple[str, ...]  # below the group of an episode: ("observations", "camera")


@dataclass(frozen=True)
class Told:
    """What the data set says of its columns."""

    picture: Place  # the one that is imported
    jpegs: Mapping[Place, tuple[int, ...]]  # columns in JPEG -> shape of a picture in them


def check_episode(main: Path, number: int, told: Told, source: str) -> None:
    """Refuse an episode that would not fit into memory, or lies in another file, before it is read.

    The package reads all of an episode at once, every JPEG of every column decoded.

    Raises:
        ArtifactDamaged: it takes too much, has links, or is not what its space says.
        UsageError: its frames are too many, too large, or no pictures.
    """
    import h5py

    with h5py.File(main, "r", locking=False) as file:
        columns = dict(_columns(file, f"episode_{number}", source))
        taken = 0
        for place, data in columns.items():
            taken += prod(data.shape) * data.dtype.itemsize
            shape, dtype = data.shape, data.dtype
            if place in told.jpegs:
                shape, dtype = (*data.shape[:1], *told.jpegs[place]), np.dtype(np.uint8)
                taken += prod(shape)
            if place == told.picture:
                check_frames(shape, dtype, source)
            if taken > MAX_READ:
                raise _refused(source, f"With its {'/'.join(place)} it takes {taken:,} bytes.")
        left = main.stat().st_size
        for place, data in columns.items():
            left -= _check_rows(data, place, told.jpegs.get(place), left, source)


def _columns(file: Any, root: str, source: str) -> Iterator[tuple[Place, Any]]:
    """The data sets of an episode and their places; none is another one's, or elsewhere."""
    import h5py

    link = file.get(root, getlink=True)
    if link is None:
        raise ArtifactDamaged(f"{source} is missing.")
    if not isinstance(link, h5py.HardLink):
        raise _refused(source, f"Its {root} is a link.")
    group = file[root]
    if not isinstance(group, h5py.Group):
        raise ArtifactDamaged(f"{source} is no group.")
    links: list[tuple[str, Any]] = []  # nothing may be raised or read in the visit
    group.visititems_links(lambda *link: links.append(link))
    for name, inside in links:
        if not isinstance(inside, h5py.HardLink):
            raise _refused(source, f"Its {name} is a link.")
        one = group[name]
        if h5py.h5o.get_info(one.id).rc != 1:  # groups in each other would have no end
            raise _refused(source, f"Its {name} has several names.")
        if isinstance(one, h5py.Dataset):
            if one.is_virtual or one.external:
                raise _refused(source, f"Its {name} lies in another file.")
            yield tuple(name.split("/")), one


def _check_rows(
    data: Any, place: Place, picture: tuple[int, ...] | None, left: int, source: str
) -> int:
    """Bytes of the texts of a column of any lengths; a `picture` is what each of them decodes to.

    A file holds every text once, so all of them have no more bytes than are `left` of it.
    """
    several = data.dtype.hasobject
    if several and not (_plain(data.dtype) and data.ndim == 1 and len(data) <= MAX_FRAMES):
        raise _refused(source, f"Its {'/'.join(place)} are {data.dtype} {list(data.shape)}.")
    if not several and picture is None:
        return 0
    if data.ndim not in (1, 2):
        raise _refused(source, f"Its {'/'.join(place)} are no JPEG pictures.")
    taken = 0
    for number, row in enumerate(data if several else data[()]):
        if several:
            taken += len(row) * getattr(row, "itemsize", 1)
            if taken > left:
                raise _refused(source, f"Its {'/'.join(place)} are larger than the file.")
        if picture is not None:
            _check_jpeg(row, picture, f"{'/'.join(place)} {number} of {source}")
    return taken


def _plain(dtype: Any) -> bool:
    """Whether it is that of texts, or of rows of plain numbers."""
    import h5py

    inside = h5py.check_vlen_dtype(dtype)
    return h5py.check_string_dtype(dtype) is not None or (
        inside is not None and not np.dtype(inside).hasobject
    )


def _check_jpeg(content: Any, shape: tuple[int, ...], source: str) -> None:
    """Refuse what is no JPEG of this shape, [H, W] or [H, W, C]; its head is read alone."""
    from PIL import Image

    try:
        with catch_warnings():
            simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=("JPEG",)) as image:
                found = (image.height, image.width, len(image.getbands()))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ArtifactDamaged(f"{source} is no JPEG picture.") from error
    if found != (*shape[:2], prod(shape[2:])):
        raise _refused(source, f"It is a picture of {list(found)}, its space says {list(shape)}.")


def _refused(source: str, why: str) -> ArtifactDamaged:
    return ArtifactDamaged(f"{source} is refused.", why=why)
