"""Two rounds of `wm run` in seconds, and how what was made of them is read."""

from command_line import MICRO, manifest, settings

PLAIN = ("control.components=0", "control.starts=1", "control.sigma_end=0.02")
LATER = (
    "rounds.episodes=4",
    "rounds.epsilon=0.4",
    "rounds.vision_steps=4",
    "rounds.memory_steps=20",
    "rounds.memory_rate=1e-4",
    "rounds.generations=2",
)
SETTINGS = settings(*MICRO, *PLAIN, *LATER)
FIRST = ("--preset", "debug", "--seed", 7, *SETTINGS)


def parents(root, name):
    return [parent["id"] for parent in manifest(root, name)["parents"]]


def rows(report, title):
    (table,) = [table for table in report["tables"] if table["title"] == title]
    return table["rows"]
