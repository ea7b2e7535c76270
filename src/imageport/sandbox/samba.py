"""A real SMB file server of this machine's own: Samba's smbd, all its files below one folder."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
from pathlib import Path
from typing import Self

from imageport.errors import EngineFailed, MissingTool
from imageport.sandbox.processes import Child

_ADDRESS = "127.0.0.1"

_GLOBAL = """\
[global]
    server role = standalone server
    netbios name = IMAGEPORT
    interfaces = lo
    bind interfaces only = yes
    smb ports = {port}
    disable netbios = yes
    server min protocol = SMB3_00
    server signing = mandatory
    map to guest = never
    restrict anonymous = 2
    load printers = no
    disable spoolss = yes
    passdb backend = tdbsam:{root}/private/passdb.tdb
    private dir = {root}/private
    lock directory = {root}/lock
    state directory = {root}/state
    cache directory = {root}/cache
    pid directory = {root}/run
    ncalrpc dir = {root}/ncalrpc
    usershare path =
    log level = 1
    strict allocate = no
    strict sync = yes
    # Another smbd of this machine answers on its own port; neither needs the other's locks.
    kernel oplocks = no
    {extra}
"""

_SHARE = """
[{name}]
    path = {path}
    read only = no
    valid users = {user}
    force user = {user}
    store dos attributes = yes
    create mask = 0664
    directory mask = 0775
    {extra}
"""


class SambaServer:
    """One smbd with its shares; several may run at once, each on a free port.

    ``user`` need not exist on this machine: it is mapped to the account that runs the server, so
    the shares' folders need no special rights. ``options`` holds further lines of smb.conf by
    section: ``global`` or a share's name.
    """

    def __init__(
        self,
        root: Path,
        shares: dict[str, Path],
        user: str,
        password: str,
        *,
        options: dict[str, str] | None = None,
    ) -> None:
        self.root = root.resolve()
        self.shares = {name: path.resolve() for name, path in shares.items()}
        self.user = user
        self.port = 0
        self._password = password
        self._options = options or {}
        self._child: Child | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the server and wait until it answers.

        It keeps its port over restarts, also of other processes with the same ``root``, unless
        somebody else took it: a share's location should not change by itself.
        """
        smbd = _tool("smbd")
        self.stop()
        for name in ("private", "lock", "state", "cache", "run", "ncalrpc", "log"):
            (self.root / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        self.port = self.port or self._kept_port()
        (self.root / "port").write_text(str(self.port))
        for path in self.shares.values():
            path.mkdir(parents=True, exist_ok=True)
        self._write_configuration()
        self._add_user()
        argv = [
            smbd, "--foreground", "--no-process-group",
            f"--configfile={self._configuration}", f"--log-basename={self.root / 'log'}",
        ]  # fmt: skip
        self._child = Child("smbd", argv, os.environ, self.root / "log" / "smbd.out")
        self._child.wait_until(self._answers, timeout_seconds=20)

    def stop(self) -> None:
        """Stop the server and all it started; may be called twice."""
        if self._child is not None:
            self._child.stop(timeout_seconds=5)
            self._child = None

    def kill(self) -> None:
        """End the server and every connection at once, as a power cut would."""
        if self._child is not None:
            group = self._child.pid
            os.killpg(group, signal.SIGKILL)
            self._child.kill()
            self._child = None

    def location(self, share: str) -> str:
        """Return ``smb://…`` of a share."""
        if share not in self.shares:
            raise KeyError(share)
        return f"smb://{_ADDRESS}:{self.port}/{share}"

    @property
    def pid(self) -> int:
        """Return the process id of the server, 0 when it does not run; its group is all of it."""
        return self._child.pid if self._child is not None else 0

    @property
    def _configuration(self) -> Path:
        return self.root / "smb.conf"

    def _account(self) -> str:
        return pwd.getpwuid(os.geteuid()).pw_name

    def _write_configuration(self) -> None:
        account = self._account()
        users = self.root / "users.map"
        users.write_text(f"{account} = {self.user}\n")
        extra = f"username map = {users}\n    {self._options.get('global', '')}"
        text = _GLOBAL.format(port=self.port, root=self.root, extra=extra)
        for name, path in self.shares.items():
            more = self._options.get(name, "")
            text += _SHARE.format(name=name, path=path, user=account, extra=more)
        self._configuration.write_text(text)

    def _add_user(self) -> None:
        argv = [
            _tool("smbpasswd"), "-c", str(self._configuration), "-L", "-s", "-a", self._account(),
        ]  # fmt: skip
        done = subprocess.run(
            argv,
            input=f"{self._password}\n{self._password}\n",
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
        if done.returncode:
            raise EngineFailed(
                f"Cannot add '{self.user}' to the file server: smbpasswd ended with "
                f"{done.returncode}.",
                log=(done.stdout + done.stderr)[-2000:],
            )

    def _kept_port(self) -> int:
        kept = self.root / "port"
        wanted = [int(kept.read_text())] if kept.exists() else []
        return next((port for port in wanted if _is_free(port)), 0) or _free_port()

    def _answers(self) -> bool:
        try:
            with socket.create_connection((_ADDRESS, self.port), timeout=1):
                return True
        except OSError:
            return False


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # Connections of the last run that wait out their end do not count, as for smbd itself.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_ADDRESS, port))
        except OSError:
            return False
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_ADDRESS, 0))
        return int(probe.getsockname()[1])


def _tool(name: str) -> str:
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if found is None:
        raise MissingTool(f"Cannot start the file server: '{name}' is not installed.", tool=name)
    return found
