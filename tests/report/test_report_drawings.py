"""Charts as SVG, and HTML as a tree: what is drawn is what was given, and nothing else gets in."""

import re

import numpy as np
import pages
import pytest

from stages.report import markup
from stages.report.charts import Level, Line, Row, bars, curves, dots, histogram, under_frames
from stages.report.markup import tag


def page_of(*elements) -> pages.Page:
    return pages.read(markup.html(tag("html", tag("body", *elements), lang="en")))


def paths(page: pages.Page, style: str) -> list[np.ndarray]:
    """Points of the paths whose style holds these words."""
    found = []
    for node in page.all("path"):
        if style in (node.attributes.get("style") or ""):
            numbers = re.findall(r"-?\d+(?:\.\d+)?", node.attributes["d"])
            found.append(np.array(numbers, dtype=float).reshape(-1, 2))
    return found


def test_a_curve_lies_where_its_numbers_are():
    x, y = np.arange(1, 6), np.array([3.0, 1.0, 4.0, 1.5, 5.0])
    page = page_of(*curves([Line("measured", x, y)], x="step", y="loss"))
    (points,) = paths(page, "stroke: var(--c0)")
    assert len(points) == len(x)
    for drawn, given in ((points[:, 0], x), (-points[:, 1], y)):
        straight = np.polyfit(given, drawn, 1)
        assert straight[0] > 0
        assert np.abs(np.polyval(straight, given) - drawn).max() < 0.02, "linear in the numbers"


def test_a_level_is_a_line_from_side_to_side():
    drawn = curves([Line("a", [0, 1], [0.0, 10.0])], [Level("floor", 4.0)], x="step", y="loss")
    page = page_of(*drawn)
    (curve,) = paths(page, "stroke: var(--c0)")
    (level,) = paths(page, "stroke-dasharray")
    assert level[0, 1] == level[1, 1]
    share = (level[0, 1] - curve[0, 1]) / (curve[1, 1] - curve[0, 1])
    assert share == pytest.approx(0.4, abs=1e-3)
    assert "floor 4" in page.all("ul")[0].text


def test_every_value_of_a_row_is_a_dot():
    values = np.linspace(10, 20, 37)
    page = page_of(*dots([Row("agent", values.tolist(), 15.0, 14.0, 16.0)], x="return"))
    places = {float(node.attributes["x"]) for node in page.all("use")}
    assert len([n for n in page.all("use") if "var(--c0)" in (n.attributes["style"] or "")]) >= 37
    assert len(places) >= 37
    (label,) = {node.attributes["aria-label"] for node in page.all("svg")}
    assert "37 episodes" in label and "mean 15" in label and "14 to 16" in label


def test_bars_of_a_histogram_hold_all_values():
    values = [1, 1, 1, 2, 5]
    page = page_of(*histogram([("steps", values)], x="steps"))
    (outline,) = paths(page, "stroke: var(--c0)")
    heights = outline[:, 1].max() - outline[:, 1]
    unit = heights.max() / 3
    assert sorted({round(h / unit) for h in heights}) == [0, 1, 3]


def test_rows_that_differ_in_number_are_drawn_in_shares():
    """Both rows are half 1 and half 2: their outlines are the same."""
    alike = [("agent", [1, 2] * 40), ("random", [1, 2] * 3)]
    page = page_of(*histogram(alike, x="return"))
    ours, others = (paths(page, f"stroke: var(--c{number})")[0] for number in range(2))
    np.testing.assert_allclose(ours, others)
    texts = {node.text for node in page.all("text")}
    assert "share of episodes" in texts and "0.5" in texts
    page = page_of(*histogram([("agent", [1, 2]), ("random", [1, 1])], x="return"))
    assert "episodes" in {node.text for node in page.all("text")}, "as many: they are counted"


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "values", [[0.3, 0.1 + 0.2], [1e-300, 1.5e-300], [-7.1] * 3, [5e-324, 0], [1e16] * 4]
)
def test_values_that_are_all_but_equal_have_a_histogram(values):
    page = page_of(*histogram([("a", values)], x="return"))
    assert pages.faults(page) == []
    assert f"{len(values)} values" in page.all("svg")[0].attributes["aria-label"]


def test_dots_are_called_what_they_are():
    page = page_of(*dots([Row("carracing", [1.0, 2.0], 1.5)], x="return", each="workspaces"))
    label = page.all("svg")[0].attributes["aria-label"]
    assert "2 workspaces" in label and "episode" not in label.lower()


def test_drawings_have_the_colours_of_the_page_and_text_that_can_be_read():
    drawn = [
        *curves([Line("a", [0, 1], [1, 2]), Line("b", [0, 1], [2, 1], 1)], x="steps", y="loss"),
        *under_frames([Line("a", range(9), range(9))], num_steps=8, num_frames=4, y="error"),
        *bars(["left", "right"], [0.25, 0.75], x="share"),
    ]
    page = page_of(*drawn)
    assert pages.faults(page) == []
    styles = " ".join((node.attributes.get("style") or "") for node in page.nodes)
    assert not re.search(r"#[0-9a-f]{6}", styles), "no colour that a dark page would hide"
    assert "font-family" not in styles, "the reader's own letters"
    assert {"steps", "loss", "left", "right"} <= {node.text for node in page.all("text")}


def test_equal_drawings_have_equal_bytes_and_their_own_ids():
    def drawn():
        return curves([Line("a", [0, 1], [1, 2], band=([0, 1], [2, 3]))], x="steps", y="loss")

    assert markup.html(tag("p", *drawn())) == markup.html(tag("p", *drawn()))
    page = page_of(*drawn(), *drawn())
    assert pages.faults(page) == []
    assert [node for node in page.nodes if "id" in node.attributes], "clips have ids"


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "a & b",
        'a" onload="x',
        "]]>",
        "<!-- ",
        "\x00\x1b[2J",
        "$x_$",
        "漢字",
    ],
)
def test_text_stays_text_wherever_it_stands(text):
    page = page_of(
        tag("p", text),
        tag("img", src="data:,", alt=text),
        *curves([Line(text, [0, 1], [1, 2])], x="x", y=""),
        *dots([Row(text, [1.0, 2.0], 1.5)], x="x"),
        markup.table(("a", text), [(text, text)]),
    )
    assert pages.faults(page) == []
    kept = text.replace("\x00", "\ufffd").replace("\x1b", "\ufffd")
    assert page.all("p")[0].text == kept
    assert page.all("img")[0].attributes["alt"] == kept
    assert page.all("td")[0].text == kept
    labels = [
        node.attributes["aria-label"] for node in page.all("svg") if node.attributes.get("role")
    ]
    assert len(labels) == 2 and all(kept in label for label in labels)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("values", [[1e308, -1e308], [1e-320, 1e300], [0.0, 0.0], [-5.0, -3.0]])
@pytest.mark.parametrize("log", [False, True])
def test_numbers_of_any_size_can_be_drawn(values, log):
    drawn = [
        *curves(
            [Line("a", [0, 1e18], values, band=(values, values))],
            [Level("l", max(values))],
            x="x",
            y="y",
            log_y=log,
        ),
        *histogram([("a", values)], x="x"),
        *dots([Row("a", values, values[0], min(values), max(values))], x="x"),
        *under_frames([Line("a", [0, 1], values)], num_steps=1, num_frames=2, y="y"),
    ]
    assert pages.faults(page_of(*drawn)) == []


def test_a_row_with_a_long_name_is_as_wide_as_any_other():
    """Names of packed agents come from anywhere."""
    long = "agent-" + "x" * 80
    page = page_of(*dots([Row(long, [1.0, 2.0], 1.5), Row("random", [0.0], 0.0)], x="return"))
    texts = [node.text for node in page.all("text")]
    assert all(len(text) <= 20 for text in texts) and any("…" in text for text in texts)
    assert long in page.all("svg")[0].attributes["aria-label"]
