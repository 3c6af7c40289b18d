"""The stages of `wm`: an ordered table. Importing it loads nothing heavy."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    """One verb: a command, a file, and the kind of artifact that it writes."""

    name: str  # the command
    module: str  # stages.<module>
    section: str  # the section of a recipe that configures it
    reads: tuple[str, ...]  # kinds of its parents
    writes: str  # kind, which is also the folder in the workspace
    line: str  # what it does, for people
    aliases: tuple[str, ...] = ()
    warm: bool = False  # may start from an artifact of its own kind, named by --from


STAGES: tuple[Stage, ...] = (
    Stage("rollout", "rollout", "rollout", (), "rollouts",
          "Record episodes of the world with a data policy."),
    Stage("train-vision", "train_vision", "vision", ("rollouts",), "vision",
          "Train V: frames to latents and back.", ("train-vae",), warm=True),
    Stage("sample-latents", "sample_latents", "latents", ("rollouts", "vision"), "latents",
          "Encode every recorded frame with V."),
    Stage("train-memory", "train_memory", "memory", ("latents",), "memory",
          "Train M: predict the next latent from latent and action.", warm=True),
    Stage("train-control", "train_control", "control", ("vision", "memory", "latents"),
          "control",
          "Search the controller C, in the world or in the dream.", warm=True),
    Stage("evaluate", "evaluate", "evaluate", ("control",), "evaluations",
          "Score the agent on held-out episodes of the reference world."),
)  # fmt: skip

# Not a step of a pipeline: somebody plays, and what is kept of that is an artifact too.
PLAY = Stage("play", "playing", "", (), "plays", "Play the world or the dream, and record it.")
# Stands in the place of rollout where the episodes are there already.
IMPORT = Stage("import", "exchange", "", (), "rollouts", "Take in episodes that others recorded.")


def stage_named(name: str) -> Stage:
    """The stage with this name or alias; KeyError when there is none."""
    for stage in STAGES:
        if name == stage.name or name in stage.aliases:
            return stage
    raise KeyError(name)


def stage_writing(kind: str) -> Stage:
    """The stage that writes this kind of artifact; KeyError when there is none."""
    for stage in (*STAGES, PLAY):
        if stage.writes == kind:
            return stage
    raise KeyError(kind)
