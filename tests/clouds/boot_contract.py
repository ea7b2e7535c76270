"""What the one boot promises in every cloud; one suite, as `tests.clouds.cloud_contract`."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import pytest

from imageport.cloud import CloudDisk
from imageport.clouds import boot_console
from imageport.clouds.sweep import sweep
from imageport.errors import InputError, PermissionMissing, TransferCancelled
from imageport.progress import Event
from tests.clouds.cloud_contract import BLOCKS, SITE, Killed, disk_of, ids, in_days
from tests.clouds.machine_lab import ChooseGuest, DiesAt, MachineLab, killed
from tests.clouds.stand_in_guest import guest_of

DEADLINE_SECONDS = 60.0


def die_at_the_console(event: Event) -> None:
    """Kill the process when the guest has said something."""
    if event.note.startswith("console:"):
        raise Killed(event.note)


class BootOnceContract(ABC):
    """The suite; a cloud's class says how its machine has to look."""

    @pytest.fixture
    def lab(self) -> MachineLab:
        raise NotImplementedError

    @abstractmethod
    def look(self, lab: MachineLab, machine: str) -> Any:
        """Return what the cloud shows of a machine that is about to boot."""

    @abstractmethod
    def check_alone(self, seen: Any) -> None:
        """Fail unless that machine reaches nothing, is nobody and leaves its disk alone."""

    @pytest.fixture(autouse=True)
    def quick_console(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(boot_console, "PAUSE_SECONDS", 0.5)

    @pytest.fixture
    def guest(self, lab: MachineLab, tmp_path: Path) -> ChooseGuest:
        return guest_of(lab.service, tmp_path)

    # --- a guest that works ---------------------------------------------------------------------

    def test_the_guest_boots_alone_from_the_disk_and_only_the_disk_remains(
        self, lab: MachineLab, guest: ChooseGuest
    ):
        guest("work")
        cloud = lab.cloud_with("run-1", **lab.boot_settings)
        disk, before = disk_of(cloud), lab.started()
        seen: list[Any] = []
        events: list[Event] = []

        def watch(event: Event) -> None:
            events.append(event)
            words = event.note.split()
            if "machine" in words[:2]:
                seen.append(self.look(lab, words[words.index("machine") + 1]))

        outcome = cloud.boot_once(disk, deadline_seconds=DEADLINE_SECONDS, events=watch)
        assert (outcome.stopped_by_itself, outcome.reason) == (True, "")
        assert f"guest sees {BLOCKS[0][:8].hex()}" in outcome.console_text
        assert "imageport-firstboot: done" in outcome.console_text
        assert events[-1].note.startswith("shut down by itself after")
        assert lab.only_disk_is_left(disk)
        assert len(lab.started() - before) == 1
        assert lab.service.violations() == []
        [machine] = seen
        self.check_alone(machine)
        if lab.reads_disks:
            with cloud.open_snapshot(cloud.snapshot(disk, "P")) as opened:
                assert opened.read_at(1024, 6) == b"booted"

    @pytest.mark.slow
    def test_a_second_boot_never_takes_up_the_machine_of_the_first(
        self, lab: MachineLab, guest: ChooseGuest
    ):
        guest("work")
        cloud = lab.cloud("run-1")
        disk, before = disk_of(cloud), lab.started()
        for _ in range(2):
            assert cloud.boot_once(disk, deadline_seconds=DEADLINE_SECONDS).stopped_by_itself
            assert lab.only_disk_is_left(disk)
        assert len(lab.started() - before) == 2

    # --- a guest that does not come to an end -----------------------------------------------------

    def test_a_guest_that_hangs_is_switched_off_with_console_and_screenshot(
        self, lab: MachineLab, guest: ChooseGuest
    ):
        guest("hang")
        cloud = lab.cloud("run-1")
        outcome = cloud.boot_once(disk_of(cloud), deadline_seconds=4)
        assert not outcome.stopped_by_itself
        assert outcome.reason.startswith("still running after 4 s; screenshot at ")
        assert "?" not in outcome.reason  # an address that is signed is a secret
        assert "STOP: 0x0000007B" in outcome.console_text
        assert lab.saved(outcome.reason).startswith((b"\xff\xd8", b"BM"))  # JPEG, BMP
        left = sorted(item.kind for item in cloud.list_ours(SITE))
        # The screenshot stays until its expiry.
        assert left == sorted([lab.disk_kind, "object", "snapshot"])
        assert not any(item["busy"] for item in lab.service.machines())
        sweep(lab.cloud("sweep"), lab.state, SITE, in_days(2))
        assert cloud.list_ours(SITE) == []
        assert lab.leftovers() == []

    @pytest.mark.slow
    @pytest.mark.parametrize("act", ["stop", "delete"])
    def test_a_machine_that_a_person_ends_did_not_finish(
        self, lab: MachineLab, guest: ChooseGuest, act: str
    ):
        guest("hang")
        cloud = lab.cloud("run-1")
        disk = disk_of(cloud)
        asked: list[str] = []

        def end(event: Event) -> None:
            if event.note.startswith("console:") and not asked:
                asked.append(act)
                lab.end_machine(act)

        outcome = cloud.boot_once(disk, deadline_seconds=DEADLINE_SECONDS, events=end)
        assert not outcome.stopped_by_itself
        assert re.match(lab.endings[act], outcome.reason)
        assert lab.only_disk_is_left(disk)

    def test_a_cancelled_boot_frees_the_disk(self, lab: MachineLab, guest: ChooseGuest):
        guest("hang")
        cloud = lab.cloud("run-1")
        disk = disk_of(cloud)
        notes: list[str] = []
        with pytest.raises(TransferCancelled):
            cloud.boot_once(
                disk,
                deadline_seconds=DEADLINE_SECONDS,
                events=lambda event: notes.append(event.note),
                cancelled=lambda: any(note.startswith("console:") for note in notes),
            )
        assert lab.only_disk_is_left(disk)

    # --- a worker that is killed ------------------------------------------------------------------

    def test_a_killed_run_takes_up_its_machine(self, lab: MachineLab, guest: ChooseGuest):
        guest("work")
        disk, before = disk_of(lab.cloud("run-1")), lab.started()
        dying = lab.cloud_with("run-1", ledger=DiesAt(lab, lab.boot_ids[-1], after=True))
        with killed():
            dying.boot_once(disk, deadline_seconds=DEADLINE_SECONDS)
        outcome = lab.cloud("run-1").boot_once(disk, deadline_seconds=DEADLINE_SECONDS)
        assert outcome.stopped_by_itself
        assert len(lab.started() - before) == 1
        assert lab.only_disk_is_left(disk)

    @pytest.mark.slow
    def test_a_guest_in_the_middle_of_its_boot_is_waited_for_not_switched_off(
        self, lab: MachineLab, guest: ChooseGuest
    ):
        guest("slow")
        disk = disk_of(lab.cloud("run-1"))
        self._boot_killed_at_the_console(lab, disk)
        outcome = lab.cloud("run-1").boot_once(disk, deadline_seconds=DEADLINE_SECONDS)
        assert outcome.stopped_by_itself
        assert outcome.console_text.count("guest sees") == 1  # booted once, not twice
        assert lab.only_disk_is_left(disk)

    @pytest.mark.slow
    def test_what_a_killed_boot_left_is_swept_down_to_nothing(
        self, lab: MachineLab, guest: ChooseGuest
    ):
        guest("hang")
        cloud = lab.cloud("run-1")
        disk = disk_of(cloud)
        self._boot_killed_at_the_console(lab, disk)
        assert {item.kind for item in cloud.list_ours(SITE)} == lab.boot_kinds
        swept = sweep(lab.cloud("sweep"), lab.state, SITE, in_days(0), run="run-1")
        assert disk.id in ids(swept)
        self._nothing_is_left(lab)

    @pytest.mark.slow
    def test_whatever_was_made_for_the_boot_but_never_recorded_is_swept(
        self, lab: MachineLab, guest: ChooseGuest
    ):
        guest("work")
        cloud = lab.cloud("run-1")
        for pattern in lab.boot_ids:
            disk, known = disk_of(cloud), ids(cloud.list_ours(SITE))
            dying = lab.cloud_with("run-1", ledger=DiesAt(lab, pattern))
            with killed():
                dying.boot_once(disk, deadline_seconds=DEADLINE_SECONDS)
            made = {item for item in ids(cloud.list_ours(SITE)) - known if re.match(pattern, item)}
            assert made, pattern
            sweep(lab.cloud("sweep"), lab.state, SITE, in_days(2))
            self._nothing_is_left(lab)

    # --- what cannot be had -----------------------------------------------------------------------

    @pytest.mark.slow
    def test_a_denied_machine_frees_the_disk_and_names_the_permission(
        self, lab: MachineLab, guest: ChooseGuest
    ):
        guest("work")
        cloud = lab.cloud("run-1")
        disk = disk_of(cloud)
        lab.turn(denied=[lab.boot_denied])
        with pytest.raises(PermissionMissing, match=re.escape(f"lack {lab.boot_denied}")):
            cloud.boot_once(disk, deadline_seconds=DEADLINE_SECONDS)
        lab.turn(denied=[])
        assert lab.only_disk_is_left(disk)

    def test_a_boot_without_a_subnet_is_refused_before_anything_is_made(self, lab: MachineLab):
        cloud = lab.cloud_with("run-1", **{lab.subnet_setting: ""})
        with pytest.raises(InputError, match=lab.subnet_setting):
            cloud.boot_once(CloudDisk("x", 1, ""), deadline_seconds=1)
        assert lab.state.ledger.open_entries() == []

    def _boot_killed_at_the_console(self, lab: MachineLab, disk: CloudDisk) -> None:
        with killed():
            lab.cloud("run-1").boot_once(
                disk, deadline_seconds=DEADLINE_SECONDS, events=die_at_the_console
            )

    def _nothing_is_left(self, lab: MachineLab) -> None:
        assert lab.cloud("look").list_ours(SITE) == []
        assert lab.leftovers() == []
        assert lab.state.ledger.open_entries() == []
        assert not any(item["busy"] for item in lab.service.machines())
