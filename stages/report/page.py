"""The page: its head, its contents and its parts. It loads nothing from anywhere."""

from collections.abc import Callable, Sequence
from importlib.resources import files
from xml.etree.ElementTree import Element

from stages.events import Advanced, Doing
from stages.report import markup
from stages.report.again_part import again_part
from stages.report.data_part import data_part
from stages.report.gathering import Seen, dreams_alone, evaluation_of, number_at
from stages.report.markup import fill, shown, tag
from stages.report.memory_part import memory_part
from stages.report.pipeline_part import pipeline_part
from stages.report.scores_part import interval, scores_part
from stages.report.search_part import search_part
from stages.report.vision_part import vision_part

GENERATOR = "wm report"
POLICY = "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'"
STYLE = "page.css"


def page(seen: Seen, *, with_films: bool | None) -> bytes:
    """The report of one workspace."""
    makers: dict[str, Callable[[], Element]] = {
        "the pipeline": lambda: pipeline_part(seen),
        "the data": lambda: data_part(seen),
        "V": lambda: vision_part(seen),
        "M, and a dream": lambda: memory_part(seen),
        "the search": lambda: search_part(seen),
        "the evaluation": lambda: scores_part(seen, with_films=with_films),
        "how to do it again": lambda: again_part(seen),
    }
    parts = []
    for number, (name, make) in enumerate(makers.items()):
        seen.progress.emit(Advanced(number, len(makers), "parts"))
        seen.progress.emit(Doing(f"drawing {name}"))
        parts.append(make())
    seen.progress.emit(Advanced(len(makers), len(makers), "parts"))
    job = seen.prepared.job
    named = f"recipe {job.recipe}" + (f", preset {job.preset}" if job.preset else "")
    above = [
        tag("h1", f"World model: {seen.name}"),
        tag("p", f"{job.world.env}: {named}, seed {job.seed}.", class_="lead"),
        _headline(seen),
        *troubles(seen),
    ]
    return document(f"World model: {seen.name}", above, parts)


def document(title: str, above: Sequence[Element], parts: Sequence[Element]) -> bytes:
    """A whole page of these parts, with its contents."""
    entries = [
        tag("li", tag("a", part.get("aria-label"), href=f"#{part.get('id')}")) for part in parts
    ]
    style = tag("style")
    style.text = files("stages.report").joinpath(STYLE).read_text(encoding="utf-8")
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="generator", content=GENERATOR),
        tag("title", title),
        style,
    )
    body = tag(
        "body",
        tag("header", *above),
        tag("nav", tag("ul", *entries), aria_label="Contents"),
        fill(tag("main"), parts),
        tag(
            "footer", "Made by ", tag("code", GENERATOR), ". This file loads nothing from anywhere."
        ),
    )
    return markup.html(tag("html", head, body, lang="en"))


def is_report(content: bytes) -> bool:
    """Whether a file that begins so was made by this module."""
    return b'name="generator" content="' + GENERATOR.encode() + b'"' in content


def troubles(seen: Seen) -> list[Element]:
    """What is damaged, above everything else."""
    return [markup.trouble(error, about=f"{seen.name}:") for error in seen.troubles]


def _headline(seen: Seen) -> Element:
    """The four numbers that people ask for first."""
    evaluation, control = evaluation_of(seen), seen.newest("control")
    vision, memory = seen.newest("vision"), seen.newest("memory")
    cells: list[tuple[str, str, str]] = []
    if evaluation is not None:
        told = evaluation.manifest.summary
        sure = interval(evaluation)
        about = f"{told['episodes']} episodes" + (f"; 95 %: {sure}" if sure else "")
        cells.append(("mean return", _short(told["mean"]), about))
        random = number_at(told, "scores", "random", "mean")
        if random is not None:
            cells.append(("random policy", _short(random), ""))
    elif (
        control is not None
        and (score := number_at(control.manifest.summary, "selected_score")) is not None
    ):
        about = "in the dream alone" if dreams_alone(control) else "not evaluated yet"
        cells.append(("selected score", _short(score), about))
    if memory is not None and (nll := number_at(memory.manifest.summary, "nll")) is not None:
        floor = number_at(memory.manifest.summary, "baseline_entropy_floor")
        about = "" if floor is None else f"floor {floor:.3f}"
        cells.append(("M, nats per latent", f"{nll:.3f}", about))
    if vision is not None and (db := number_at(vision.manifest.summary, "decibels")) is not None:
        cells.append(("V, decibels", f"{db:.1f}", "held-out frames"))
    made = tag("dl", class_="headline")
    for name, value, about in cells:
        words = tag("dd", value, tag("small", about)) if about else tag("dd", value)
        made.append(tag("div", tag("dt", name), words))
    return made


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else shown(value)
