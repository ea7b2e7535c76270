"""A folder of an SMB share, without mounting it.

Opens ask for no oplock and share nothing more than they must: a reader that denies writers shares
reading only, a writer shares nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from imageport.errors import FileLocked, FileMissing, ShareRefused
from imageport.storage import smb_messages as messages
from imageport.storage.byte_file import ByteFile, WritableFile
from imageport.storage.folder import FileStat, Folder
from imageport.storage.relative_name import split_name
from imageport.storage.smb_connection import SmbSession
from imageport.storage.smb_errors import NO_MORE_FILES
from imageport.storage.smb_file import SmbFile, SmbWritableFile
from imageport.storage.smb_link import SmbLink
from imageport.storage.smb_location import SmbAuth, SmbCredentials, SmbLocation
from imageport.storage.smb_messages import OpenHow

__all__ = ["SmbAuth", "SmbCredentials", "SmbFolder", "SmbLocation"]

_OPEN_PATIENCE_SECONDS = 0.3
"""A rename or a listing by somebody else holds a file for an instant."""
_REPLACE_PATIENCE_SECONDS = 5.0
"""A server refuses to replace a file that somebody reads; small files are read quickly."""

_Entries = list[FileStat]  # inside the class the word means the method
_Result = TypeVar("_Result")


class SmbFolder(Folder):
    """Files below a folder of a share; nothing is connected before the first use.

    ``patience_seconds`` is how long a lost connection is tried again; the first one is tried once.
    """

    # Samba looks whether the new name is free, then renames with a call that replaces.
    renames_atomically = False

    def __init__(
        self,
        location: SmbLocation,
        credentials: SmbCredentials,
        *,
        patience_seconds: float = 60.0,
    ) -> None:
        self.location = str(location)
        self._link = SmbLink(location, credentials, patience_seconds)

    def list(self, name: str = "") -> list[FileStat]:
        """Return the entries directly below ``name``, sorted; `FileMissing` if it is not there."""
        split_name(name, self.location, root_allowed=True)
        entries = self._link.steadily(lambda session: self._list(session, name))
        return sorted(entries, key=lambda entry: entry.name)

    def stat(self, name: str) -> FileStat | None:
        """Return the entry, or None."""
        split_name(name, self.location)
        how = OpenHow(messages.ACCESS_ASK, options=0)

        def ask(session: SmbSession) -> messages.FileFacts:
            with self._link.opened(session, name, how, "stat") as handle:
                answer = self._link.ask(session, messages.ask_file(handle), "stat", name)
                return messages.facts_of(answer)

        try:
            facts = self._link.steadily(ask)
        except FileMissing:
            return None
        size = 0 if facts.is_folder else facts.size_bytes
        return FileStat(name.rsplit("/", 1)[-1], size, facts.last_write_ns, facts.is_folder)

    def open_read(self, name: str, *, deny_write: bool = False) -> ByteFile:
        """Open for reading; with ``deny_write`` nobody can write, rename or delete meanwhile."""
        split_name(name, self.location)
        share = messages.SHARE_READ if deny_write else messages.SHARE_ALL
        how = OpenHow(messages.ACCESS_READ, share)
        return _patiently(
            lambda: self._link.steadily(lambda _session: SmbFile(self._link, name, how)),
            _OPEN_PATIENCE_SECONDS,
        )

    def create(self, name: str) -> WritableFile:
        """Create a new empty file; `NameTaken` if the name exists (atomic on the server)."""
        split_name(name, self.location)
        how = OpenHow(messages.ACCESS_READ_WRITE, messages.SHARE_NOTHING, messages.CREATE)
        return SmbWritableFile(self._link, name, how)

    def open_write(self, name: str) -> WritableFile:
        """Open an existing file for reading and writing; `FileMissing` if it is not there."""
        split_name(name, self.location)
        how = OpenHow(messages.ACCESS_READ_WRITE, messages.SHARE_NOTHING)
        return _patiently(
            lambda: SmbWritableFile(self._link, name, how),
            _OPEN_PATIENCE_SECONDS,
        )

    def rename(self, name: str, new_name: str, *, replace: bool = False) -> None:
        """Rename inside the folder, atomically; `NameTaken` unless ``replace``."""
        split_name(name, self.location)
        split_name(new_name, self.location)
        path = self._link.wire_path(new_name)
        verb = f"rename to '{new_name}'"
        how = OpenHow(messages.ACCESS_DELETE)

        def move() -> None:
            session = self._link.session()
            with self._link.opened(session, name, how, verb) as handle:
                request = messages.rename_to(handle, path, replace=replace)
                self._link.ask(session, request, verb, name)

        if replace:
            _patiently(move, _REPLACE_PATIENCE_SECONDS, refused=ShareRefused)
        else:
            _patiently(move, _OPEN_PATIENCE_SECONDS)

    def delete(self, name: str) -> None:
        """Delete a file; one that is not there is no error."""
        split_name(name, self.location)
        options = messages.IS_FILE | messages.DELETE_ON_CLOSE
        how = OpenHow(messages.ACCESS_DELETE, options=options)

        def remove(session: SmbSession) -> None:
            with self._link.opened(session, name, how, "delete"):
                pass  # closing is what deletes

        try:
            _patiently(lambda: self._link.steadily(remove), _OPEN_PATIENCE_SECONDS)
        except FileMissing:
            entry = self.stat(name)
            if entry is not None:  # a folder
                raise

    def make_folder(self, name: str) -> None:
        """Create a folder and its parents; existing ones are no error."""
        parts = split_name(name, self.location, root_allowed=True)
        above = len(self._link.location.folder.split("/")) if self._link.location.folder else 0
        self._link.steadily(lambda session: self._make_folders(session, parts, above))

    def set_last_write(self, name: str, last_write_ns: int) -> None:
        """Set the modification time, in steps of 100 ns."""
        split_name(name, self.location)
        how = OpenHow(messages.ACCESS_SET)

        def change(session: SmbSession) -> None:
            with self._link.opened(session, name, how, "set the time of") as handle:
                request = messages.set_last_write_to(handle, last_write_ns)
                self._link.ask(session, request, "set the time of", name)

        self._link.steadily(change)

    def free_bytes(self) -> int:
        """Return the space that this account can still use (a quota counts)."""
        how = OpenHow(messages.ACCESS_LIST, options=messages.IS_FOLDER)

        def ask(session: SmbSession) -> int:
            with self._link.opened(session, "", how, "measure") as handle:
                answer = self._link.ask(session, messages.ask_volume(handle), "measure", "")
                return messages.free_bytes_of(answer)

        return self._link.steadily(ask)

    def close(self) -> None:
        """Log off and end the connection; files that are still open end with it."""
        self._link.close()

    def _list(self, session: SmbSession, name: str) -> _Entries:
        found: _Entries = []
        how = OpenHow(messages.ACCESS_LIST, options=messages.IS_FOLDER)
        with self._link.opened(session, name, how, "list") as handle:
            while True:
                request = messages.list_request(handle)
                answer = self._link.ask(session, request, "list", name, frozenset({NO_MORE_FILES}))
                if answer["status"].get_value() == NO_MORE_FILES:
                    return found
                found += messages.entries_of(answer)

    def _make_folders(self, session: SmbSession, parts: tuple[str, ...], above: int) -> None:
        how = OpenHow(
            messages.ACCESS_LIST,
            disposition=messages.OPEN_IF,
            options=messages.IS_FOLDER,
        )
        root = self._link.location.folder.split("/") if above else []
        whole = [*root, *parts]
        for depth in range(1, len(whole) + 1):
            path = "\\".join(whole[:depth])
            request = messages.create_request(path, how)
            answer = self._link.ask(session, request, "create the folder", "/".join(parts))
            self._link.shut(session, messages.handle_of(answer), path)


def _patiently(
    action: Callable[[], _Result],
    patience_seconds: float,
    refused: type[Exception] = FileLocked,
) -> _Result:
    """Run an action again for a while as long as others stand in its way."""
    deadline = time.monotonic() + patience_seconds
    pause = 0.02
    while True:
        try:
            return action()
        except (FileLocked, refused):
            if time.monotonic() + pause > deadline:
                raise
        time.sleep(pause)
        pause = min(2 * pause, 0.3)
