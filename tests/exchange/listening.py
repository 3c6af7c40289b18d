"""A monitor for imports and exports."""

from stages.errors import Interrupted
from stages.events import Advanced, Noted, Silent


class Listening(Silent):
    """Keeps what is told; stops after so many episodes."""

    def __init__(self, stop_after=None):
        self.events, self.stop_after, self.come = [], stop_after, 0

    def emit(self, event):
        self.events.append(event)
        self.come += isinstance(event, Advanced) and event.done > 0

    def poll(self):
        if self.come == self.stop_after:
            raise Interrupted("Stopped.")

    @property
    def said(self):
        return " ".join(event.text for event in self.events if isinstance(event, Noted))
