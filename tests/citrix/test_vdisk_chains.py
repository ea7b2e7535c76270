"""A vDisk of versions is read flat, as the version that Production devices get."""

from __future__ import annotations

import secrets

import pytest

from imageport.citrix.manifest import Access, VersionEntry, VersionManifest, render_manifest
from imageport.citrix.vdisk_store import VdiskStore
from imageport.errors import BadDisk, FileLocked, FileMissing, SourceChanged, UnsupportedDisk
from imageport.storage.folder import Folder
from imageport.workflow.facts import image_name, opened_source, source_facts
from tests.formats.chain_bytes import FULL, MIB, PARTIAL, ZERO, Layer, Written, write_layer
from tests.formats.vhd_bytes import DIFFERENCING, Recipe, make

NOW = 1_795_438_520
LAYERS = (
    Layer(3 * MIB, blocks={0: (FULL, ()), 1: (FULL, ())}),
    Layer(3 * MIB, blocks={0: (PARTIAL, range(0, 2048, 5)), 2: (FULL, ())}),
    Layer(3 * MIB, blocks={1: (ZERO, ()), 2: (PARTIAL, [0, 1, 2047])}),
)
NAMES = ("gold.vhdx", "gold.1.avhdx", "gold.2.avhdx")


@pytest.fixture
def store(store_folder: Folder) -> VdiskStore:
    return VdiskStore(store_folder)


def put_chain(store: VdiskStore) -> list[Written]:
    made: list[Written] = []
    for name, layer in zip(NAMES, LAYERS, strict=True):
        made.append(write_layer(store.folder, name, layer, parent=made[-1] if made else None))
    return made


def list_versions(
    store: VdiskStore, *versions: tuple[int, str, Access], later: int | None = None
) -> None:
    entries = [
        VersionEntry(
            number,
            name,
            1,
            NOW,
            access=access,
            scheduled_date="2999-01-01 00:00:00" if number == later else "",
        )
        for number, name, access in versions
    ]
    store.folder.write_bytes("gold.xml", render_manifest(VersionManifest(tuple(entries))))


PRODUCTION, TEST, MAINTENANCE = Access.PRODUCTION, Access.TEST, Access.MAINTENANCE


def content_of(store: VdiskStore, name: str = "gold", *, accept_lock: bool = False) -> bytes:
    with opened_source(store, name, accept_lock=accept_lock) as (facts, disk):
        assert facts.image == "gold"
        assert facts.size_bytes == disk.size_bytes
        disk.check_unchanged()
        return b"".join(data for _, data in disk.read_many([(0, disk.size_bytes)]))


@pytest.mark.parametrize(
    ("accesses", "later", "chosen"),
    [
        ((PRODUCTION, PRODUCTION, PRODUCTION), None, 2),
        ((PRODUCTION, PRODUCTION, MAINTENANCE), None, 1),
        ((PRODUCTION, TEST, MAINTENANCE), None, 0),
        ((PRODUCTION, Access.OVERRIDE, PRODUCTION), None, 1),
        ((PRODUCTION, PRODUCTION, PRODUCTION), 2, 1),
    ],
    ids=["highest", "maintenance above", "test above", "override", "scheduled for later"],
)
def test_the_version_in_production_is_read_through_its_chain(
    store: VdiskStore, accesses: tuple[Access, ...], later: int | None, chosen: int
) -> None:
    made = put_chain(store)
    list_versions(store, *zip(range(3), NAMES, accesses, strict=True), later=later)
    assert content_of(store, "GOLD.vhdx" if later else "gold") == made[chosen].content


def test_a_version_that_is_named_is_read_with_what_it_builds_on(store: VdiskStore) -> None:
    made = put_chain(store)
    list_versions(store, *zip(range(3), NAMES, (PRODUCTION,) * 3, strict=True))
    assert content_of(store, "gold.1.avhdx") == made[1].content
    assert content_of(store, "Gold.2.AVHDX") == made[2].content


def test_versions_without_a_manifest_are_read_when_the_file_is_named(store: VdiskStore) -> None:
    made = put_chain(store)
    with pytest.raises(UnsupportedDisk, match="no manifest") as caught:
        content_of(store)
    assert "'gold.2.avhdx'" in caught.value.hint
    assert content_of(store, "gold.2.avhdx") == made[2].content


def test_a_version_in_maintenance_needs_the_operators_word(store: VdiskStore) -> None:
    made = put_chain(store)
    list_versions(store, *zip(range(3), NAMES, (TEST, TEST, MAINTENANCE), strict=True))
    with pytest.raises(FileLocked, match="no version in Production"):
        content_of(store)
    assert content_of(store, accept_lock=True) == made[2].content


@pytest.mark.parametrize("access", [Access.MERGE, Access.MERGE_MAINTENANCE, Access.MERGE_TEST])
def test_a_version_that_a_merge_writes_is_the_last_that_is_read(
    store: VdiskStore, access: Access
) -> None:
    """Whoever accepts a lock need not know that it is half a disk."""
    made = put_chain(store)
    list_versions(store, *zip(range(3), NAMES, (TEST, MAINTENANCE, access), strict=True))
    assert content_of(store, accept_lock=True) == made[1].content
    with pytest.raises(FileLocked, match="a merge writes it") as caught:
        content_of(store, NAMES[2])
    assert "Wait until the merge" in caught.value.hint
    assert content_of(store, NAMES[2], accept_lock=True) == made[2].content


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        (" 2999-01-01 00:00:00\n", 1),
        ("2999-01-01T00:00:00Z", 1),
        ("2001-01-01 00:00:00.5", 2),
        ("0001-01-01 00:00:00", 2),
        (" ", 2),
    ],
)
def test_a_scheduled_date_is_read_as_a_time(store: VdiskStore, text: str, chosen: int) -> None:
    put_chain(store)
    entries = [VersionEntry(n, NAMES[n], 1, NOW, scheduled_date=text * (n == 2)) for n in range(3)]
    store.folder.write_bytes("gold.xml", render_manifest(VersionManifest(tuple(entries))))
    opened = store.open_vdisk("gold")
    opened.file.close()
    assert opened.file_name == NAMES[chosen]


@pytest.mark.parametrize("text", ["1/31/2999 10:00:00 AM", "tomorrow", "2999-13-01 00:00:00"])
def test_a_scheduled_date_that_is_none_is_refused_where_it_decides(
    store: VdiskStore, text: str
) -> None:
    put_chain(store)
    for number in (1, 2):
        entries = [
            VersionEntry(n, NAMES[n], 1, NOW, scheduled_date=text * (n == number)) for n in range(3)
        ]
        store.folder.write_bytes("gold.xml", render_manifest(VersionManifest(tuple(entries))))
        if number == 1:  # an older version than the one that counts
            store.open_vdisk("gold").file.close()
            continue
        with pytest.raises(BadDisk, match=f"found '{text}' as <scheduledDate>"):
            store.open_vdisk("gold")


def test_only_the_lock_of_the_chosen_version_counts(store: VdiskStore) -> None:
    made = put_chain(store)
    list_versions(store, *zip(range(3), NAMES, (PRODUCTION, PRODUCTION, MAINTENANCE), strict=True))
    store.folder.write_bytes("gold.lok", b"")
    store.folder.write_bytes("gold.2.lok", b"")
    opened = store.open_vdisk("gold")
    assert (opened.file_name, opened.lock_note) == ("gold.1.avhdx", "not locked")
    assert not opened.deny_write  # devices may stream from the base
    opened.file.close()
    assert content_of(store) == made[1].content


def test_without_any_lock_nobody_can_write_a_file_of_the_chain(store: VdiskStore) -> None:
    put_chain(store)
    list_versions(store, *zip(range(3), NAMES, (PRODUCTION,) * 3, strict=True))
    with opened_source(store, "gold", accept_lock=False):
        for name in NAMES:
            with pytest.raises(FileLocked):
                store.folder.open_write(name)


def test_a_chain_may_not_leave_what_the_manifest_lists(store: VdiskStore) -> None:
    made = put_chain(store)
    list_versions(store, (0, NAMES[0], PRODUCTION), (2, NAMES[2], PRODUCTION))
    with pytest.raises(UnsupportedDisk, match=r"goes through 'gold\.1\.avhdx'"):
        content_of(store)
    list_versions(store, *zip(range(3), NAMES, (PRODUCTION,) * 3, strict=True))
    store.folder.rename(NAMES[0], "silver.vhdx")
    store.folder.write_bytes(NAMES[0], b"")  # its name is there, its content lies elsewhere
    with pytest.raises(UnsupportedDisk, match=r"goes through 'silver\.vhdx'"):
        content_of(store)
    assert made


def test_a_file_that_the_manifest_does_not_list_is_refused_by_name(store: VdiskStore) -> None:
    put_chain(store)
    list_versions(store, (0, NAMES[0], PRODUCTION), (1, NAMES[1], PRODUCTION))
    with pytest.raises(UnsupportedDisk, match=r"'gold\.xml' does not list it"):
        content_of(store, "gold.2.avhdx")


def test_a_base_that_was_written_after_its_versions_is_refused(store: VdiskStore) -> None:
    """Somebody booted the base in private mode: every version on it is worthless."""
    made = put_chain(store)
    list_versions(store, *zip(range(3), NAMES, (PRODUCTION,) * 3, strict=True))
    store.folder.delete(NAMES[0])
    newer = write_layer(store.folder, NAMES[0], LAYERS[0], seed=2)
    with pytest.raises(BadDisk, match="was made on a parent with") as caught:
        content_of(store)
    assert str(made[0].data_write_guid) in caught.value.message
    assert str(newer.data_write_guid) in caught.value.message
    store.folder.delete(NAMES[0])
    with pytest.raises(FileMissing, match=r"gold\.vhdx"):
        content_of(store)


def test_each_version_is_another_source_and_all_are_one_image(store: VdiskStore) -> None:
    put_chain(store)
    facts = [source_facts(store, name) for name in NAMES[1:]]
    assert len({one.source_key for one in facts}) == 2
    assert {one.image for one in facts} == {"gold"}
    assert image_name("Gold.2.AVHDX") == image_name("gold.vhd") == image_name("GOLD") == "gold"
    assert image_name("win11.24H2") == "win11.24h2"


def test_a_base_that_is_replaced_while_we_read_is_a_changed_source(store: VdiskStore) -> None:
    put_chain(store)
    list_versions(store, *zip(range(3), NAMES, (PRODUCTION,) * 3, strict=True))
    store.folder.write_bytes("gold.lok", b"")  # nobody is kept out
    with opened_source(store, "gold", accept_lock=False) as (_, disk):
        disk.check_unchanged()
        # A server changes the time of a file that is open for reading, as a write would.
        stat = store.folder.stat(NAMES[0])
        assert stat is not None
        later = stat.last_write_ns + 60_000_000_000 + secrets.randbelow(10**9) * 100
        store.folder.set_last_write(NAMES[0], later - later % 100)
        with pytest.raises(SourceChanged, match=r"gold\.vhdx"):
            disk.check_unchanged()


def test_versions_of_the_older_format_are_read_through_their_chain(store: VdiskStore) -> None:
    base = make(Recipe(MIB, blocks={0: [(0, 1024)], 1: [(7, 90)]}, seed=1))
    first = make(
        Recipe(
            MIB,
            blocks={0: [(3, 5), (700, 9)]},
            kind=DIFFERENCING,
            parent=base,
            parent_name="GOLD.VHD",
            seed=2,
        )
    )
    store.folder.write_bytes("gold.vhd", base.content)
    store.folder.write_bytes("gold.1.avhd", first.content)
    list_versions(store, (0, "gold.vhd", PRODUCTION), (1, "gold.1.avhd", PRODUCTION))
    for name in ("gold.vhd", "gold.1.avhd"):
        assert content_of(store, name) == first.guest
    with pytest.raises(FileMissing, match=r"gold\.vhdx"):
        content_of(store, "gold.vhdx")
