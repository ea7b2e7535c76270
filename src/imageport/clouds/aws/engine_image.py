"""Which machine image the engine runs on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from imageport.clouds.aws.account import Account
from imageport.clouds.aws.error_mapping import asked
from imageport.errors import CloudRefused

NAME_FILTER = "imageport-engine*"
DEBIAN_OWNER = "136693071363"
"""The account under which Debian publishes its cloud images (wiki.debian.org/Cloud)."""
DEBIAN_FILTER = "debian-12-amd64-*"


@dataclass(frozen=True, slots=True)
class EngineImage:
    """A machine image; ``laboratory`` means that packages are installed at boot."""

    id: str
    root_device: str
    laboratory: bool


def find_engine_image(account: Account) -> EngineImage:
    """Return the image of the settings, else our newest, else Debian's newest."""
    given = account.settings.engine_image_id
    if given:
        with asked("ec2:DescribeImages", given):
            answer = account.clients.ec2.describe_images(ImageIds=[given])
        return _newest(answer["Images"], laboratory=False)
    for owner, name, laboratory in (
        ("self", NAME_FILTER, False),
        (DEBIAN_OWNER, DEBIAN_FILTER, True),
    ):
        with asked("ec2:DescribeImages", name):
            answer = account.clients.ec2.describe_images(
                Owners=[owner],
                Filters=[
                    {"Name": "name", "Values": [name]},
                    {"Name": "state", "Values": ["available"]},
                ],
            )
        if answer["Images"]:
            return _newest(answer["Images"], laboratory=laboratory)
    raise CloudRefused(
        f"Cannot find an engine image in '{account.settings.region}': neither '{NAME_FILTER}' nor "
        "Debian 12 is there.",
        hint="Name an image with python3-guestfs in the AWS target (engine_image_id).",
    )


def _newest(images: list[Any], *, laboratory: bool) -> EngineImage:
    image = max(images, key=lambda item: str(item.get("CreationDate", "")))
    return EngineImage(image["ImageId"], image.get("RootDeviceName", "/dev/sda1"), laboratory)
