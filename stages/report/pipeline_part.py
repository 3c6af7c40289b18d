"""The pipeline as a picture: artifacts in the order of their stages, and what came from what."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from stages import STAGES, Stage
from stages.artifacts.artifact import Artifact
from stages.inspection.expectations import visitor
from stages.inspection.overview import TELLING, num_bytes
from stages.report import markup
from stages.report.gathering import Seen
from stages.report.markup import section, shown, tag

BOX = (158, 60)  # columns and rows of an artifact in the picture
GAP = (26, 16)
BEND = 26  # room for arrows that go back
MOST = {"wide": 5, "narrow": 2}  # artifacts of a kind that are drawn: the newest
LETTERS = {"vision": "V", "memory": "M", "control": "C"}
SECONDS = "seconds_of_last_run"


Key = tuple[str, str]  # kind and content of an artifact, as parents are found


@dataclass(frozen=True)
class _Box:
    artifact: Artifact
    x: int
    y: int


def pipeline_part(seen: Seen) -> Element:
    """The picture, and the same in a table."""
    several = max(seen.rounds.values(), default=1) > 1
    words = (
        "An arrow goes from what was read to what was made of it; those that follow from others "
        "are left out. Time is that of the command which finished the artifact."
        + (" R1, R2, ...: the round of an artifact." if several else "")
    )
    return section(
        "pipeline",
        "Pipeline",
        tag("p", words),
        *(_picture(seen, layout) for layout in MOST),
        _left_out(seen),
        markup.details("All artifacts in a table", _artifact_table(seen)),
    )


def _picture(seen: Seen, layout: str) -> Element:
    """Stages beside each other, or below each other on a phone."""
    stages = [stage for stage in STAGES if stage.name in seen.states]
    columns = [list(seen.artifacts[stage.writes][-MOST[layout] :]) for stage in stages]
    depth = max(1, *map(len, columns))
    steps = (BOX[0] + GAP[0], BOX[1] + GAP[1])
    across = layout == "wide"
    head = 26
    boxes: dict[Key, _Box] = {}
    drawn: list[Element] = []
    for place, (stage, found) in enumerate(zip(stages, columns, strict=True)):
        x, y = (place * steps[0], 0) if across else (0, place * (steps[1] + head))
        beside = 2 if across else BOX[0] // 2 + 8  # right of the arrow that comes from above
        drawn.append(tag("text", _title(stage), x=x + beside, y=y + 15, class_="stage"))
        for level, one in enumerate(found):
            left, top = (x, y + head + level * steps[1]) if across else (level * steps[0], y + head)
            box = _Box(one, left, top)
            boxes[one.kind, one.manifest.payload_digest] = box
            drawn.append(_drawn(seen, box))
        if not found:
            drawn.append(_empty(seen, stage, x, y + head))
    arrows = [
        _arrow(boxes[key], box, across=across)
        for box in boxes.values()
        for key in _nearest(box.artifact, {key: one.artifact for key, one in boxes.items()})
    ]
    bends = any("back" in str(arrow.get("class")) for arrow in arrows)
    if across:
        size = (
            len(stages) * steps[0] - GAP[0],
            head + depth * steps[1] - GAP[1] + bends * BEND,
        )
    else:
        size = (
            max(depth, 2) * steps[0] - GAP[0] + bends * BEND,  # no larger than other text
            len(stages) * (steps[1] + head) - GAP[1],
        )
    told = "; ".join(
        f"{one.id} from {', '.join(p.id for p in one.manifest.parents) or 'nothing'}"
        for column in columns
        for one in column
    )
    return tag(
        "svg",
        *arrows,
        *drawn,
        viewBox=f"-1 -1 {size[0] + 2} {size[1] + 2}",
        class_=f"pipeline {layout}",
        role="img",
        aria_label=f"The pipeline: {told}.",
    )


def _title(stage: Stage) -> str:
    letter = LETTERS.get(stage.writes)
    return f"{stage.name} · {letter}" if letter else stage.name


def _drawn(seen: Seen, box: _Box) -> Element:
    one = box.artifact
    several = max(seen.rounds.values(), default=1) > 1
    which = f"R{seen.rounds[one.id]}" if several and one.id in seen.rounds else None
    newest = one is seen.newest(one.kind)
    time = markup.seconds(one.manifest.provenance.get(SECONDS))
    sizes = " · ".join(filter(None, (markup.num_bytes(num_bytes(one)), time)))
    return tag(
        "g",
        tag("rect", x=box.x, y=box.y, width=BOX[0], height=BOX[1], rx=6),
        tag("text", one.id, x=box.x + 9, y=box.y + 18, class_="id"),
        tag("text", which, x=box.x + BOX[0] - 7, y=box.y + 18, class_="round") if which else None,
        tag("text", telling(one), x=box.x + 9, y=box.y + 35),
        tag("text", sizes, x=box.x + 9, y=box.y + 51, class_="small"),
        class_="box newest" if newest else "box",
    )


def _empty(seen: Seen, stage: Stage, x: int, y: int) -> Element:
    state = seen.states[stage.name][0]
    return tag(
        "g",
        tag("rect", x=x, y=y, width=BOX[0], height=BOX[1], rx=6),
        tag("text", state, x=x + 9, y=y + 22),
        tag("text", f"wm {stage.name}", x=x + 9, y=y + 43, class_="small"),
        class_="box none",
    )


def _nearest(artifact: Artifact, others: Mapping[Key, Artifact]) -> list[Key]:
    """Those parents that are drawn and that no other of them was made from."""
    parents = [key for key in _parents(artifact) if key in others]
    behind: set[Key] = set()
    for key in parents:
        waiting = list(_parents(others[key]))
        while waiting:  # ends also where forged manifests are each other's parents
            before = waiting.pop()
            if before in others and before not in behind:
                behind.add(before)
                waiting += _parents(others[before])
    return [key for key in parents if key not in behind]


def _parents(artifact: Artifact) -> list[Key]:
    return [(parent.kind, parent.payload_digest) for parent in artifact.manifest.parents]


def _arrow(start: _Box, end: _Box, *, across: bool) -> Element:
    """From the side of one box to the side of another; within a kind from below to above."""
    width, height = BOX
    same = start.artifact.kind == end.artifact.kind
    back = end.x < start.x if across else end.y < start.y
    if back:
        return _return(start, end, across=across)
    if across is not same:  # to the right
        x0, y0, x1, y1 = start.x + width, start.y + height // 2, end.x, end.y + height // 2
        reach = max(10, (x1 - x0) // 2)
        path = f"M{x0} {y0}C{x0 + reach} {y0} {x1 - reach} {y1} {x1} {y1}"
        head = f"M{x1 - 5} {y1 - 3.5}L{x1} {y1}L{x1 - 5} {y1 + 3.5}"
    else:
        x0, y0, x1, y1 = start.x + width // 2, start.y + height, end.x + width // 2, end.y
        reach = max(8, (y1 - y0) // 2)
        path = f"M{x0} {y0}C{x0} {y0 + reach} {x1} {y1 - reach} {x1} {y1}"
        head = f"M{x1 - 3.5} {y1 - 5}L{x1} {y1}L{x1 + 3.5} {y1 - 5}"
    return tag("path", d=f"{path}{head}", class_="arrow")


def _return(start: _Box, end: _Box, *, across: bool) -> Element:
    """Back to an earlier stage, around the outside: a controller that recorded."""
    width, height = BOX
    if across:
        x0, y0, x1, y1 = start.x + width // 2, start.y + height, end.x + width // 2, end.y + height
        path = f"M{x0} {y0}C{x0} {y0 + 46} {x1} {y1 + 46} {x1} {y1}"
        head = f"M{x1 - 3.5} {y1 + 5}L{x1} {y1}L{x1 + 3.5} {y1 + 5}"
    else:
        x0, y0, x1, y1 = start.x + width, start.y + height // 2, end.x + width, end.y + height // 2
        far = max(x0, x1) + 24
        path = f"M{x0} {y0}C{far} {y0} {far} {y1} {x1} {y1}"
        head = f"M{x1 + 5} {y1 - 3.5}L{x1} {y1}L{x1 + 5} {y1 + 3.5}"
    return tag("path", d=f"{path}{head}", class_="arrow back")


def telling(artifact: Artifact) -> str:
    """The one number that says most about an artifact."""
    summary = artifact.manifest.summary
    values = [(name, summary.get(name)) for name in TELLING.get(artifact.kind, ())]
    values = [(name, value) for name, value in values if type(value) in (int, float)]
    if not values:
        return ""
    name, value = values[0]
    label = {"selected_score": "score", "mean": "mean return", "nll": "NLL"}.get(name, name)
    return f"{label} {shown(_rounded(value))}"


def _rounded(value: float | int | None) -> float | int | None:
    return round(value, 1) if isinstance(value, float) and abs(value) >= 100 else value


def _left_out(seen: Seen) -> Element | None:
    drawn = (stage.writes for stage in STAGES if stage.name in seen.states)
    counts = {kind: len(seen.artifacts[kind]) - MOST["wide"] for kind in drawn}
    words = [f"{count} earlier of {kind}" for kind, count in counts.items() if count > 0]
    return tag("p", f"Not drawn: {', '.join(words)}.", class_="small") if words else None


def _artifact_table(seen: Seen) -> Element:
    rows = [
        (
            one.id,
            seen.rounds.get(one.id),
            markup.num_bytes(num_bytes(one)),
            markup.seconds(one.manifest.provenance.get(SECONDS)),
            telling(one),
            visitor(one) or ", ".join(parent.id for parent in one.manifest.parents) or None,
        )
        for found in _ordered(seen.artifacts)
        for one in found
    ]
    return markup.table(("artifact", "round", "size", "time", "tells", "made from"), rows)


def _ordered(artifacts: Mapping[str, Sequence[Artifact]]) -> list[Sequence[Artifact]]:
    return [found for found in artifacts.values() if found]
