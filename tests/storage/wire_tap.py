"""A man in the middle for SMB: forwards connections, keeps what it saw, changes what it is told."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable

from imageport.closable import Closable

Change = Callable[[bytes], bytes]


class WireTap(Closable):
    """Listens on `port` and forwards to ``target_port``; ``answer`` may change server packets."""

    def __init__(self, target_port: int, answer: Change = lambda packet: packet) -> None:
        self._target = ("127.0.0.1", target_port)
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets = [self._listener]
        self._threads: list[threading.Thread] = []
        self.port = self._listener.getsockname()[1]
        self.seen = bytearray()
        self._start(self._accept)

    def cut(self) -> None:
        """Drop all connections that stand."""
        for end in self._sockets[1:]:
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self.cut()
        for thread in self._threads:
            thread.join(5)
        for end in self._sockets:
            end.close()

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._target)
            self._sockets += [client, server]
            self._start(self._forward, client, server, lambda packet: packet)
            self._start(self._forward, server, client, self._answer)

    def _forward(self, source: socket.socket, target: socket.socket, change: Change) -> None:
        try:
            while True:
                length = _exactly(source, 4)
                packet = _exactly(source, int.from_bytes(length, "big"))
                self.seen += packet
                packet = change(packet)
                target.sendall(len(packet).to_bytes(4, "big") + packet)
        except (OSError, EOFError):
            for end in (source, target):
                try:
                    end.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue


def _exactly(source: socket.socket, length: int) -> bytes:
    data = bytearray()
    while len(data) < length:
        more = source.recv(length - len(data))
        if not more:
            raise EOFError
        data += more
    return bytes(data)
