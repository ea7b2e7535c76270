"""``engine.pyz JOB.json REPORT.json [--payload FOLDER]``: one job in, one report out.

Exit code 0 whenever a report was written, whatever it says; 2 when the job could not be read.
"""

from __future__ import annotations

import argparse
import os
import pkgutil
import sys
import time
from dataclasses import replace
from pathlib import Path

from imageport.compose.contract import EngineJob, EngineReport, job_from_json
from imageport.compose.engine_run import run_job
from imageport.errors import ImageportError


def main(arguments: list[str] | None = None) -> int:
    """Run the engine."""
    parser = argparse.ArgumentParser(prog="engine.pyz", description=__doc__)
    parser.add_argument("job", type=Path)
    parser.add_argument("report", type=Path)
    parser.add_argument("--payload", type=Path, default=None)
    args = parser.parse_args(arguments)
    started = time.monotonic()
    try:
        job = job_from_json(args.job.read_bytes())
    except (OSError, ValueError) as error:
        log(f"cannot read the job: {error}")
        return 2
    report = _report(job, args.payload)
    report = replace(report, engine_id=engine_id(), seconds=round(time.monotonic() - started, 1))
    partial = args.report.with_name(args.report.name + ".part")
    partial.write_text(report.to_json(), encoding="utf-8")
    os.replace(partial, args.report)  # noqa: PTH105 - the report appears whole or not at all
    log(f"report written, ok={report.ok}")
    return 0


def log(sentence: str) -> None:
    """Say one sentence to whoever runs the engine."""
    sys.stderr.write(f"imageport-engine: {sentence}\n")
    sys.stderr.flush()


def engine_id() -> str:
    """Return the identity that the builder put into the zipapp; "" when run from a source tree."""
    try:
        data = pkgutil.get_data("imageport.compose", "engine_id.txt")
    except OSError:
        return ""
    return (data or b"").decode("ascii").strip()


def _report(job: EngineJob, payload: Path | None) -> EngineReport:
    log(f"{job.action} for run '{job.run}'")
    try:
        return run_job(job, payload, log)
    except ImageportError as error:
        return EngineReport(action=job.action, ok=False, error=str(error))
    except Exception as error:  # the border of the process: the report must name what broke
        return EngineReport(
            action=job.action, ok=False, error=f"Cannot finish: {type(error).__name__}: {error}"
        )
