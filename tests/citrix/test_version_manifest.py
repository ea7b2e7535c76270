"""Version manifests: read with suspicion, written as PVS writes them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imageport.citrix.manifest import (
    LIMIT_BYTES,
    Access,
    VersionEntry,
    VersionManifest,
    VersionType,
    parse_manifest,
    render_manifest,
)
from imageport.errors import BadDisk, InputError

EXPORTED = b"""<?xml version="1.0" encoding="utf-8"?>
<versionManifest>
  <startingVersion>0</startingVersion>
  <version>
    <versionNumber>2</versionNumber><description>August &amp; fixes</description><type>4</type>
    <access>0</access><createDate>2026-11-24 08:00:00</createDate><scheduledDate/>
    <deleteWhenFree>0</deleteWhenFree><diskFileName>gold.2.vhdx</diskFileName>
    <size>20971520</size><lastWriteTime>2026-11-24T08:00:01</lastWriteTime>
  </version>
  <version>
    <versionNumber>0</versionNumber><description/><type>0</type><access>0</access>
    <createDate>2026-11-23 12:55:20</createDate><scheduledDate/><deleteWhenFree>0</deleteWhenFree>
    <diskFileName>gold.vhdx</diskFileName><size>14680064</size>
    <lastWriteTime>2026-11-23T12:55:20</lastWriteTime>
  </version>
</versionManifest>
"""


def test_an_exported_manifest_is_read_and_sorted():
    manifest = parse_manifest(EXPORTED, "gold.xml")
    assert [entry.number for entry in manifest.versions] == [0, 2]
    newest = manifest.versions[-1]
    assert newest.kind is VersionType.MERGE_BASE
    assert newest.access is Access.PRODUCTION
    assert newest.description == "August & fixes"
    assert newest.disk_file_name == "gold.2.vhdx"
    assert newest.size_bytes == 20971520
    assert newest.last_write_seconds == 1795507201


def test_a_manifest_is_written_with_the_elements_and_order_of_an_exported_one():
    entry = VersionEntry(0, "gold.vhdx", 14680064, 1795438520, create_date="2026-11-23 12:55:20")
    text = render_manifest(VersionManifest((entry,))).decode()
    assert text.replace("\r\n", "").replace("  ", "") == (
        '<?xml version="1.0" encoding="utf-8"?><versionManifest>'
        "<startingVersion>0</startingVersion><version><versionNumber>0</versionNumber>"
        "<description/><type>0</type><access>0</access>"
        "<createDate>2026-11-23 12:55:20</createDate><scheduledDate/>"
        "<deleteWhenFree>0</deleteWhenFree><diskFileName>gold.vhdx</diskFileName>"
        "<size>14680064</size><lastWriteTime>2026-11-23T12:55:20</lastWriteTime>"
        "</version></versionManifest>"
    )


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_the_encodings_that_windows_tools_write_are_read(encoding: str):
    text = EXPORTED.decode().replace(' encoding="utf-8"', "")
    assert parse_manifest(text.encode(encoding), "x") == parse_manifest(EXPORTED, "x")


def test_elements_of_other_releases_survive_rewriting():
    data = EXPORTED.replace(b"<size>20971520", b"<newField>kept</newField><size>20971520")
    manifest = parse_manifest(data, "gold.xml")
    assert manifest.versions[-1].others == (("newField", "kept"),)
    assert b"<newField>kept</newField>" in render_manifest(manifest)


LAUGHS = b"""<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY lol "lol">
<!ENTITY lol2 "&lol;&lol;&lol;&lol;&lol;&lol;&lol;">]><versionManifest>&lol2;</versionManifest>"""
OUTSIDE = (
    b'<!DOCTYPE x [<!ENTITY f SYSTEM "file:///etc/passwd">]>'
    b"<versionManifest><startingVersion>&f;</startingVersion></versionManifest>"
)


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b"", "no XML"),
        (b"PK\x03\x04", "no XML"),
        (EXPORTED[:300], "no XML"),
        (LAUGHS, "document type"),
        (OUTSIDE, "document type"),
        (b"<other/>", "needed <versionManifest>"),
        (b"<versionManifest/>", "no version"),
        (b"<versionManifest><a><b/></a></versionManifest>", "too deep"),
        (b"<versionManifest><version><a><b/></a></version></versionManifest>", "too deep"),
        (EXPORTED.replace(b">2</versionNumber>", b">0</versionNumber>"), "twice"),
        (EXPORTED.replace(b">2</versionNumber>", b">-1</versionNumber>"), "needed a number"),
        (EXPORTED.replace(b">2</versionNumber>", b">two</versionNumber>"), "needed a number"),
        (EXPORTED.replace(b"<type>4", b"<type>9"), "type 9"),
        (EXPORTED.replace(b"<access>0", b"<access>8"), "access 8"),
        (EXPORTED.replace(b"gold.2.vhdx", b"..\\secret.vhdx"), "needed a file of the store"),
        (EXPORTED.replace(b"gold.2.vhdx", b"GOLD.vhdx"), "one file as two versions"),
        (EXPORTED.replace(b"gold.2.vhdx", b"../x.vhdx"), "needed a file of the store"),
        (EXPORTED.replace(b"<diskFileName>gold.2.vhdx</diskFileName>", b""), "needed a file"),
        (EXPORTED.replace(b"2026-11-24T08:00:01", b"2026-13-24T08:00:01"), "needed a UTC time"),
        (EXPORTED.replace(b"2026-11-24T08:00:01", b"yesterday"), "needed a UTC time"),
        (EXPORTED.replace(b"August", b"A" * 5000), "longer than 4096"),
        (b" " * (LIMIT_BYTES + 1), "at most"),
        (EXPORTED.replace(b"<scheduledDate/>", b"<scheduledDate/><scheduledDate/>"), "twice"),
        (b'<?xml version="1.0" encoding="klingon"?><versionManifest/>', "encoding"),
    ],
)
def test_a_bad_manifest_is_refused_with_the_cause(data: bytes, cause: str):
    with pytest.raises(BadDisk) as caught:
        parse_manifest(data, "gold.xml")
    assert cause in caught.value.message
    assert "gold.xml" in caught.value.message


def test_more_versions_than_anybody_keeps_are_refused():
    body = b"".join(b"<version/>" for _ in range(1001))
    with pytest.raises(BadDisk, match="more than 1000 versions"):
        parse_manifest(b"<versionManifest>" + body + b"</versionManifest>", "x")


def test_what_xml_cannot_hold_is_not_written():
    entry = VersionEntry(0, "gold.vhdx", 1, 1, description="bell \x07")
    with pytest.raises(InputError, match="description"):
        render_manifest(VersionManifest((entry,)))


def test_a_version_of_a_number_is_replaced_not_doubled():
    manifest = parse_manifest(EXPORTED, "x")
    again = manifest.with_version(VersionEntry(2, "gold.2.vhdx", 5, 5))
    assert [entry.number for entry in again.versions] == [0, 2]
    assert again.versions[-1].size_bytes == 5


texts = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff"), max_size=60
) | st.sampled_from(["a\r\nb", "<&>\"'", "]]>", " spaces "])
entries = st.builds(
    VersionEntry,
    number=st.integers(0, 10**9),
    disk_file_name=st.from_regex(r"[A-Za-z0-9 _-]{1,40}\.(vhdx|avhdx)", fullmatch=True),
    size_bytes=st.integers(0, 2**56),
    last_write_seconds=st.integers(0, 4_000_000_000),
    kind=st.sampled_from(VersionType),
    access=st.sampled_from(Access),
    create_date=texts,
    scheduled_date=texts,
    delete_when_free=st.booleans(),
    description=texts,
)
manifests = st.builds(
    lambda items, start: VersionManifest(tuple(sorted(items, key=lambda e: e.number)), start),
    st.lists(
        entries,
        min_size=1,
        max_size=6,
        unique_by=(lambda entry: entry.number, lambda entry: entry.disk_file_name.casefold()),
    ),
    st.integers(0, 1000),
)


@given(manifests)
def test_what_is_written_is_read_back_the_same(manifest: VersionManifest):
    assert parse_manifest(render_manifest(manifest), "x") == manifest


@given(st.binary(max_size=400) | st.binary(max_size=200).map(lambda b: EXPORTED[:150] + b))
def test_any_bytes_are_read_or_refused_never_more(data: bytes):
    try:
        parse_manifest(data, "x")
    except BadDisk:
        return


@given(st.data())
def test_a_manifest_with_one_byte_changed_is_read_or_refused(data: st.DataObject):
    place = data.draw(st.integers(0, len(EXPORTED) - 1))
    value = data.draw(st.integers(0, 255))
    changed = EXPORTED[:place] + bytes([value]) + EXPORTED[place + 1 :]
    try:
        parse_manifest(changed, "x")
    except BadDisk:
        return
