"""What V sees: its curves, frames above their reconstructions, and a walk along its latents."""

from functools import partial
from xml.etree.ElementTree import Element

from stages.artifacts.artifact import Artifact
from stages.artifacts.disk import read_file
from stages.artifacts.pictures import PICTURE_LIMIT
from stages.report import markup
from stages.report.charts import Level, Line, curves
from stages.report.gathering import Seen, Series, maker, metrics
from stages.report.markup import facts, figure, missing, section, tag
from stages.train_vision import PICTURE, TRAVERSAL

KIND = "vision"
TITLE = "V: seeing"
BASELINES = {
    "baseline_mean_image": "mean image",
    "baseline_previous_frame": "previous frame",
}


def vision_part(seen: Seen) -> Element:
    """The newest V; curves of earlier ones are folded away."""
    newest = seen.newest(KIND)
    if newest is None:
        command = seen.command(maker(KIND))
        return section(KIND, TITLE, missing("There is no V yet; this makes one:", command))
    summary = newest.manifest.summary
    told = [
        ("artifact", newest.id),
        ("held-out error", summary.get("reconstruction")),
        ("decibels", summary.get("decibels")),
        ("KL, nats", summary.get("kl")),
        ("latents", summary["shape"]["latent_size"]),
        ("parameters", summary["parameters"]),
    ]
    parts = [
        seen.tried(lambda: _charts(seen, newest), about="Curves."),
        seen.tried(lambda: _reconstructions(newest), about="Reconstructions."),
        seen.tried(lambda: _traversal(newest), about="Traversal."),
    ]
    earlier = seen.artifacts[KIND][-4:-1]
    folded = [
        markup.details(f"Curves of {one.id}", seen.tried(partial(_charts, seen, one)))
        for one in reversed(earlier)
    ]
    return section(KIND, TITLE, facts(told), *parts, *folded)


def _charts(seen: Seen, vision: Artifact) -> Element:
    found = metrics(seen, vision)
    summary = vision.manifest.summary
    levels = [
        Level(label, summary[name])
        for name, label in BASELINES.items()
        if type(summary.get(name)) in (int, float)
    ]
    shown = []
    if lines := measured(found, "vision", "reconstruction"):
        shown.append(
            figure(
                *curves(lines, levels, x="training step", y="squared error per frame", log_y=True),
                title="Reconstruction",
                says="Sum of squares over all pixels, each from 0 to 1. Dashed: what trivial "
                "predictions reach on held-out frames.",
            )
        )
    if lines := measured(found, "vision", "kl"):
        shown.append(
            figure(
                *curves(lines, x="training step", y="nats per frame"),
                title="Kullback-Leibler divergence",
                says="How much the latents say of a frame.",
            )
        )
    return tag("div", *shown, class_="pair")


def measured(found: dict[str, Series], role: str, name: str) -> list[Line]:
    """The curves of one measure: in training, and on what was held out."""
    lines = []
    for place, (key, label) in enumerate(
        ((f"{role}/{name}", "training"), (f"{role}/held_out/{name}", "held out"))
    ):
        if key in found:
            dots = key in found and len(found[key].x) < 20 and place == 1
            lines.append(Line(label, found[key].x, found[key].y, place, dots=dots))
    return lines


def _reconstructions(vision: Artifact) -> Element:
    """Originals above reconstructions; on a phone the right half moves below the left one."""
    content = read_file(vision.file(PICTURE), limit=PICTURE_LIMIT)
    width, height = markup.png_size(content)
    alt = "Held-out frames, and below each what V makes of it."
    source = markup.data_uri(content, "image/png")
    name = "reconstructions"
    image = tag("image", href=source, width=width, height=height, id=name, class_="pixels")
    half = width // 2
    halves = [
        tag(
            "svg",
            *([image] if start == 0 else [tag("use", href=f"#{name}")]),
            viewBox=f"{start} 0 {half} {height}",
            role="img",
            aria_label=alt,
        )
        for start in (0, half)
    ]
    return figure(
        tag("div", *halves, class_="halves"),
        title="Reconstructions",
        says="Held-out frames above, below each what V makes of it.",
    )


def _traversal(vision: Artifact) -> Element:
    content = read_file(vision.file(TRAVERSAL), limit=PICTURE_LIMIT)
    says = (
        "One frame; a row for each of the latents that V is surest of, moved from −3 (left) to "
        "3 (right) while the others stay."
    )
    alt = "A grid of frames: every row moves one latent from -3 to 3."
    return figure(markup.picture(content, alt), title="A walk along the latents", says=says)
