"""How tests are collected and shared out among processes (``pytest -n 2 --dist loadfile``)."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Generator
from typing import Any

import pytest

ONE_PROCESS = (
    "tests/prefect/",
    "tests/blocks_and_tasks/",
    "tests/compose/first_boot/",
    "tests/sandbox/aws/",
)
"""Folders whose files share a server, or a Windows of Wine's, that takes long to start."""
MACHINE_TESTS = 40
"""What a test that needs a machine or a server counts for, in tests that do not."""


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Look for no garbage among what stays to the end: a third of the time went there."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put what takes longest first: a long file at the end leaves the other processes idle."""
    weights: Counter[str] = Counter()
    for item in items:
        marks = {mark.name for mark in item.iter_markers()}
        weights[scope_of(item.nodeid)] += MACHINE_TESTS if marks & {"guest", "prefect"} else 1
    items.sort(key=lambda item: (-weights[scope_of(item.nodeid)], scope_of(item.nodeid)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep together what shares a server, in the order of collection."""
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling  # noqa: PLC0415 - only there with a -n

    class Scheduling(LoadFileScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return scope_of(nodeid)

    config.option.loadscopereorder = False
    return Scheduling(config, log)


def scope_of(nodeid: str) -> str:
    """Return what runs in one process: a file, or a folder whose files share a server."""
    return next((folder for folder in ONE_PROCESS if nodeid.startswith(folder)), _file(nodeid))


def _file(nodeid: str) -> str:
    return nodeid.partition("::")[0]
