"""An empty workspace, and a process that is gone."""

import subprocess
import sys

import pytest

from stages.artifacts.workspace import Workspace


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    """An empty workspace whose path a shell would split."""
    return Workspace.open(tmp_path / "my 'own' work", create=True)


@pytest.fixture(scope="session")
def dead() -> int:
    """The number of a process that is gone."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid
