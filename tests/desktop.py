"""A display by Xvfb on which tests press real keys (XTEST) and look at real pixels."""

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator

import numpy as np
from Xlib import XK, X
from Xlib.display import Display
from Xlib.ext import xtest

XVFB = shutil.which("Xvfb")
SYMBOLS = {",": "comma", ".": "period", "+": "plus", "-": "minus", "[": "bracketleft"}


class Desktop:
    """One display and its keyboard."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._display = Display(name)

    def close(self) -> None:
        self._display.close()

    def window(self, *, timeout: float = 60):
        """The first window that is shown, with the keyboard's focus, as a window manager gives it.

        It stands alone: there is no window manager.
        """
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            for window in self._display.screen().root.query_tree().children:
                if window.get_attributes().map_state == X.IsViewable:
                    window.set_input_focus(X.RevertToParent, X.CurrentTime)
                    self._display.sync()
                    return window
            time.sleep(0.05)
        raise AssertionError("no window was shown")

    def pixels(self, window) -> np.ndarray:
        """What the window shows, uint8 [H, W, 3]."""
        size = window.get_geometry()
        image = window.get_image(0, 0, size.width, size.height, X.ZPixmap, 0xFFFFFFFF)
        raw = np.frombuffer(image.data, dtype=np.uint8)
        return raw.reshape(size.height, size.width, 4)[:, :, 2::-1].copy()

    def down(self, key: str) -> None:
        self._fake(X.KeyPress, key)

    def up(self, key: str) -> None:
        self._fake(X.KeyRelease, key)

    def tap(self, key: str, *, seconds: float = 0.05) -> None:
        """Press a key and let it go."""
        self.down(key)
        time.sleep(seconds)
        self.up(key)
        time.sleep(seconds)  # pressed again at once, X takes it for a key that repeats

    @contextlib.contextmanager
    def held(self, key: str) -> Iterator[None]:
        self.down(key)
        try:
            yield
        finally:
            self.up(key)

    def close_window(self, window) -> None:
        """What the cross of a window does: a request to its program."""
        from Xlib.protocol.event import ClientMessage

        protocols = self._display.intern_atom("WM_PROTOCOLS")
        delete = self._display.intern_atom("WM_DELETE_WINDOW")
        window.send_event(
            ClientMessage(window=window, client_type=protocols, data=(32, [delete, 0, 0, 0, 0]))
        )
        self._display.sync()

    def _fake(self, kind: int, key: str) -> None:
        symbol = XK.string_to_keysym(SYMBOLS.get(key, key))
        code = self._display.keysym_to_keycode(symbol)
        assert code, f"no key for {key!r}"
        xtest.fake_input(self._display, kind, code)
        self._display.sync()


@contextlib.contextmanager
def desktop(*, size: str = "1400x900x24") -> Iterator[Desktop]:
    """A display of its own, for as long as the block runs."""
    reading, writing = os.pipe()
    assert XVFB, "Xvfb is missing"
    words = [XVFB, "-displayfd", str(writing), "-screen", "0", size, "-nolisten", "tcp"]
    server = subprocess.Popen(words, pass_fds=(writing,), stderr=subprocess.DEVNULL)
    os.close(writing)
    try:
        with os.fdopen(reading) as told:
            number = told.readline().strip()
        assert number, "Xvfb did not start"
        made = Desktop(f":{number}")
        try:
            yield made
        finally:
            made.close()
    finally:
        server.terminate()
        server.wait(timeout=10)
