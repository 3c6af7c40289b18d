"""The wheel: what is in it, and that it works from any folder without the checkout."""

import email
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from command_line import NO_BAR, ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel of this checkout, built with the backend that is installed."""
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    done = subprocess.run([*build, str(ROOT)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (made,) = folder.iterdir()
    return made


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """A folder that holds what the wheel installs, and nothing else."""
    folder = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    done = subprocess.run(
        [*pip, "--disable-pip-version-check", "--target", str(folder), str(wheel)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


def run(installed: Path, cwd: Path, *words: str) -> str:
    """Standard output of a program that finds the installed package alone."""
    environment = {**os.environ, **NO_BAR, "PYTHONPATH": str(installed)}
    done = subprocess.run(
        words, cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_holds_two_packages_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    top = {name.partition("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == {"wm_cli", "stages"}
    assert len(top) == 3
    code = [name for name in names if not name.partition("/")[0].endswith(".dist-info")]
    kept = (ROOT / name for name in code)
    assert all(path.is_file() for path in kept)
    assert {Path(name).suffix for name in code} <= {".py", ".sh", ".toml", ".typed", ".css"}


def test_every_module_and_recipe_is_in_the_wheel(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {
        path.relative_to(ROOT).as_posix()
        for package in ("wm_cli", "stages")
        for suffix in ("py", "sh", "toml", "css")
        for path in (ROOT / package).rglob(f"*.{suffix}")
    }
    assert "stages/settings/recipes/carracing.toml" in expected
    assert expected <= names
    keeper = zipfile.ZipFile(wheel).getinfo("stages/worlds/keeper.sh")
    assert keeper.external_attr >> 16 & 0o111, "it is run"


def test_the_metadata_name_the_licence_and_the_command(wheel):
    archive = zipfile.ZipFile(wheel)
    (folder,) = {name.partition("/")[0] for name in archive.namelist() if ".dist-info/" in name}
    metadata = email.message_from_bytes(archive.read(f"{folder}/METADATA"))
    assert metadata["Name"] == "wm-pixels"
    assert metadata["License-Expression"] == "MIT"
    assert metadata["Requires-Python"] == "<3.14,>=3.11"
    assert f"{folder}/licenses/LICENSE" in archive.namelist()
    assert "\nwm = wm_cli." in archive.read(f"{folder}/entry_points.txt").decode()


def test_the_installed_command_works_from_another_folder(wheel, installed, tmp_path):
    where = run(installed, tmp_path, sys.executable, "-c", "import stages; print(stages.__file__)")
    assert Path(where.strip()).is_relative_to(installed)
    version = wheel.name.split("-")[1]
    for command in ([sys.executable, "-m", "wm_cli"], [str(installed / "bin" / "wm")]):
        assert run(installed, tmp_path, *command, "--version").strip() == f"wm {version}"
    status = json.loads(
        run(installed, tmp_path, sys.executable, "-m", "wm_cli", "status", "--json")
    )
    rows = status["tables"][0]["rows"]
    assert len(rows) == 6
    assert rows[0]["state"] == "missing"
    shown = json.loads(
        run(
            installed,
            tmp_path,
            sys.executable,
            "-m",
            "wm_cli",
            "config",
            "--json",
            "--recipe",
            "breakout",
        )
    )
    assert shown["summary"]["recipe"] == "breakout"
    assert not list(tmp_path.iterdir()), "looking writes nothing"
