import os

import pytest

from stages.artifacts.workspace import Workspace

# Before pygame opens anything: no test shows a window to whoever runs it.
os.environ.setdefault("SDL_VIDEODRIVER", "dummy")


@pytest.fixture
def workspace(tmp_path):
    return Workspace.open(tmp_path / "ws", create=True)
