"""A socket that gives exactly the bytes asked for, or says that the other side has gone."""

from __future__ import annotations

import socket


class PeerGone(Exception):
    """The client closed, or broke the protocol: the session ends without a word."""


class Wire:
    """Exact reads and whole writes over one stream socket."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def receive(self, count: int) -> bytes:
        """Return exactly ``count`` bytes."""
        data = bytearray(count)
        view = memoryview(data)
        while view:
            try:
                got = self._connection.recv_into(view)
            except OSError as error:
                raise PeerGone from error
            if not got:
                raise PeerGone
            view = view[got:]
        return bytes(data)

    def discard(self, count: int) -> None:
        """Read and drop ``count`` bytes."""
        while count:
            piece = min(count, 64 * 1024)
            self.receive(piece)
            count -= piece

    def send(self, *parts: bytes | memoryview) -> None:
        """Send all parts."""
        try:
            for part in parts:
                self._connection.sendall(part)
        except OSError as error:
            raise PeerGone from error
