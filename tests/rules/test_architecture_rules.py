"""Rules of the tree that no tool checks for us."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("src/imageport", "flows", "tasks", "blocks")
SOURCES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
FORBIDDEN_NAMES = {"utils.py", "helpers.py", "common.py", "manager.py"}


def test_layers_hold_and_the_library_never_imports_prefect() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_is_longer_than_six_hundred_lines(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 600


def test_modules_are_named_for_what_they_hold() -> None:
    assert not [path for path in SOURCES if path.name in FORBIDDEN_NAMES]


def test_no_module_lies_beside_a_folder_of_its_name() -> None:
    assert not [path for path in SOURCES if path.with_suffix("").is_dir()]


def test_flows_shadow_neither_packages_nor_the_standard_library() -> None:
    taken = set(sys.stdlib_module_names) | {"imageport", "flows", "tasks", "blocks", "tests"}
    assert not [path for path in (ROOT / "flows").glob("*.py") if path.stem in taken]


def test_the_guest_player_imports_nothing_of_the_product() -> None:
    for path in (ROOT / "src/imageport/sandbox/guest_player").rglob("*.py"):
        lines = path.read_text().splitlines()
        imports = [line for line in lines if line.startswith(("import ", "from "))]
        foreign = [line for line in imports if "imageport" in line]
        own = [line for line in foreign if "imageport.sandbox.guest_player" in line]
        assert foreign == own, path


def test_the_engine_imports_the_standard_library_and_guestfs_only() -> None:
    host_side = {"build_engine.py", "site_engine.py", "report_page.py"}
    allowed = set(sys.stdlib_module_names) | {"imageport", "guestfs", "__future__"}
    for path in (ROOT / "src/imageport/compose").rglob("*.py"):
        if path.name in host_side:
            continue
        for line in path.read_text().splitlines():
            words = line.split()
            if len(words) > 1 and words[0] in {"import", "from"} and line[0] != " ":
                assert words[1].split(".")[0] in allowed, f"{path}: {line}"


def test_nothing_that_looks_or_changes_imports_the_verdict() -> None:
    """A verdict judges what steps made; what both need has a module of its own."""
    engine = ROOT / "src/imageport/compose"
    for folder in ("drivers", "guest_facts", "hives", "steps", "volumes"):
        for path in (engine / folder).rglob("*.py"):
            assert "imageport.compose.verdict" not in path.read_text(), path
