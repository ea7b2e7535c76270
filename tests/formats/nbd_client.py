"""Clients of the NBD view: the tools that will use it, and one that sends what a test wants."""

from __future__ import annotations

import socket
import struct
import subprocess
from pathlib import Path
from typing import Self

from imageport.formats.nbd_view import NbdView


def run(*command: str | Path) -> str:
    """Run a tool and return what it printed."""
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class NbdClient:
    """The oldest dialect: option 1, simple replies; the view must say whether it can be written."""

    def __init__(self, view: NbdView, *, writable: bool = False) -> None:
        self._flags = 1 if writable else 3  # has flags, and read-only
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(20)
        self._path = view.uri.split("socket=")[1]

    def __enter__(self) -> Self:
        self._socket.connect(self._path)
        assert self.receive(18) == b"NBDMAGICIHAVEOPT\0\x03"
        self._socket.sendall(struct.pack(">I8sII", 1, b"IHAVEOPT", 1, 0))
        size, flags = struct.unpack(">QH", self.receive(10))
        assert size > 0
        assert flags & 3 == self._flags
        assert self.receive(124) == bytes(124)
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def receive(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = self._socket.recv(count - len(data))
            assert piece
            data += piece
        return data

    def request(
        self, command: int, offset: int, length: int, payload: bytes = b"", *, flags: int = 0
    ) -> int:
        self.send(command, offset, length, payload, flags=flags)
        magic, error, handle = struct.unpack(">IIQ", self.receive(16))
        assert (magic, handle) == (0x67446698, 77)
        return int(error)

    def send(
        self, command: int, offset: int, length: int, payload: bytes, *, flags: int = 0
    ) -> None:
        header = struct.pack(">IHHQQI", 0x25609513, flags, command, 77, offset, length)
        self._socket.sendall(header + payload)

    def has_left(self) -> bool:
        """Tell whether the server closed the connection."""
        return self._socket.recv(1) == b""
