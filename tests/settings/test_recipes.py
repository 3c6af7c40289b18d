"""Recipes load, extend each other key by key, and say where they are wrong."""

from pathlib import Path

import pytest

from stages.errors import UsageError
from stages.settings.recipes import available, load_recipe


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_file_becomes_a_recipe(toy: Path):
    recipe = load_recipe(toy)
    assert (recipe.name, recipe.family, recipe.default_preset) == ("toy", "world-models", "quick")
    assert recipe.tables == {"world": {"repeat": 2}, "memory": {"lr": 2e-3, "layers": [8, 8]}}
    assert recipe.presets == {
        "quick": {"memory": {"num_steps": 20}},
        "paper": {"memory": {"num_steps": 20000, "lr": 1e-4}},
    }


def test_the_name_is_the_files_own_unless_said(tmp_path: Path):
    assert load_recipe(write(tmp_path / "mine.toml", 'family = "f"')).name == "mine"


def test_a_recipe_extends_another_key_by_key(toy: Path):
    text = """
        extends = "toy.toml"
        [memory]
        lr = 5e-4
        [presets.quick.memory]
        lr = 1e-2
        [presets.long.memory]
        num_steps = 500
        [vision]
        size = 8
    """
    child = load_recipe(write(toy.parent / "child.toml", text))
    assert (child.name, child.family, child.default_preset) == ("child", "world-models", "quick")
    assert child.tables == {
        "world": {"repeat": 2},
        "memory": {"lr": 5e-4, "layers": [8, 8]},
        "vision": {"size": 8},
    }
    assert child.presets["quick"] == {"memory": {"num_steps": 20, "lr": 1e-2}}
    assert child.presets["paper"] == {"memory": {"num_steps": 20000, "lr": 1e-4}}
    assert child.presets["long"] == {"memory": {"num_steps": 500}}
    assert child.authors["world.repeat"] == "toy"
    assert child.authors["memory.lr"] == "child"
    assert child.authors["presets.quick.memory.num_steps"] == "toy"
    assert child.authors["presets.quick.memory.lr"] == "child"


def test_extends_is_relative_to_the_file_that_says_it(toy: Path, tmp_path: Path):
    middle = write(tmp_path / "deep" / "middle.toml", 'extends = "../toy.toml"')
    leaf = write(tmp_path / "other" / "leaf.toml", 'extends = "../deep/middle.toml"')
    assert load_recipe(middle).tables == load_recipe(leaf).tables == load_recipe(toy).tables


@pytest.mark.parametrize("name", available())
def test_shipped_recipes_load_and_can_be_extended(name: str, tmp_path: Path):
    shipped = load_recipe(name)
    assert shipped.name == name
    assert shipped.description
    child = load_recipe(write(tmp_path / "child.toml", f'extends = "{name}"'))
    assert (child.tables, child.presets) == (shipped.tables, shipped.presets)


@pytest.mark.parametrize("start", ["a.toml", "sub/../a.toml"])
def test_a_circle_is_refused(start: str, tmp_path: Path):
    (tmp_path / "sub").mkdir()
    write(tmp_path / "a.toml", 'extends = "sub/../b.toml"')
    write(tmp_path / "b.toml", 'extends = "sub/../a.toml"')
    with pytest.raises(UsageError, match="extends itself"):
        load_recipe(tmp_path / start)


@pytest.mark.parametrize(
    ("text", "fragments"),
    [
        ('family = "f"\n[memory]\nlr = = 3\n', ("line 3: lr = = 3",)),
        ('family = "f"\n[memory\n', ("line 2: [memory",)),
        ('family = "f"\nfamily = "g"\n', ("line 2",)),
        ('family = "f"\n[a]\nx = """open\n', ("not valid TOML", "line ")),
        ("x = " + "[" * 5000, ("nested too deeply",)),
        ('family = "f"\nfamly = "g"', ("'famly'", "Did you mean family?")),
        ('family = "f"\nlr = 3', ("'lr'", "below its [section]")),
        ("family = 3", ("family must be text",)),
        ('description = "no family"', ("names no family",)),
        ('family = "f"\ndefault_preset = "quik"\n[presets.quick.a]', ("Did you mean quick?",)),
        ('family = "f"\n[presets.quick]\nlr = 3', ("[presets.quick.SECTION]", "lr")),
        ('family = "f"\n[presets]\nquick = 3', ("preset quick",)),
    ],
)
def test_a_wrong_recipe_is_explained(text: str, fragments: tuple[str, ...], tmp_path: Path):
    with pytest.raises(UsageError) as caught:
        load_recipe(write(tmp_path / "bad.toml", text))
    assert all(fragment in str(caught.value) for fragment in fragments)


def test_what_cannot_be_read_is_refused(tmp_path: Path):
    (tmp_path / "latin.toml").write_bytes('family = "é"'.encode("latin-1"))
    (tmp_path / "large.toml").write_bytes(b"# " + b"x" * 1_000_001)
    (tmp_path / "folder.toml").mkdir()
    for name, fragment in (
        ("latin.toml", "UTF-8"),
        ("large.toml", "too large"),
        ("folder.toml", "cannot be read"),
        ("absent.toml", "cannot be read"),
    ):
        with pytest.raises(UsageError, match=fragment):
            load_recipe(tmp_path / name)


def test_a_byte_order_mark_and_dos_line_ends_are_read(tmp_path: Path):
    (tmp_path / "dos.toml").write_bytes(b'\xef\xbb\xbffamily = "f"\r\n[a]\r\nx = 1\r\n')
    assert load_recipe(tmp_path / "dos.toml").tables == {"a": {"x": 1}}


def test_an_unknown_name_is_answered_with_what_there_is(monkeypatch, tmp_path: Path):
    with pytest.raises(UsageError) as caught:
        load_recipe("zzzzzz")
    assert all(name in caught.value.fix for name in available())
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "mine.toml", 'family = "f"')
    with pytest.raises(UsageError, match=r"mine\.toml"):
        load_recipe("mine")
