"""Serves any disk over a Unix socket, so that qemu and libguestfs can open it.

A disk that lies on SMB, in a chain or in a cloud snapshot has no path that those tools could take;
NBD gives it one, with its holes. It is read-only, but for an overlay that is asked to be writable.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

from imageport.errors import ImageportError, InputError
from imageport.formats._extent_map import ExtentMap
from imageport.formats._nbd_session import NbdSession
from imageport.formats._nbd_wire import Wire
from imageport.formats.overlay_disk import OverlayDisk
from imageport.formats.virtual_disk import VirtualDisk

_MAX_PATH_BYTES = 107
"""sun_path of Linux has 108 bytes with its final zero."""
_MAX_CLIENTS = 64
"""nbdcopy opens 4, qemu 1; more than 64 is somebody's mistake."""


class NbdView:
    """A context manager that serves ``disk`` at ``socket_path`` while it is open.

    Any export name is answered. Only this user may connect. The disk is the caller's and must
    stay open meanwhile. The disk's errors reach the client as EIO; the last one is kept in
    ``last_error`` so that the caller can say why a tool failed. Only an `OverlayDisk` can be served
    ``writable``.
    """

    def __init__(self, disk: VirtualDisk, socket_path: Path, *, writable: bool = False) -> None:
        self.last_error: ImageportError | None = None
        self._disk = disk
        if writable and not isinstance(disk, OverlayDisk):
            raise InputError(f"Cannot serve '{disk.location}' writable: it is a read-only disk.")
        self._overlay = disk if writable and isinstance(disk, OverlayDisk) else None
        self._path = Path(socket_path)
        self._listener: socket.socket | None = None
        self._acceptor: threading.Thread | None = None
        self._sessions: dict[threading.Thread, socket.socket] = {}
        self._lock = threading.Lock()
        self._closing = False
        if len(bytes(self._path.absolute())) > _MAX_PATH_BYTES:
            raise InputError(
                f"Bad socket path '{self._path}': found {len(bytes(self._path.absolute()))} bytes, "
                f"needed at most {_MAX_PATH_BYTES}."
            )

    @property
    def uri(self) -> str:
        """Return the NBD URI that qemu, libguestfs and nbdinfo take."""
        return f"nbd+unix:///?socket={quote(str(self._path.absolute()))}"

    def __enter__(self) -> Self:
        # What an overlay holds changes while it is served: it is asked each time.
        extents = self._overlay or ExtentMap(self._disk)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.bind(str(self._path.absolute()))
            self._path.chmod(0o600)  # before listen: nobody can have connected
            listener.listen(16)
        except OSError as error:
            listener.close()
            raise InputError(f"Cannot listen at '{self._path}': {error.strerror}.") from error
        self._closing = False
        self._listener = listener
        arguments = (listener, extents)
        self._acceptor = threading.Thread(target=self._accept, args=arguments, name="nbd-accept")
        self._acceptor.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._lock:
            self._closing = True
            sessions = dict(self._sessions)
        for connection in (self._listener, *sessions.values()):
            if connection is not None:
                with contextlib.suppress(OSError):  # the other side may have gone already
                    connection.shutdown(socket.SHUT_RDWR)
        if self._acceptor is not None:
            self._acceptor.join()
        for thread in sessions:
            thread.join()
        if self._listener is not None:
            self._listener.close()
            self._path.unlink(missing_ok=True)
        self._listener = self._acceptor = None

    def _accept(self, listener: socket.socket, extents: ExtentMap | OverlayDisk) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return  # the view was closed
            with self._lock:
                if self._closing or len(self._sessions) >= _MAX_CLIENTS:
                    connection.close()
                    continue
                thread = threading.Thread(
                    target=self._serve, args=(connection, extents), name="nbd-session"
                )
                self._sessions[thread] = connection
                thread.start()

    def _serve(self, connection: socket.socket, extents: ExtentMap | OverlayDisk) -> None:
        try:
            NbdSession(Wire(connection), self._disk, extents, self._note).run()
        finally:
            with self._lock:
                self._sessions.pop(threading.current_thread(), None)
            connection.close()

    def _note(self, error: ImageportError) -> None:
        self.last_error = error
