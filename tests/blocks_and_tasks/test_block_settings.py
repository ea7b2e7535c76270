"""What blocks accept, refuse and hand to the library."""

from pathlib import Path

import pytest
from prefect_aws import AwsCredentials
from pydantic import ValidationError

from blocks import AwsTarget, PvsStore, Site, SmbShare
from imageport.errors import FileMissing, InputError
from imageport.payload import pack_payload
from imageport.storage.locate import SmbLocation

SECRET = "Pa55-in-the-open"


def a_share(**values: object) -> SmbShare:
    return SmbShare(**({"host": "files", "share": "vdisks", "username": "u"} | values))


def a_site(**values: object) -> Site:
    return Site(
        **({"name": "onprem", "work_pool": "onprem", "store": PvsStore(share=a_share())} | values)
    )


@pytest.mark.parametrize(
    "values",
    [
        {"hst": "files"},
        {"host": "files/../x"},
        {"share": "a/b"},
        {"port": 0},
        {"folder": "a\\b"},
        {"auth": "basic"},
        {"password": "a", "password_file": "/run/secret"},
        {"password_variable": "A", "password_file": "/run/secret"},
    ],
    ids="+".join,
)
def test_a_share_refuses_what_it_cannot_mean(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        a_share(**values)


@pytest.mark.parametrize(
    ("values", "location"),
    [
        ({}, "smb://files/vdisks"),
        ({"port": 4450}, "smb://files:4450/vdisks"),
        ({"folder": "/store 1/"}, "smb://files/vdisks/store 1"),
        ({"host": "[fd00::1]"}, "smb://[fd00::1]/vdisks"),
    ],
    ids=["plain", "port", "folder", "v6"],
)
def test_a_share_is_where_the_library_finds_it(values: dict[str, object], location: str) -> None:
    share = a_share(**values)
    assert share.location == location
    assert str(SmbLocation.parse(share.location)) == location


def test_a_stores_folder_lies_below_the_shares_folder() -> None:
    store = PvsStore(share=a_share(folder="pvs"), folder="store-1")
    assert store.location == "smb://files/vdisks/pvs/store-1"


def test_a_password_comes_from_the_source_that_the_block_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAB_PASSWORD", SECRET)
    file = tmp_path / "password"
    file.write_text(SECRET + "\n")
    for values in (
        {"password": SECRET},
        {"password_variable": "LAB_PASSWORD"},
        {"password_file": str(file)},
    ):
        assert a_share(**values).credentials().password == SECRET


@pytest.mark.parametrize(
    "values", [{"password_variable": "NOT_SET_HERE"}, {"password_file": "/nowhere/password"}]
)
def test_a_missing_password_source_is_named(values: dict[str, object]) -> None:
    with pytest.raises(InputError, match="Cannot read the password of 'smb://files/vdisks'"):
        a_share(**values).credentials()


def test_no_rendering_of_a_block_shows_its_secrets() -> None:
    share = a_share(password=SECRET)
    target = AwsTarget(
        region="eu-central-1",
        credentials=AwsCredentials(aws_access_key_id="key", aws_secret_access_key=SECRET),
    )
    site = a_site(store=PvsStore(share=share), state_share=share)
    for block in (share, site.store, site, target):
        rendered = [repr(block), str(block), block.model_dump_json(), repr(block.model_dump())]
        assert not [text for text in rendered if SECRET in text], type(block)
    assert SECRET not in repr(share.credentials())
    assert SECRET not in repr(target.settings("onprem"))


def test_a_rejected_share_does_not_show_its_password() -> None:
    with pytest.raises(ValidationError) as caught:
        a_share(password=SECRET, password_file="/run/secret")
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "values",
    [
        {"region": "Frankfurt"},
        {"region": "eu-central-1", "kms_key_id": "alias/vdi"},
        {"region": "eu-central-1", "encrypted": True, "unencrypted_for_ever": True},
        {"region": "eu-central-1", "subnet": "subnet-1"},
    ],
    ids=["region", "key-without-encryption", "contradiction", "misspelt"],
)
def test_a_target_refuses_what_it_cannot_mean(values: dict[str, object]) -> None:
    with pytest.raises((ValidationError, InputError)):
        AwsTarget(**values)


def test_a_target_passes_every_setting_to_the_library() -> None:
    values = {
        "region": "eu-central-1",
        "subnet_id": "subnet-1",
        "boot_instance_type": "m7i.large",
        "boot_egress_cidrs": ("10.0.0.0/8",),
        "encrypted": True,
    }
    settings = AwsTarget(**values).settings("cloud", proxy="http://proxy:3128", ca_bundle="/ca")
    assert {name: getattr(settings, name) for name in values} == values
    assert (settings.site, settings.proxy, settings.ca_bundle) == (
        "cloud", "http://proxy:3128", "/ca",
    )  # fmt: skip


def test_a_target_without_credentials_uses_the_workers_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "of-the-worker")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    found = AwsTarget(region="eu-central-1").session().get_credentials()
    assert found is not None
    assert found.access_key == "of-the-worker"


def test_a_site_needs_a_place_for_its_state() -> None:
    with pytest.raises(ValidationError, match="state store"):
        a_site()
    with pytest.raises(ValidationError, match="state store"):
        a_site(state_folder="relative")
    assert a_site(state_folder="/var/lib/imageport").state_share is None


def test_a_proxy_with_a_password_is_refused() -> None:
    with pytest.raises(ValidationError):
        a_site(state_folder="/s", proxy="http://user:pw@proxy:3128")


def test_a_site_opens_a_state_store_in_a_local_folder(tmp_path: Path) -> None:
    with a_site(state_folder=str(tmp_path)).open_state() as state:
        assert state.catalogue.list() == []


def test_a_payload_is_taken_only_under_its_digest(tmp_path: Path) -> None:
    folder = tmp_path / "drivers"
    (folder / "ena").mkdir(parents=True)
    (folder / "ena" / "ena.inf").write_text("[Version]")
    digest = pack_payload(folder, tmp_path / "packed.zip")
    pinned = a_site(state_folder="/s", payload_folder=str(folder), payload_sha256=digest)
    with pinned.open_payload() as payload:
        assert payload is not None
        assert payload.read_bytes() == (tmp_path / "packed.zip").read_bytes()
    assert not payload.exists()
    (folder / "ena" / "ena.inf").write_text("[Version] ; changed")
    with pytest.raises(InputError, match="found sha256"), pinned.open_payload():
        pass


def test_a_payload_without_a_digest_says_which_one_to_pin(tmp_path: Path) -> None:
    (tmp_path / "x.inf").write_text("x")
    site = a_site(state_folder="/s", payload_folder=str(tmp_path))
    with pytest.raises(InputError) as caught, site.open_payload():
        pass
    assert len(caught.value.fields["found"]) == 64


def test_a_payload_folder_that_is_not_there_is_an_error() -> None:
    site = a_site(state_folder="/s", payload_folder="/nowhere/drivers")
    with pytest.raises(FileMissing), site.open_payload():
        pass


def test_a_site_without_a_payload_has_none() -> None:
    with a_site(state_folder="/s").open_payload() as payload:
        assert payload is None
