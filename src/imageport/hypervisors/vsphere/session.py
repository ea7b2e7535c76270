# References: vSphere Web Services API: SessionManager, PropertyCollector; vimServiceVersions.xml.
"""One login at a vCenter, shared by threads, renewed when it expires."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from pyVmomi import vim, vmodl
from pyVmomi.SoapAdapter import SoapStubAdapter
from pyVmomi.VmomiSupport import GetServiceVersions, versionIdMap

from imageport.errors import HypervisorRefused, HypervisorUnreachable, ImageportError
from imageport.hypervisors.http_stream import ask
from imageport.hypervisors.tls_trust import TlsTrust, TrustedConnection
from imageport.hypervisors.vsphere.faults import asking, error_of
from imageport.hypervisors.vsphere.settings import VsphereSettings
from imageport.model import MIB

COOKIE_NAME = "vmware_soap_session"
_VERSIONS_PATH = "/sdk/vimServiceVersions.xml"
_VERSIONS_BYTES = MIB
"""Some KiB in reality."""
_OLDEST = "vim.version.version9"
"""vSphere 5.5: the first that exports from a snapshot."""
_IDLE_SECONDS = 20
"""A connection idle for longer is made anew: servers close them without a word."""
_PAGE_OBJECTS = 500
_RENEWALS = 2
"""A call that another thread made while this one logged in may bring back the cookie of nobody,
which the client takes for the session's."""

_Result = TypeVar("_Result")
Facts = dict[str, Any]


class VsphereSession:
    """A login; made at the first call, made again when the server has forgotten it."""

    def __init__(self, settings: VsphereSettings) -> None:
        self.settings = settings
        self.trust = settings.trust()
        self._lock = threading.RLock()
        self._stub: Any = None
        self._content: Any = None
        self._key = ""
        self._logins = 0

    @property
    def content(self) -> Any:
        """Return the service's content (``vim.ServiceInstanceContent``); connects."""
        self._ensure()
        return self._content

    @property
    def key(self) -> str:
        """Return what the server calls the session; for questions about its privileges."""
        self._ensure()
        return self._key

    def cookie(self) -> Mapping[str, str]:
        """Return the header by which a datastore knows the session; a secret."""
        self._ensure()
        with self._lock:
            session = self._stub.GetSessionId() if self._stub is not None else ""
        return {"Cookie": f'{COOKIE_NAME}="{session}"'}

    def managed(self, kind: type[_Result], reference: str) -> _Result:
        """Return a managed object by its type and reference."""
        self._ensure()
        return kind(reference, self._stub)  # type: ignore[call-arg]

    def connect(
        self, host: str = "", port: int = 0, trust: TlsTrust | None = None
    ) -> TrustedConnection:
        """Return a connection to the vCenter, or to a host with its own rule of trust."""
        return TrustedConnection(
            host or self.settings.address,
            port or self.settings.port,
            trust if trust is not None else self.trust,
            proxy=self.settings.proxy,
        )

    def call(self, doing: str, work: Callable[[], _Result], *, repeats: bool = True) -> _Result:
        """Ask something; again after a new login, and where it ``repeats`` on a new connection.

        ``doing`` is for errors: ``take a snapshot of '/DC/vm/gold'``.
        """
        server = self.settings.location
        with asking(doing, server=server):
            self._ensure()
            if not repeats:
                # Never on a connection that the server may have closed meanwhile: that would fail,
                # and nobody could say whether it was done.
                self._stub.DropConnections()
            try:
                return self._logged_in(work)
            except OSError:
                # The server closed a connection of the pool: the client has dropped all of them.
                if not repeats:
                    raise
            return self._logged_in(work)

    def renew(self, logins: int | None = None) -> None:
        """Log in again, unless another thread did since there were ``logins`` of them."""
        with self._lock:
            if logins is None or logins == self._logins:
                with asking("log in again", server=self.settings.location):
                    self._login()

    def read(self, doing: str, objects: Iterable[Any], paths: list[str]) -> dict[Any, Facts]:
        """Return properties of managed objects of one type; what there is not is left out."""
        wanted = list(objects)
        if not wanted:
            return {}
        spec = vmodl.query.PropertyCollector.FilterSpec(
            objectSet=[vmodl.query.PropertyCollector.ObjectSpec(obj=one) for one in wanted],
            propSet=[
                vmodl.query.PropertyCollector.PropertySpec(type=type(wanted[0]), pathSet=paths)
            ],
        )
        return self.call(doing, lambda: self._collect(spec))

    def read_one(self, doing: str, one: Any, paths: list[str]) -> Facts:
        """Return properties of one managed object; `VmMissing` when it is gone."""
        return self.read(doing, [one], paths).get(one, {})

    def wait_for_task(self, doing: str, task: Any, *, deadline_seconds: float) -> Any:
        """Wait for a task's end and return its result.

        Asks for its state only: vcsim gives some tasks an entity that the client cannot read.
        """
        pause, deadline = 0.05, time.monotonic() + deadline_seconds
        while True:
            facts = self.read_one(doing, task, ["info.state", "info.error", "info.result"])
            state = facts.get("info.state")
            if state == vim.TaskInfo.State.success:
                return facts.get("info.result")
            if state == vim.TaskInfo.State.error:
                raise error_of(facts.get("info.error"), doing)
            if time.monotonic() > deadline:
                raise HypervisorUnreachable(
                    f"Cannot {doing}: its task is still '{state}' after {deadline_seconds:.0f} s."
                )
            time.sleep(pause)
            pause = min(pause * 1.5, 2.0)

    def close(self) -> None:
        """Log out; may be called twice."""
        with self._lock:
            stub, content = self._stub, self._content
            self._stub = self._content = None
            self._key = ""
        if stub is None:
            return
        with (
            contextlib.suppress(ImageportError),  # a session that is gone needs no logout
            asking("log out", server=self.settings.location),
        ):
            content.sessionManager.Logout()
        stub.end()

    def _logged_in(self, work: Callable[[], _Result]) -> _Result:
        for _ in range(_RENEWALS):
            logins = self._logins
            try:
                return work()
            except vim.fault.NotAuthenticated:
                self.renew(logins)
        return work()

    def _ensure(self) -> None:
        with self._lock:
            if self._stub is None:
                with asking("log in", server=self.settings.location):
                    self._stub = _TrustedStub(self, self._version())
                    try:
                        self._content = vim.ServiceInstance(
                            "ServiceInstance", self._stub
                        ).RetrieveContent()
                        self._login()
                    except BaseException:
                        self._stub.DropConnections()
                        self._stub = None
                        raise

    def _login(self) -> None:
        settings = self.settings
        stub = self._stub
        if stub is None:
            return
        stub.SetSessionId("")
        session = self._content.sessionManager.Login(settings.username, settings.password, None)
        self._key = str(session.key)
        self._logins += 1

    def _version(self) -> str:
        """Return the newest version of the interface that both sides know."""
        connection = self.connect()
        try:
            response = ask(connection, "GET", _VERSIONS_PATH, {}, server=self.settings.location)
            text = response.read(_VERSIONS_BYTES) if response.status == 200 else b""
        finally:
            connection.close()
        spoken: set[str] = set()
        for namespace in re.findall(rb"<namespace>(.*?)</namespace>", text, re.DOTALL):
            if b"<name>urn:vim25</name>" in namespace:
                found = re.findall(rb"<version>([\w.]{1,40})</version>", namespace)
                spoken.update(version.decode() for version in found)
        known = GetServiceVersions("vim25")  # newest first
        for name in known[: known.index(_OLDEST) + 1]:
            if versionIdMap[name] in spoken:
                return str(name)
        if not spoken:
            raise HypervisorUnreachable(
                f"Cannot log in: '{self.settings.location}' is no vCenter and no ESXi host: it "
                f"answers {response.status} to {_VERSIONS_PATH}."
            )
        raise HypervisorRefused(
            f"Cannot log in: '{self.settings.location}' speaks versions up to "
            f"{max(spoken)[:20]} of the vSphere API, needed {versionIdMap[_OLDEST]} or newer."
        )

    def _collect(self, spec: Any) -> dict[Any, Facts]:
        collector = self._content.propertyCollector
        options = vmodl.query.PropertyCollector.RetrieveOptions(maxObjects=_PAGE_OBJECTS)
        page = collector.RetrievePropertiesEx([spec], options)
        found: dict[Any, Facts] = {}
        while page is not None:
            for one in page.objects:
                found[one.obj] = {prop.name: prop.val for prop in one.propSet}
                for missing in one.missingSet or []:
                    # A server that does not know us any more says so property by property.
                    if isinstance(missing.fault, vim.fault.NotAuthenticated):
                        raise missing.fault
            if not page.token:
                break
            page = collector.ContinueRetrievePropertiesEx(page.token)
        return found


class _TrustedStub(SoapStubAdapter):
    """pyVmomi's stub on connections that check their server; its own check is not enough."""

    def __init__(self, session: VsphereSession, version: str) -> None:
        super().__init__(  # type: ignore[no-untyped-call]
            host=session.settings.address,
            port=session.settings.port,
            version=version,
            connectionPoolTimeout=_IDLE_SECONDS,
        )
        self._session = session
        self._ended = False

    def end(self) -> None:
        """Close all connections, also those that calls under way in other threads return."""
        self._ended = True
        self.DropConnections()  # type: ignore[no-untyped-call]

    def GetConnection(self) -> Any:  # noqa: N802 - pyVmomi's name
        """Return a connection of the pool or a new one, connected and checked."""
        with self.lock:
            self._CloseIdleConnections()  # type: ignore[no-untyped-call]
            if self.pool:
                return self.pool.pop(0)[0]
        connection = self._session.connect()
        connection.connect()
        return connection

    def ReturnConnection(self, conn: Any) -> None:  # noqa: N802 - pyVmomi's name
        """Keep a connection for the next call."""
        super().ReturnConnection(conn)  # type: ignore[no-untyped-call]
        if self._ended:  # asked afterwards: whoever ended meanwhile has not seen this one
            self.DropConnections()  # type: ignore[no-untyped-call]

    def __repr__(self) -> str:
        return f"stub of '{self._session.settings.location}'"
