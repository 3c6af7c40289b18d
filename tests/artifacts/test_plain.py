"""JSON from files that may be hostile: what is taken is read as the library reads it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.artifacts.plain import (
    COUNT,
    NUMBER,
    SIZE,
    TEXT,
    exactly,
    fault,
    keyed,
    listed,
    optional,
    parse_json,
    parse_record,
    row,
)
from stages.errors import ArtifactDamaged

EXACT = st.integers(1 - 2**63, 2**63 - 1)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | EXACT
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(VALUES, st.booleans())
def test_what_json_can_say_is_read_as_the_library_reads_it(value, ascii_only):
    content = json.dumps(value, ensure_ascii=ascii_only).encode()
    assert parse_json(content, source="s") == json.loads(content) == value


@pytest.mark.parametrize(
    "content",
    [
        b"1e999",
        b"-1e999",
        b"NaN",
        b"9223372036854775808",
        b"-9223372036854775808",
        b"9" * 5000,
        rb'"\ud800"',
        rb'"\udc00\ud800"',
        rb'{"\udfff": 1}',
        b'"\xed\xa0\x80"',
        '{"a": 1}'.encode("utf-16"),
        b'\xef\xbb\xbf{"a": 1}',
        b'{"a": 1, "a": 1}',
        b"[" * 33 + b"]" * 33,
        b'{"a":' * 33 + b"1" + b"}" * 33,
        b'["[", ' + b"[" * 32 + b"]" * 32 + b"]",
    ],
)
def test_what_could_not_be_written_again_is_refused(content):
    with pytest.raises(ArtifactDamaged, match="the file"):
        parse_json(content, source="the file")


@pytest.mark.parametrize(
    ("content", "value"),
    [
        (rb'"\ud83d\ude00"', "\U0001f600"),
        (b"9223372036854775807", 2**63 - 1),
        (b"1e308", 1e308),
        (b"[" * 32 + b"]" * 32, None),
        (b'"' + rb"\"[" * 100 + b'"', '"[' * 100),
    ],
)
def test_the_last_that_fits_is_read(content, value):
    assert parse_json(content, source="s") == (json.loads(content) if value is None else value)


def test_text_without_an_end_is_looked_at_once():
    """One pass: quadratic time would take hours."""
    with pytest.raises(ArtifactDamaged):
        parse_json(b'"' + rb"\"" * 4_000_000, source="s")


@pytest.mark.parametrize(
    ("rule", "good", "bad"),
    [
        (SIZE, [1, 2**20], [0, -1, 2**20 + 1, True, 1.0, "1", None]),
        (COUNT, [0, 2**62], [-1, False, 0.0, None]),
        (NUMBER, [0, -1.5], [True, "1", None, [1]]),
        (optional(TEXT), [None, ""], [1, []]),
        (listed(COUNT, least=1), [[1], [1, 2]], [[], [1, -1], (1,), "1", None]),
        (keyed(NUMBER), [{}, {"a": 1}], [{"a": None}, [], None]),
        (row(COUNT, TEXT), [[1, "a"]], [[1], [1, 2], ["a", 1], [1, "a", 1]]),
        (exactly({"a": COUNT}), [{"a": 1}], [{}, {"a": 1, "b": 1}, {"a": -1}, None]),
    ],
)
def test_rules_hold_for_what_their_words_say(rule, good, bad):
    assert all(rule.holds(value) for value in good)
    assert not any(rule.holds(value) for value in bad)


def test_a_fault_names_its_place_and_what_must_be_there():
    values = {"a": {"b": [1, -1]}}
    assert fault(values, {"a.b": listed(NUMBER)}) == ""
    assert fault(values, {"a.b": listed(COUNT)}).startswith("a.b is [1, -1]; it must be a list of")
    assert fault(values, {"a.c.d": COUNT}) == "a.c.d is missing; it must be a count"
    with pytest.raises(ArtifactDamaged, match=r"s is not what .* a\.b\.c is missing"):
        parse_record(json.dumps(values).encode(), source="s", rules={"a.b.c": TEXT})
