"""Installers are found, and hashed, once for a job: before the disk is looked at."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from imageport.compose import engine_run, installers
from imageport.compose.contract import (
    Action,
    EngineDisk,
    EngineJob,
    EngineOptions,
    EngineReport,
    Inspection,
    Installer,
)
from imageport.compose.steps.citrix.stage_installers import StageInstallers
from imageport.sandbox.sample.installer_package import sha256_of, write_installer


def installer_in(payload: Path) -> Installer:
    path = write_installer(payload / "citrix", "pvs_target", "2407.0.0.10")
    return Installer("pvs_target", "pvs-target", "2407", sha256_of(path), f"citrix/{path.name}")


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of the files that are hashed, as they are."""
    names: list[str] = []

    def file_digest(file: Any, kind: str) -> Any:
        names.append(Path(file.name).name)
        return hashlib.file_digest(file, kind)

    monkeypatch.setattr(installers, "hashlib", SimpleNamespace(file_digest=file_digest))
    return names


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return what a job knows when the disk is opened; there is none."""
    known: dict[str, Any] = {}

    @contextmanager
    def open_guest(path: str, *, writable: bool) -> Iterator[None]:
        known.update(path=path, writable=writable)
        yield

    def run(guest: None, work: Any, refusals: list[Any]) -> EngineReport:
        known.update(guest=guest, work=work, refusals=[item.code for item in refusals])
        return EngineReport(work.job.action, ok=not refusals, inspection=Inspection())

    monkeypatch.setattr(engine_run, "open_guest", open_guest)
    monkeypatch.setattr(engine_run, "_run", run)
    return known


@pytest.mark.parametrize(
    ("action", "is_right", "found", "refusals"),
    [
        (Action.COMPOSE, True, 1, []),
        (Action.PLAN, False, 0, ["installer"]),
        (Action.VERIFY, False, 0, []),
    ],
)
def test_a_job_knows_its_installers_before_it_looks_at_the_disk(
    tmp_path: Path,
    seen: dict[str, Any],
    hashed: list[str],
    *,
    action: Action,
    is_right: bool,
    found: int,
    refusals: list[str],
) -> None:
    installer = installer_in(tmp_path)
    chosen = installer if is_right else replace(installer, sha256="0" * 64)
    job = EngineJob(action, EngineDisk("disk.raw", ""), EngineOptions(installers=(chosen,)))
    engine_run.run_job(job, tmp_path, list[str]().append)
    assert [package.installer for package in seen["work"].installers] == [installer] * found
    assert seen["refusals"] == refusals
    assert len(hashed) == (0 if action is Action.VERIFY else 1)


def test_the_step_takes_what_was_found(guest: Any, hashed: list[str]) -> None:
    options = EngineOptions(rearm="off", installers=(installer_in(guest.payload),))
    with ExitStack() as stack:
        facts = guest.facts(guest.registry(stack), options)
        assert len(hashed) == 1
        StageInstallers().guest_problems(facts)
        assert len(hashed) == 1
