"""An SMB file share and how to log in to it."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, HttpUrl, StringConstraints, model_validator

from blocks._block import ImageportBlock
from blocks._secret_sources import (
    PasswordFile,
    PasswordVariable,
    StoredPassword,
    read_secret,
)
from imageport.storage.folder import Folder
from imageport.storage.locate import open_folder
from imageport.storage.smb_location import SmbCredentials

Host = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]+$|^\[[0-9A-Fa-f:.]+\]$")]
ShareName = Annotated[str, StringConstraints(pattern=r'^[^\\/:*?"<>|\x00-\x1f]{1,80}$')]
RelativeFolder = Annotated[str, StringConstraints(pattern=r'^[^\\:*?"<>|\x00-\x1f]*$')]


class SmbShare(ImageportBlock):
    """A share on a Windows or Samba file server that PVS stores or exports lie on.

    Example:
        Load a saved share:
        ```python
        from blocks import SmbShare

        share = SmbShare.load("BLOCK_NAME")
        ```
    """

    _block_type_name = "SMB Share (imageport)"
    _block_type_slug = "imageport-smb-share"
    _description = "A file share with vDisks on it, and how a worker logs in."
    _logo_url = HttpUrl(
        "https://cdn.sanity.io/images/3ugk85nk/production/3f624663f7beb97d011d011bffd51ecf6c499efc-195x195.png"
    )
    _documentation_url = HttpUrl(
        "https://learn.microsoft.com/windows-server/storage/file-server/file-server-smb-overview"
    )

    host: Host = Field(description="File server: a DNS name or an address.")
    port: int = Field(default=445, ge=1, le=65535, description="TCP port of the file server.")
    share: ShareName = Field(description="Name of the share.")
    folder: RelativeFolder = Field(
        default="", description="Folder inside the share, with forward slashes; empty is its root."
    )
    username: str = Field(default="", description="User who may read, and write if published to.")
    password: StoredPassword = None
    password_variable: PasswordVariable = ""
    password_file: PasswordFile = ""
    domain: str = Field(default="", description="Windows domain of the user.")
    auth: Literal["negotiate", "kerberos", "ntlm"] = Field(
        default="negotiate", description="How to prove who we are; kerberos allows no fall-back."
    )
    encrypt: bool = Field(default=False, description="Refuse a connection that is not encrypted.")
    require_signing: bool = Field(
        default=True, description="Refuse a connection whose messages are not signed."
    )

    @model_validator(mode="after")
    def _one_password(self) -> Self:
        given = [self.password is not None, self.password_variable, self.password_file]
        if sum(map(bool, given)) > 1:
            raise ValueError("Bad password: found several sources, needed one or none (Kerberos).")
        return self

    @property
    def location(self) -> str:
        """Return ``smb://host:port/share/folder``; holds no secret."""
        port = "" if self.port == 445 else f":{self.port}"
        folder = self.folder.strip("/")
        return f"smb://{self.host}{port}/{self.share}" + (f"/{folder}" if folder else "")

    def credentials(self) -> SmbCredentials:
        """Return user and password, the password read from its source now."""
        what = f"the password of '{self.location}'"
        return SmbCredentials(
            username=self.username,
            password=read_secret(what, self.password, self.password_variable, self.password_file),
            domain=self.domain,
            auth=self.auth,
            encrypt=self.encrypt,
            require_signing=self.require_signing,
        )

    def open_folder(self, below: str = "") -> Folder:
        """Connect and return the folder, or one below it; the caller closes it."""
        below = below.strip("/")
        location = f"{self.location}/{below}" if below else self.location
        return open_folder(location, self.credentials())
