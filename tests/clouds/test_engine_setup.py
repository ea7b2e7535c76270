"""What is made of an engine machine's report, whatever stands in it and whatever is missing."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from imageport.cloud import CloudDisk
from imageport.clouds.engine_setup import LOG, ReportWatch
from imageport.errors import CloudRefused, CloudUnavailable, EngineFailed

RUN: Any = SimpleNamespace(
    disk=CloudDisk("disk-1", 2**30, "guid"), action="compose", deadline_seconds=5.0
)


class Folder:
    """The folder of a job in which only the log is, or an error in its place."""

    def __init__(self, log: bytes | Exception | None = None) -> None:
        self.log = log

    def read(self, name: str) -> bytes | None:
        found = self.log if name == LOG else None
        if isinstance(found, Exception):
            raise found
        return found


def watch(log: bytes | Exception | None = None) -> ReportWatch:
    folder: Any = Folder(log)
    return ReportWatch(RUN, folder, "machine-1", lambda: "the machine is gone")


def silent() -> str:
    raise CloudRefused("no console")


@pytest.mark.parametrize(
    ("log", "told"),
    [
        (b"what the machine wrote", "what the machine wrote"),
        (None, "(no console text: no console)"),
        (CloudUnavailable("no bucket"), "(no log: no bucket)"),
        (CloudRefused("too long"), "(no log: too long)"),
    ],
)
def test_a_job_without_a_report_fails_as_one_although_its_log_cannot_be_read(log: Any, told: str):
    watching = watch(log)
    assert watching.check() is None
    assert watching.check() == b""
    with pytest.raises(
        EngineFailed, match="Cannot compose 'disk-1': the machine is gone"
    ) as caught:
        watching.report(b"", silent)
    assert caught.value.fields["log"] == told


@pytest.mark.parametrize("report", [b"{", b"[]", b"\xff", b"[" * 100_000])
def test_a_report_that_cannot_be_read_is_the_failure_of_its_machine(report: bytes):
    with pytest.raises(EngineFailed, match="Cannot compose 'disk-1'") as caught:
        watch(b"log").report(report, silent)
    assert caught.value.fields["log"] == "log"
