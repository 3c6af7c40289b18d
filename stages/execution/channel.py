"""Whole messages over the private socket pair between the supervisor and one worker.

A frame is eight bytes of length and a pickle. Pickles never leave this pair of processes that
trust each other, and are never stored. The supervisor's end never blocks: a worker that is
stopped in the middle of a frame must not stop the supervisor too.
"""

import pickle
import socket
import struct
from typing import Any

HEADER = struct.Struct("!Q")
READ_BYTES = 1 << 20


def dump(message: object) -> bytes:
    """A message as the body of a frame."""
    return pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)


def pack(message: object) -> bytes:
    """A message as a frame."""
    body = dump(message)
    return HEADER.pack(len(body)) + body


def unpack(body: bytes | bytearray | memoryview) -> Any:
    """The message in the body of a frame."""
    return pickle.loads(body)  # noqa: S301  from our own child over our own socket pair


def read_frame(end: socket.socket) -> bytearray | None:
    """Wait for one frame and return its body; None when the other side is gone."""
    header = _read_exactly(end, HEADER.size)
    return None if header is None else _read_exactly(end, HEADER.unpack(header)[0])


def _read_exactly(end: socket.socket, num_bytes: int) -> bytearray | None:
    content = bytearray(num_bytes)
    rest = memoryview(content)
    while rest:
        got = end.recv_into(rest)
        if got == 0:
            return None
        rest = rest[got:]
    return content


class Channel:
    """The supervisor's end: queues what goes out, collects what comes in, never waits."""

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._end = end
        self._incoming = bytearray()
        self._outgoing = memoryview(b"")
        self.open = True

    def fileno(self) -> int:
        """For poll()."""
        return self._end.fileno()

    @property
    def pending(self) -> bool:
        """Whether bytes wait to be sent."""
        return len(self._outgoing) > 0

    def send(self, frame: bytes) -> None:
        """Queue a frame and send what the socket takes now; one frame at a time."""
        assert not self.pending, "the frame before is not sent yet"
        self._outgoing = memoryview(frame)
        self.flush()

    def flush(self) -> None:
        """Send queued bytes as far as the socket takes them."""
        try:
            while self.pending:
                self._outgoing = self._outgoing[self._end.send(self._outgoing) :]
        except BlockingIOError:
            return
        except (BrokenPipeError, ConnectionResetError):
            self._outgoing = memoryview(b"")  # the end of file follows by receive()

    def receive(self) -> list[Any]:
        """Messages that are complete by now; afterwards `open` says whether more can come."""
        self._read_available()
        messages = []
        while len(self._incoming) >= HEADER.size:
            stop = HEADER.size + HEADER.unpack_from(self._incoming)[0]
            if len(self._incoming) < stop:
                break
            messages.append(unpack(self._incoming[HEADER.size : stop]))
            del self._incoming[:stop]
        return messages

    def _read_available(self) -> None:
        try:
            while self.open:
                content = self._end.recv(READ_BYTES)
                self._incoming += content
                self.open = bool(content)
        except BlockingIOError:
            return
        except ConnectionResetError:
            self.open = False

    def close(self) -> None:
        """Hang up: the worker ends."""
        self.open = False
        self._end.close()
