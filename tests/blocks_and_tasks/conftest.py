"""A Prefect server for the tests that save blocks or run tasks; most tests here need none."""

import os
from collections.abc import Iterator

import pytest
from prefect.settings import (
    PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
    PREFECT_RESULTS_LOCAL_STORAGE_PATH,
    temporary_settings,
)
from prefect.testing.utilities import prefect_test_harness

# SQLite has one writer; these background services would make every small flow wait for it.
_SILENT = ("EVENT_PERSISTER", "TRIGGERS", "SCHEDULER", "LATE_RUNS", "FOREMAN")


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    names = {f"PREFECT_SERVER_SERVICES_{name}_ENABLED": "false" for name in _SILENT}
    names |= {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(names)
    try:
        with prefect_test_harness(server_startup_timeout=240):
            results = tmp_path_factory.mktemp("results")
            changed = {
                PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None,  # its thread costs a second a flow
                PREFECT_RESULTS_LOCAL_STORAGE_PATH: results,
            }
            with temporary_settings(changed):
                yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
