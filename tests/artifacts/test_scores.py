import csv
import importlib.metadata
import io
import json
import platform

import gymnasium
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.artifacts.scores import episodes_csv, log_line, parse_log, read_csv
from stages.artifacts.versions import (
    box2d_distributions,
    installed_version,
    package_versions,
    provenance,
)
from stages.errors import ArtifactDamaged, NumbersBad

FINITE = st.floats(allow_nan=False, allow_infinity=False)
EXACT = st.integers(1 - 2**63, 2**63 - 1)  # what other readers of JSON keep


@given(st.lists(st.tuples(st.integers(0, 2**31), FINITE, st.booleans()), min_size=1))
def test_scores_survive_their_table_exactly(rows):
    content = episodes_csv([{"seed": s, "return": r, "finished": f} for s, r, f in rows])
    lines = list(csv.DictReader(io.StringIO(content.decode())))
    assert [(int(x["seed"]), float(x["return"]), x["finished"] == "1") for x in lines] == rows
    assert read_csv(content, source="t") == lines


def test_the_table_is_plain_text():
    content = episodes_csv([{"agent": "a,b", "lap": None, "score": 0.1}])
    assert content == b'agent,lap,score\n"a,b",,0.1\n'
    assert read_csv(b"", source="t") == []


def test_a_cut_row_is_found():
    with pytest.raises(ArtifactDamaged, match=r"scores\.csv .* line 3"):
        read_csv(b"a,b\n1,2\n3\n", source="scores.csv")


@given(st.dictionaries(st.text(), FINITE | EXACT | st.lists(FINITE) | st.text()))
def test_log_lines_survive_exactly(values):
    line = log_line(values)
    assert "\n" not in line
    assert json.loads(line) == values
    assert parse_log([line, line], source="log") == [values, values]


def test_a_log_line_keeps_its_order_and_refuses_bad_numbers():
    assert log_line({"step": 1, "loss": 0.1}) == '{"step": 1, "loss": 0.1}'
    with pytest.raises(NumbersBad, match="loss is nan"):
        log_line({"loss": float("nan")})


@pytest.mark.parametrize("line", ["", "3", '{"a": NaN}', '{"a": 1'])
def test_a_broken_line_is_named(line):
    with pytest.raises(ArtifactDamaged, match="log, line 2"):
        parse_log(['{"a": 1}', line], source="log")


def test_provenance_tells_the_versions_that_are_running():
    found = provenance(device="cpu", threads=2)
    assert found["packages"]["numpy"] == np.__version__
    assert found["packages"]["gymnasium"] == gymnasium.__version__
    assert found["python"] == platform.python_version()
    assert (found["device"], found["threads"]) == ("cpu", 2)
    assert json.loads(json.dumps(found)) == found
    assert found["processor"] and found["host"]


def test_every_installed_box2d_is_named():
    installed = {dist.name.lower() for dist in importlib.metadata.distributions()}
    expected = {name for name in installed if name.startswith("box2d")}
    assert {text.split()[0].lower() for text in box2d_distributions()} == expected
    assert "absent-package" not in package_versions()
    assert installed_version("absent-package") is None
