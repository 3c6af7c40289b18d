"""Two small sections and a recipe that belongs to these tests alone."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from stages.contracts import WorldSpec, setting

RECIPE = """\
name = "toy"
family = "world-models"
description = "a recipe of the tests"
default_preset = "quick"

[world]
repeat = 2

[memory]
lr = 2e-3
layers = [8, 8]

[presets.quick.memory]
num_steps = 20

[presets.paper.memory]
num_steps = 20000
lr = 1e-4
"""


@dataclass(frozen=True)
class Memory:
    """A section with one field of every kind."""

    lr: float = setting(1e-3, above=0, high=1, doc="learning rate")
    num_steps: int = setting(100, low=1, doc="steps of training")
    cell: str = setting("lstm", choices=("lstm", "gru"), doc="kind of cell")
    masked: bool = setting(True, doc="whether padding is masked")
    layers: tuple[int, ...] = setting((), low=1, doc="hidden layers")
    window: tuple[int, float] = setting((4, 0.5), doc="length and overlap")
    limit: int | None = setting(None, low=1, doc="largest length")

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < self.window[0]:
            raise ValueError(f"limit {self.limit} is shorter than window {self.window[0]}")


@pytest.fixture
def sections() -> dict[str, type]:
    return {"world": WorldSpec, "memory": Memory}


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    path = tmp_path / "toy.toml"
    path.write_text(RECIPE)
    return path
