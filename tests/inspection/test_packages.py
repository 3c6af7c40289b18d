"""Version bounds and markers of requirements, against the library that pip uses."""

import sys

import pytest
from packaging.markers import Marker, default_environment
from packaging.specifiers import SpecifierSet

from stages.inspection.packages import Bounds, applies, probe, requirements

VERSIONS = ["0.9", "2.9.1", "2.10", "2.10.0", "2.13.0+cpu", "3", "3.0.0", "3.11.7", "11"]
BOUNDS = [">=2.10,<3", ">=2.10", "==2.3.10", "<3.14,>=3.11", "!=2.10", "<=3", ">2.9.1", ""]
MARKERS = [
    "python_version < '3.14'",
    "python_version >= '3.9' and python_version < '3.10'",
    "sys_platform == 'linux' and platform_machine == 'x86_64'",
    "platform_machine == 'x86_64' or (sys_platform == 'darwin' and platform_machine == 'arm64')",
    "sys_platform != 'win32'",
    "sys_platform == 'emscripten'",
]


@pytest.mark.parametrize("bounds", BOUNDS)
@pytest.mark.parametrize("version", VERSIONS)
def test_bounds_agree_with_packaging(bounds, version):
    assert Bounds(bounds).allows(version) == SpecifierSet(bounds).contains(version)


@pytest.mark.parametrize("marker", MARKERS)
def test_markers_agree_with_packaging(marker):
    assert applies(marker) == Marker(marker).evaluate(default_environment())


def test_an_extra_counts_as_asked_for():
    here = f"sys_platform == '{sys.platform}'"
    assert applies(f"({here}) and extra == 'fast'")
    assert not applies("(sys_platform == 'emscripten') and extra == 'fast'")


def test_the_base_is_declared():
    base = {one.name: one for one in requirements() if one.extra is None}
    assert {"torch", "numpy", "h5py", "gymnasium", "cma", "typer", "safetensors"} <= set(base)
    assert base["torch"].bounds.text.split(",") in ([">=2.10", "<3"], ["<3", ">=2.10"])
    assert all(one.installed for one in base.values())


def test_a_module_that_kills_its_process_is_told(tmp_path, monkeypatch):
    (tmp_path / "deadly.py").write_text("import os; os.abort()")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    told = probe(["json", "no_such_module", "deadly"])
    assert told["json"].startswith("ok")
    assert "ModuleNotFoundError" in told["no_such_module"]
    assert told["deadly"].startswith("error")


def test_a_module_that_hangs_is_told(tmp_path, monkeypatch):
    (tmp_path / "endless.py").write_text("import time; time.sleep(60)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    told = probe(["json", "endless"], seconds=2)
    assert told["json"].startswith("ok")
    assert told["endless"].startswith("error")
