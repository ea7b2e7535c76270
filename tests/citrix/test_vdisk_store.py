"""Opening vDisks under their lock rules and publishing them, on a local folder and real SMB."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from imageport.citrix.manifest import (
    Access,
    VersionEntry,
    VersionManifest,
    VersionType,
    parse_manifest,
    render_manifest,
)
from imageport.citrix.vdisk_store import IfExists, TargetName, VdiskStore
from imageport.errors import (
    BadDisk,
    FileLocked,
    FileMissing,
    InputError,
    NameTaken,
    UnsupportedDisk,
)
from imageport.storage.folder import Folder

MONDAY = 1_795_438_520
MONDAY_NS = MONDAY * 1_000_000_000


@pytest.fixture
def store(store_folder: Folder) -> VdiskStore:
    return VdiskStore(store_folder)


def put(store: VdiskStore, *names: str) -> None:
    for name in names:
        with store.folder.create(name) as file:
            file.write_at(0, name.encode())


def write_manifest(store: VdiskStore, *versions: tuple[int, str, Access], later: str = "") -> None:
    entries = [
        VersionEntry(number, name, len(name), MONDAY, access=access, scheduled_date=later)
        for number, name, access in versions
    ]
    store.folder.write_bytes("gold.xml", render_manifest(VersionManifest(tuple(entries))))


def names(store: VdiskStore) -> list[str]:
    return [entry.name for entry in store.folder.list()]


def publish(store: VdiskStore, name: str, content: bytes = b"whole disk") -> TargetName:
    target = store.choose_target(name)
    part = store.begin_file(target, "generation-1")
    with store.folder.create(part) as file:
        file.write_at(0, content)
    store.finish(target, part, MONDAY_NS)
    return target


class TestOpening:
    @pytest.mark.parametrize("name", ["gold", "gold.vhdx", "GOLD", "Gold.VHDX"])
    def test_a_vdisk_is_found_with_and_without_suffix_and_case(self, store: VdiskStore, name: str):
        put(store, "gold.vhdx", "golden.vhdx")
        opened = store.open_vdisk(name)
        with opened.file as file:
            assert file.read_at(0, 9) == b"gold.vhdx"
        assert opened.file_name == "gold.vhdx"
        assert opened.lock_note == "not locked"

    @pytest.mark.parametrize("name", ["silver", "../gold", "sub/gold", ""])
    def test_a_vdisk_that_is_not_there_is_missing(self, store: VdiskStore, name: str):
        put(store, "gold.vhdx")
        with pytest.raises((FileMissing, InputError)):
            store.open_vdisk(name)

    def test_without_a_lock_nobody_can_write_while_we_read(self, store: VdiskStore):
        put(store, "gold.vhdx")
        with store.open_vdisk("gold").file, pytest.raises(FileLocked):
            store.folder.open_write("gold.vhdx")

    def test_a_vdisk_that_somebody_writes_is_refused(self, store: VdiskStore):
        put(store, "gold.vhdx")
        with store.folder.open_write("gold.vhdx"):
            for accept in (False, True):
                with pytest.raises(FileLocked) as caught:
                    store.open_vdisk("gold", accept_lock=accept)
                assert "private or maintenance" in caught.value.hint

    def test_a_locked_vdisk_that_somebody_writes_is_refused_whatever_the_manifest_says(
        self, store: VdiskStore
    ):
        put(store, "gold.vhdx", "gold.lok")
        write_manifest(store, (0, "gold.vhdx", Access.PRODUCTION))
        with store.folder.open_write("gold.vhdx"), pytest.raises(FileLocked):
            store.open_vdisk("gold", accept_lock=True)

    def test_a_shared_lock_on_a_production_version_keeps_nobody_out(self, store: VdiskStore):
        put(store, "gold.vhdx", "gold.lok")
        write_manifest(store, (0, "gold.vhdx", Access.PRODUCTION))
        opened = store.open_vdisk("gold")
        assert "Production" in opened.lock_note
        opened.file.close()

    def test_a_lock_of_unknown_kind_needs_the_operators_word(self, store: VdiskStore):
        put(store, "gold.vhdx", "GOLD.LOK")
        with pytest.raises(FileLocked) as caught:
            store.open_vdisk("gold")
        assert "GOLD.LOK" in caught.value.message
        assert "accept_lock" in caught.value.hint
        opened = store.open_vdisk("gold", accept_lock=True)
        assert "operator" in opened.lock_note
        opened.file.close()

    def test_the_lock_of_another_version_does_not_count(self, store: VdiskStore):
        put(store, "gold.vhdx", "gold.2.vhdx", "gold.lok")
        write_manifest(
            store, (0, "gold.vhdx", Access.PRODUCTION), (2, "gold.2.vhdx", Access.PRODUCTION)
        )
        opened = store.open_vdisk("gold")
        assert opened.file_name == "gold.2.vhdx"
        assert opened.lock_note == "not locked"
        opened.file.close()

    @pytest.mark.parametrize(
        "access", [Access.MAINTENANCE, Access.MAINTENANCE_HIGHEST, Access.TEST, Access.MERGE_TEST]
    )
    def test_a_version_that_is_not_in_production_needs_the_operators_word(
        self, store: VdiskStore, access: Access
    ):
        put(store, "gold.vhdx")
        write_manifest(store, (0, "gold.vhdx", access))
        with pytest.raises(FileLocked, match="no version in Production"):
            store.open_vdisk("gold")
        store.open_vdisk("gold", accept_lock=True).file.close()

    def test_a_locked_maintenance_version_is_always_refused(self, store: VdiskStore):
        put(store, "gold.vhdx", "gold.lok")
        write_manifest(store, (0, "gold.vhdx", Access.MAINTENANCE))
        with pytest.raises(FileLocked, match="maintenance"):
            store.open_vdisk("gold", accept_lock=True)

    @pytest.mark.parametrize("second", ["gold.1.avhdx", "gold.1.vhdx"])
    def test_versions_without_a_manifest_are_refused_by_name(self, store: VdiskStore, second: str):
        put(store, "gold.vhdx", second)
        with pytest.raises(UnsupportedDisk) as caught:
            store.open_vdisk("gold")
        assert f"(gold.vhdx, {second})" in caught.value.message
        assert "manifest" in caught.value.hint
        assert f"'{second}'" in caught.value.hint

    def test_a_merged_base_in_production_is_a_whole_disk(self, store: VdiskStore):
        put(store, "gold.vhdx", "gold.1.avhdx", "gold.2.vhdx")
        write_manifest(
            store,
            (0, "gold.vhdx", Access.PRODUCTION),
            (1, "gold.1.avhdx", Access.PRODUCTION),
            (2, "gold.2.vhdx", Access.PRODUCTION),
        )
        opened = store.open_vdisk("gold")
        assert opened.file_name == "gold.2.vhdx"
        opened.file.close()

    def test_an_override_comes_before_the_highest_version(self, store: VdiskStore):
        put(store, "gold.vhdx", "gold.1.vhdx", "gold.2.vhdx")
        write_manifest(
            store,
            (0, "gold.vhdx", Access.PRODUCTION),
            (1, "gold.1.vhdx", Access.OVERRIDE),
            (2, "gold.2.vhdx", Access.PRODUCTION),
        )
        opened = store.open_vdisk("gold")
        assert opened.file_name == "gold.1.vhdx"
        opened.file.close()

    def test_a_version_scheduled_for_later_is_not_in_production_yet(self, store: VdiskStore):
        put(store, "gold.vhdx")
        write_manifest(store, (0, "gold.vhdx", Access.PRODUCTION), later="2999-01-01 00:00:00")
        with pytest.raises(FileLocked):
            store.open_vdisk("gold")

    def test_a_whole_version_can_be_named_itself(self, store: VdiskStore):
        put(store, "gold.vhdx", "gold.2.vhdx", "gold.2.lok")
        write_manifest(
            store, (0, "gold.vhdx", Access.PRODUCTION), (2, "gold.2.vhdx", Access.PRODUCTION)
        )
        opened = store.open_vdisk("gold.2.vhdx")
        assert opened.file_name == "gold.2.vhdx"
        assert "Production" in opened.lock_note
        opened.file.close()

    def test_a_manifest_that_names_a_file_that_is_gone_is_told(self, store: VdiskStore):
        put(store, "gold.vhdx")
        write_manifest(
            store, (0, "gold.vhdx", Access.PRODUCTION), (1, "gold.1.vhdx", Access.PRODUCTION)
        )
        with pytest.raises(FileMissing, match=r"gold\.1\.vhdx"):
            store.open_vdisk("gold")

    def test_a_broken_manifest_is_not_guessed_around(self, store: VdiskStore):
        put(store, "gold.vhdx")
        store.folder.write_bytes("gold.xml", b"<versionManifest>")
        with pytest.raises(BadDisk, match=r"gold\.xml"):
            store.open_vdisk("gold")

    @pytest.mark.parametrize("name", ["old", "old.vhd", "OLD.VHD"])
    def test_a_vhd_is_a_vdisk_too(self, store: VdiskStore, name: str):
        put(store, "old.vhd")
        opened = store.open_vdisk(name)
        assert opened.file_name == "old.vhd"
        opened.file.close()

    @pytest.mark.parametrize("name", ["gold.vhd", "gold.1.avhd", "gold.9.avhdx", "gold.avhdx"])
    def test_a_file_that_is_not_there_is_missing_though_the_vdisk_exists(
        self, store: VdiskStore, name: str
    ):
        put(store, "gold.vhdx")
        with pytest.raises(FileMissing):
            store.open_vdisk(name)

    @pytest.mark.parametrize("other", ["gold.vhd", "gold.1.avhd", "GOLD.2.VHD"])
    @pytest.mark.parametrize("listed", [True, False])
    def test_files_of_both_formats_under_one_name_are_refused(
        self, store: VdiskStore, other: str, listed: bool
    ):
        put(store, "gold.vhdx", other)
        if listed:
            write_manifest(store, (0, "gold.vhdx", Access.PRODUCTION))
        with pytest.raises(UnsupportedDisk, match="VHD and VHDX files of that name") as caught:
            store.open_vdisk("gold")
        assert other in caught.value.message
        if other != "gold.vhd":  # that one means the vDisk, too
            with pytest.raises(UnsupportedDisk, match="VHD and VHDX files of that name"):
                store.open_vdisk(other)


class TestPublishing:
    def test_a_new_vdisk_gets_its_name_its_time_and_a_manifest_last(self, store: VdiskStore):
        target = publish(store, "gold")
        assert target == TargetName("gold", "gold.vhdx", 0)
        assert names(store) == ["gold.vhdx", "gold.xml"]
        stat = store.folder.stat("gold.vhdx")
        assert stat is not None
        assert stat.last_write_ns == MONDAY_NS
        manifest = parse_manifest(store.folder.read_bytes("gold.xml"), "gold.xml")
        assert manifest.versions == (
            VersionEntry(0, "gold.vhdx", 10, MONDAY, create_date="2026-11-23 12:55:20"),
        )

    def test_what_was_published_can_be_opened(self, store: VdiskStore):
        publish(store, "gold")
        opened = store.open_vdisk("gold")
        with opened.file as file:
            assert file.read_at(0, 10) == b"whole disk"

    def test_publishing_again_makes_a_new_version_and_touches_no_file(self, store: VdiskStore):
        publish(store, "gold", b"first")
        target = publish(store, "gold", b"second")
        assert target == TargetName("gold", "gold.1.vhdx", 1)
        assert store.folder.read_bytes("gold.vhdx") == b"first"
        assert store.folder.read_bytes("gold.1.vhdx") == b"second"
        manifest = parse_manifest(store.folder.read_bytes("gold.xml"), "x")
        assert [(e.number, e.kind, e.access) for e in manifest.versions] == [
            (0, VersionType.BASE, Access.PRODUCTION),
            (1, VersionType.MERGE_BASE, Access.PRODUCTION),
        ]
        opened = store.open_vdisk("gold")
        assert opened.file_name == "gold.1.vhdx"
        opened.file.close()

    def test_the_new_version_comes_after_every_number_in_use(self, store: VdiskStore):
        put(store, "gold.vhdx", "gold.1.avhdx", "gold.7.lok")
        write_manifest(
            store, (0, "gold.vhdx", Access.PRODUCTION), (1, "gold.1.avhdx", Access.PRODUCTION)
        )
        assert store.choose_target("gold").version == 8

    def test_a_base_without_a_manifest_is_listed_too(self, store: VdiskStore):
        put(store, "Gold.vhdx")
        store.folder.set_last_write("Gold.vhdx", MONDAY_NS - 123_456_700)
        target = publish(store, "gOLD")
        assert target.file_name == "Gold.1.vhdx"
        manifest = parse_manifest(store.folder.read_bytes("Gold.xml"), "x")
        assert [entry.disk_file_name for entry in manifest.versions] == ["Gold.vhdx", "Gold.1.vhdx"]
        assert manifest.versions[0].last_write_seconds == MONDAY - 1

    def test_a_name_that_exists_is_refused_when_told(self, store: VdiskStore):
        publish(store, "gold")
        with pytest.raises(NameTaken, match="the vDisk exists"):
            store.choose_target("GOLD", if_exists=IfExists.REFUSE)

    @pytest.mark.parametrize("rest", ["gold.lok", "gold.pvp", "gold.3.avhdx"])
    def test_any_file_of_the_name_counts_as_existing(self, store: VdiskStore, rest: str):
        put(store, rest)
        with pytest.raises(NameTaken):
            store.choose_target("gold", if_exists=IfExists.REFUSE)

    def test_versions_without_a_manifest_are_not_published_over(self, store: VdiskStore):
        put(store, "gold.vhdx", "gold.1.avhdx")
        with pytest.raises(NameTaken, match=r"gold\.1\.avhdx"):
            store.choose_target("gold")

    def test_a_vhd_of_the_name_is_in_the_way(self, store: VdiskStore):
        put(store, "gold.vhd")
        with pytest.raises(NameTaken, match="VHD"):
            store.choose_target("gold")

    def test_a_bad_name_is_refused_before_anything_else(self, store: VdiskStore):
        with pytest.raises(InputError):
            store.choose_target("gold?")

    def test_a_name_taken_meanwhile_is_not_replaced(self, store: VdiskStore):
        target = store.choose_target("gold")
        part = store.begin_file(target, "t")
        put(store, part, "GOLD.vhdx")
        with pytest.raises(NameTaken):
            store.finish(target, part, MONDAY_NS)
        assert store.folder.read_bytes("GOLD.vhdx") == b"GOLD.vhdx"
        assert part in names(store)
        assert "gold.xml" not in names(store)

    def test_times_are_whole_seconds(self, store: VdiskStore):
        target = store.choose_target("gold")
        with pytest.raises(InputError, match="second"):
            store.finish(target, "x", MONDAY_NS + 1)

    def test_the_same_publish_finds_its_part_again_and_another_does_not(self, store: VdiskStore):
        target = store.choose_target("gold")
        part = store.begin_file(target, "generation-1")
        assert store.begin_file(target, "generation-1") == part
        assert store.begin_file(target, "generation-2") != part
        put(store, part)
        assert store.choose_target("gold") == target
        (left,) = store.leftovers()
        assert (left.part_name, left.file_name) == (part, "gold.vhdx")
        assert part == f"gold.vhdx.{left.token}.part"
        store.discard(part)
        store.discard(part)
        assert store.leftovers() == []

    @pytest.mark.parametrize("name", ["gold.vhdx", "gold.part", "gold.xml.0123abcd.part"])
    def test_only_parts_are_discarded(self, store: VdiskStore, name: str):
        put(store, name)
        with pytest.raises(InputError):
            store.discard(name)
        assert name in names(store)

    def test_a_publish_killed_after_the_rename_is_completed_once(self, store: VdiskStore):
        target = store.choose_target("gold")
        part = store.begin_file(target, "t")
        put(store, part)
        store.folder.set_last_write(part, MONDAY_NS)
        store.folder.rename(part, target.file_name)
        put(store, "gold.xml.0123abcd.part")
        again = TargetName(**asdict(target))
        store.complete(again, MONDAY_NS)
        first = store.folder.read_bytes("gold.xml")
        store.complete(again, MONDAY_NS)
        assert store.folder.read_bytes("gold.xml") == first
        assert names(store) == ["gold.vhdx", "gold.xml"]
