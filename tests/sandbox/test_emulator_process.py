"""What the processes of all emulated clouds have in common: place, pages, knobs, record."""

from __future__ import annotations

import io
import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from imageport.sandbox.azure import operations as azure_operations
from imageport.sandbox.control_pages import ControlPages
from imageport.sandbox.emulator_process import PORT_FILE, endpoint_of, listen
from imageport.sandbox.gcp import gce_operations
from imageport.sandbox.gcp.call_record import CallRecord
from imageport.sandbox.gcp.knobs import Knobs
from imageport.sandbox.http_server import WsgiServer
from imageport.sandbox.machines.hypervisor import Hypervisor


def silent(_environ: dict[str, Any], _start_response: Any) -> list[bytes]:
    return []


def port_of(root: Path) -> int:
    """Listen, stop, and return the port."""
    server = listen(root, silent)
    server.server_close()
    assert endpoint_of(server) == f"http://127.0.0.1:{server.server_port}"
    return server.server_port


def test_a_process_listens_where_the_one_before_it_did(tmp_path: Path):
    assert port_of(tmp_path) == port_of(tmp_path)


def test_a_port_that_was_taken_meanwhile_is_left_to_whoever_has_it(tmp_path: Path):
    other = WsgiServer(0, silent)
    try:
        (tmp_path / PORT_FILE).write_text(str(other.server_port))
        found = port_of(tmp_path)
        assert found != other.server_port
        assert (tmp_path / PORT_FILE).read_text() == str(found)
    finally:
        other.server_close()


@pytest.mark.parametrize("left", ["", "no number"])
def test_a_port_file_that_a_killed_process_left_half_written_is_no_obstacle(
    tmp_path: Path, left: str
):
    (tmp_path / PORT_FILE).write_text(left)
    assert port_of(tmp_path) > 0


class Emulated:
    """What the pages show."""

    def __init__(self, root: Path) -> None:
        self.knobs = Knobs()
        self.calls = CallRecord()
        self.hypervisor = Hypervisor(root, self.knobs, "gcp")
        self.pages = ControlPages(self, self.calls.document, {"more": lambda: [1, 2]})

    def ask(self, method: str, name: str, body: bytes = b"") -> tuple[str, Any]:
        said: list[str] = []
        environ = {
            "REQUEST_METHOD": method,
            "PATH_INFO": f"/imageport/{name}",
            "CONTENT_LENGTH": str(len(body)),
            "wsgi.input": io.BytesIO(body),
        }
        answer = self.pages(environ, lambda status, _headers: said.append(status))
        return said[0], json.loads(b"".join(answer))


def test_a_page_shows_and_only_its_own_method_changes(tmp_path: Path):
    emulated = Emulated(tmp_path / "machines")
    emulated.calls.record("compute.images.get")
    for name, needed in (
        ("health", "ok"), ("machines", []), ("violations", []), ("more", [1, 2]),
    ):  # fmt: skip
        assert emulated.ask("GET", name) == ("200 OK", needed)
    assert emulated.ask("GET", "calls")[1]["permissions"] == ["compute.images.get"]
    assert emulated.ask("DELETE", "calls")[1]["permissions"] == []
    assert emulated.ask("GET", "knobs", b'{"fault_rate": 1.0}')[1]["fault_rate"] == 0.0
    assert emulated.ask("POST", "knobs", b'{"fault_rate": 1.0}')[1]["fault_rate"] == 1.0
    assert emulated.knobs.fault_rate == 1.0
    assert emulated.ask("GET", "nothing") == ("404 Not Found", {})


@pytest.mark.parametrize("body", [b'{"fault_rat": 1.0}', b"no json"])
def test_knobs_that_do_not_exist_turn_nothing(tmp_path: Path, body: bytes):
    emulated = Emulated(tmp_path / "machines")
    assert emulated.ask("POST", "knobs", body)[0] == "400 Bad Request"
    assert emulated.knobs == Knobs()


def test_a_counted_fault_is_used_up_once_however_many_ask_for_it():
    knobs = Knobs(lost_answers=500)
    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(lambda _: knobs.take("lost_answers"), range(2000)))
    assert (taken.count(True), knobs.lost_answers) == (500, 0)


def _azure(finish: Callable[[], Any], failed: Callable[[], None]) -> Any:
    return azure_operations.Operations(threading.RLock()).begin("x/y", 0.0, finish, failed)


def _google(finish: Callable[[], Any], failed: Callable[[], None]) -> Any:
    operation = gce_operations.Operation("projects/p", "insert", "projects/p/x/y", "1", "user")
    work = gce_operations.Work(finish, failed)
    return gce_operations.Operations(threading.RLock()).run(operation, 0.0, work)


@pytest.mark.parametrize("begin", [_azure, _google])
def test_an_operation_ends_although_it_cannot_be_undone(
    monkeypatch: pytest.MonkeyPatch, begin: Callable[..., Any]
):
    said: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", said.append)

    def fail() -> None:
        raise RuntimeError("a defect")

    operation = begin(fail, fail)
    end = time.monotonic() + 10
    while not (operation.ended and said):
        assert time.monotonic() < end
        time.sleep(0.01)
    assert operation.error is not None
    assert [item.exc_type for item in said] == [RuntimeError]
