"""An emulated Compute Engine in this process, asked by Google's own client."""

from __future__ import annotations

import itertools
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from google.api_core.exceptions import GoogleAPICallError
from google.cloud import compute_v1
from google.oauth2.credentials import Credentials

from imageport.model import GIB
from imageport.sandbox.gcp.account import (
    BUCKET,
    ENGINE_IMAGE,
    NETWORK,
    PROJECT,
    REGION,
    SUBNET,
    ZONE,
)
from imageport.sandbox.gcp.knobs import Knobs
from tests.sandbox.gcp.gcs_lab import GcsLab

Json = dict[str, Any]
FEATURES = ("WINDOWS", "UEFI_COMPATIBLE", "GVNIC")
MACHINE_TYPES = f"projects/{PROJECT}/zones/{ZONE}/machineTypes"
PLACES: dict[str, Json] = {
    "global": {"project": PROJECT},
    "zone": {"project": PROJECT, "zone": ZONE},
    "region": {"project": PROJECT, "region": REGION},
}
DENIED = [{"I_p_protocol": "all"}]
CLOSED: dict[str, Json] = {
    "in": {"direction": "INGRESS", "source_ranges": ["0.0.0.0/0"], "denied": DENIED},
    "out": {"direction": "EGRESS", "destination_ranges": ["0.0.0.0/0"], "denied": DENIED},
}
"""Rules that let nothing through."""
_NUMBERS = itertools.count(1)


class GceLab:
    """The clients, and what a test makes with them."""

    def __init__(self, root: Path, keys: Path, **knobs: Any) -> None:
        self.root = root
        self.gcs = GcsLab(root, keys, **({"state_seconds": 0.01} | knobs))
        self.knobs = self.gcs.knobs
        self._clients: dict[str, Any] = {}

    def close(self) -> None:
        self.gcs.close()

    def calm(self) -> None:
        """Turn every knob back."""
        self.knobs.turn({name: getattr(Knobs(), name) for name in Knobs.__dataclass_fields__})
        self.knobs.state_seconds = 0.01

    def client(self, kind: str, token: str = "") -> Any:
        """Return Google's client of a kind, ``Images``."""
        key = kind + token
        if key not in self._clients:
            maker = getattr(compute_v1, f"{kind}Client")
            given = token or self.gcs.bearer().removeprefix("Bearer ")
            credentials = Credentials(given)
            transport = maker.get_transport_class("rest")(
                host=self.gcs.endpoint, credentials=credentials
            )
            self._clients[key] = maker(transport=transport)
        return self._clients[key]

    def ask(self, kind: str, method: str, place: str = "zone", **given: Any) -> Any:
        """Call a method once; an operation is waited for."""
        name = f"{method}_unary" if hasattr(self.client(kind), f"{method}_unary") else method
        answer = getattr(self.client(kind), name)(PLACES[place] | given, retry=None)
        return self.wait(answer) if isinstance(answer, compute_v1.Operation) else answer

    def wait(self, operation: Any) -> Any:
        """Wait for an operation and return it as it ended."""
        zonal = bool(operation.zone)
        client = self.client("ZoneOperations" if zonal else "GlobalOperations")
        return client.wait(PLACES["zone" if zonal else "global"] | {"operation": operation.name})

    def made(self, kind: str, method: str, place: str = "zone", **given: Any) -> Any:
        """Call a method whose operation has to succeed."""
        done = self.ask(kind, method, place, **given)
        assert not done.error.errors, done.error
        return done

    def name(self, word: str = "thing") -> str:
        return f"{word}-{next(_NUMBERS)}"

    def disk(self, fill: bytes = b"a disk that boots", **facts: Any) -> str:
        """Make a disk of 1 GiB that begins so; return its path."""
        name = self.name("disk")
        body = {
            "name": name, "size_gb": 1, "guest_os_features": [{"type_": item} for item in FEATURES],
        } | facts  # fmt: skip
        self.made("Disks", "insert", disk_resource=body)
        path = f"projects/{PROJECT}/zones/{ZONE}/disks/{name}"
        with self.file("disks", name).open("r+b") as file:
            file.write(fill)
        return path

    def file(self, kind: str, name: str) -> Path:
        """Return where the emulator keeps the bytes of a disk or image."""
        place = f"zones/{ZONE}" if kind == "disks" else "global"
        documents = [
            document
            for path, document in self.compute.table.of_type(kind)
            if path == f"projects/{PROJECT}/{place}/{kind}/{name}"
        ]
        return self.compute.file(documents[0])

    @property
    def compute(self) -> Any:
        return self.gcs._server.application._gce._compute

    def machine_body(self, disk: str = "", **facts: Any) -> Json:
        """Return the body of a machine: of the engine's image, or with a disk to boot."""
        boot: Json = {"boot": True, "auto_delete": True}
        boot |= {"source": disk, "auto_delete": False} if disk else {
            "initialize_params": {"source_image": ENGINE_IMAGE}
        }  # fmt: skip
        return {
            "name": self.name("machine"),
            "machine_type": f"{MACHINE_TYPES}/n2-standard-2",
            "disks": [boot],
            "network_interfaces": [{"subnetwork": SUBNET}],
            "scheduling": {"automatic_restart": False},
        } | facts

    def machine(self, disk: str = "", **facts: Any) -> str:
        """Make a machine; return its name."""
        body = self.machine_body(disk, **facts)
        self.made("Instances", "insert", instance_resource=body)
        return str(body["name"])

    def status(self, machine: str) -> str:
        return str(self.ask("Instances", "get", instance=machine).status)

    def rule(self, side: str, tag: str, **facts: Any) -> str:
        """Make a firewall rule for a tag; return its name."""
        name = self.name("rule")
        body = {"name": name, "network": NETWORK, "priority": 0, "target_tags": [tag]}
        self.made("Firewalls", "insert", "global", firewall_resource=body | CLOSED[side] | facts)
        return name

    def put(self, data: bytes) -> str:
        """Put an object; return its URL as Compute Engine wants it."""
        name = self.name("archives/one")
        assert self.gcs.put(f"{name}.tar.gz", data).status == 200
        return f"https://storage.googleapis.com/{BUCKET}/{name}.tar.gz"

    def image_body(self, url: str = "", **facts: Any) -> Json:
        body: Json = {"name": self.name("image")}
        if url:
            body["raw_disk"] = {"source": url, "container_type": "TAR"}
        return body | facts


@contextmanager
def refused(
    status: int, reason: str, text: str = ""
) -> Iterator[pytest.ExceptionInfo[GoogleAPICallError]]:
    """Expect an answer of this status with Google's word for it."""
    with pytest.raises(GoogleAPICallError) as caught:
        yield caught
    error = caught.value
    assert error.code == status, error
    words = [item["reason"] for item in error.response.json()["error"]["errors"]]
    assert words == [reason], error
    assert text in str(error)


def raw_disk(folder: Path, parts: dict[int, bytes], size_bytes: int = GIB) -> Path:
    """Write a sparse disk.raw with bytes at some offsets."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "disk.raw"
    with path.open("wb") as file:
        file.truncate(size_bytes)
        for offset, data in parts.items():
            file.seek(offset)
            file.write(data)
    return path


def packed(
    folder: Path, *members: str, options: tuple[str, ...] = ("--format=oldgnu", "-S")
) -> bytes:
    """Return what GNU tar makes of files, without compression."""
    argv = ["tar", *options, "-C", str(folder), "-cf", "-", *(members or ("disk.raw",))]
    return subprocess.run(argv, check=True, capture_output=True).stdout


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.03)


def console(lab: GceLab, machine: str, **given: Any) -> Any:
    return lab.ask("Instances", "get_serial_port_output", instance=machine, **given)
