"""vCenter and XenServer: where master images live, and how a worker logs in."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, HttpUrl, model_validator

from blocks._block import ImageportBlock
from blocks._secret_sources import (
    PasswordFile,
    PasswordVariable,
    StoredPassword,
    read_secret,
)
from blocks.shares import Host
from imageport.hypervisor import Hypervisor

_THUMBPRINT = "([0-9a-fA-F]{64}|([0-9a-fA-F]{2}:){31}[0-9a-fA-F]{2})"


class _Connection(ImageportBlock):
    """What every connection to a hypervisor needs; a certificate is always checked."""

    host: Host = Field(description="Server: a DNS name or an address.")
    port: int = Field(default=443, ge=1, le=65535, description="TCP port of the server.")
    username: str = Field(min_length=1, description="User with the privileges that docs name.")
    password: StoredPassword = None
    password_variable: PasswordVariable = ""
    password_file: PasswordFile = ""
    thumbprint: str = Field(
        default="",
        pattern=f"^{_THUMBPRINT}?$",
        description="SHA-256 of the server's certificate, which then is trusted and no other.",
    )
    ca_file: str = Field(
        default="",
        title="CA file",
        description="File on the worker with the private CA that signed the certificates; empty "
        "takes the site's, then the system's authorities.",
    )

    @model_validator(mode="after")
    def _one_password(self) -> Self:
        given = [self.password is not None, self.password_variable, self.password_file]
        if sum(map(bool, given)) != 1:
            raise ValueError("Bad password: found none or several sources, needed one.")
        return self

    @property
    def location(self) -> str:
        """Return the server; holds no secret."""
        return self.host if self.port == 443 else f"{self.host}:{self.port}"

    def _settings(self, proxy: str, ca_bundle: str) -> dict[str, Any]:
        """Return what the library's settings take, the password read from its source now."""
        what = f"the password of '{self.location}'"
        return {
            "host": self.host,
            "port": self.port,
            "username": self.username,
            "password": read_secret(
                what, self.password, self.password_variable, self.password_file
            ),
            "thumbprint": self.thumbprint,
            "ca_file": self.ca_file or ("" if self.thumbprint else ca_bundle),
            "proxy": proxy,
        }


class VsphereConnection(_Connection):
    """A vCenter server, or one ESXi host.

    Example:
        Load a saved connection:
        ```python
        from blocks import VsphereConnection

        vcenter = VsphereConnection.load("BLOCK_NAME")
        ```
    """

    _block_type_name = "vSphere Connection (imageport)"
    _block_type_slug = "imageport-vsphere"
    _description = "A vCenter with master images, and how a worker logs in."
    _logo_url = HttpUrl(
        "https://cdn.sanity.io/images/3ugk85nk/production/3f624663f7beb97d011d011bffd51ecf6c499efc-195x195.png"
    )
    _documentation_url = HttpUrl("https://developer.broadcom.com/xapis/vsphere-web-services-api")

    def open_hypervisor(self, *, proxy: str = "", ca_bundle: str = "") -> Hypervisor:
        """Return the vCenter; it logs in when it is first asked. The caller closes it."""
        from imageport.hypervisors.vsphere.hypervisor import VsphereHypervisor  # noqa: PLC0415 - a second's import that other runs spare
        from imageport.hypervisors.vsphere.settings import VsphereSettings  # noqa: PLC0415 - same

        return VsphereHypervisor(VsphereSettings(**self._settings(proxy, ca_bundle)))


class XenServerConnection(_Connection):
    """A XenServer or XCP-ng pool, by its coordinator.

    Example:
        Load a saved connection:
        ```python
        from blocks import XenServerConnection

        pool = XenServerConnection.load("BLOCK_NAME")
        ```
    """

    _block_type_name = "XenServer Connection (imageport)"
    _block_type_slug = "imageport-xenserver"
    _description = "A XenServer pool with master images, and how a worker logs in."
    _logo_url = HttpUrl(
        "https://cdn.sanity.io/images/3ugk85nk/production/3f624663f7beb97d011d011bffd51ecf6c499efc-195x195.png"
    )
    _documentation_url = HttpUrl("https://docs.xenserver.com/")

    thumbprint: str = Field(
        default="",
        pattern=f"^({_THUMBPRINT}( *, *{_THUMBPRINT})*)?$",
        description="SHA-256 of each host's certificate, separated by commas: every host of a pool "
        "has its own, and disks come from the one that has their storage.",
    )

    def open_hypervisor(self, *, proxy: str = "", ca_bundle: str = "") -> Hypervisor:
        """Return the pool; it logs in when it is first asked. The caller closes it."""
        from imageport.hypervisors.xenserver.hypervisor import XenServerHypervisor  # noqa: PLC0415 - spares other runs its import
        from imageport.hypervisors.xenserver.settings import XenServerSettings  # noqa: PLC0415 - same

        return XenServerHypervisor(XenServerSettings(**self._settings(proxy, ca_bundle)))


HypervisorConnection = VsphereConnection | XenServerConnection
"""What a run form takes; a saved block of either kind."""
CONNECTIONS = (VsphereConnection, XenServerConnection)
