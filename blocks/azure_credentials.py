"""How a worker proves to Azure who it is."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, HttpUrl, SecretStr, StringConstraints, model_validator

from blocks._block import ImageportBlock
from blocks._secret_sources import read_secret
from imageport.clouds.azure.credentials import AzureLogin
from imageport.clouds.azure.settings import AzureSettings

AZURE_LOGO = HttpUrl(
    "https://raw.githubusercontent.com/PrefectHQ/prefect/420d0d6a78bb6df1fc18bcf188fdad43c1d22ea9/assets/block-logos/microsoft-azure.png"
)
Guid = Annotated[
    str,
    StringConstraints(pattern=r"^([0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})?$"),
]


# prefect-azure has no such block: its credentials reach a storage account or container instances.
class AzureCredentials(ImageportBlock):
    """An identity in Microsoft Entra ID, by the way that a worker obtains its tokens.

    In order of advice: the managed identity of the worker's machine (nothing is stored anywhere),
    workload federation (a token file of the worker's own platform), a service principal.

    Example:
        Load saved credentials:
        ```python
        from blocks import AzureCredentials

        credentials = AzureCredentials.load("BLOCK_NAME")
        ```
    """

    _block_type_name = "Azure Credentials (imageport)"
    _block_type_slug = "imageport-azure-credentials"
    _description = "Managed identity, workload federation or service principal for Azure."
    _logo_url = AZURE_LOGO
    _documentation_url = HttpUrl(
        "https://learn.microsoft.com/entra/identity/managed-identities-azure-resources/overview"
    )

    kind: Literal["managed_identity", "workload_federation", "service_principal"] = Field(
        default="managed_identity",
        description="How the worker proves who it is; the first that your worker can do is best.",
    )
    tenant_id: Guid = Field(
        default="",
        title="Tenant",
        description="Directory (tenant) id; federation takes AZURE_TENANT_ID of the worker when "
        "empty, a managed identity needs none.",
    )
    client_id: Guid = Field(
        default="",
        title="Client",
        description="Application (client) id; empty is the machine's system-assigned identity, "
        "or for federation AZURE_CLIENT_ID of the worker.",
    )
    token_file: str = Field(
        default="",
        description="File on the worker with the federated token; empty takes the file that "
        "AZURE_FEDERATED_TOKEN_FILE names.",
    )
    client_secret: SecretStr | None = Field(
        default=None,
        description="Secret of a service principal, readable by every client of this API; better "
        "name a source below.",
    )
    client_secret_variable: str = Field(
        default="", description="Environment variable of the worker that holds the secret."
    )
    client_secret_file: str = Field(
        default="", description="File on the worker's machine that holds the secret."
    )
    certificate_file: str = Field(
        default="",
        description="File on the worker's machine with the certificate and key of a service "
        "principal, instead of a secret.",
    )

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        problems = list(self._problems())
        if problems:
            raise ValueError(f"Bad {self.kind.replace('_', ' ')}: found {'; '.join(problems)}.")
        return self

    def _problems(self) -> list[str]:
        """Return everything that this kind lacks, or has without using it."""
        sources = {name: value for name, value in self._secret_sources().items() if value}
        if self.kind == "service_principal":
            ids = {"tenant_id": self.tenant_id, "client_id": self.client_id}
            lacking = [f"no {name}, needed one" for name, value in ids.items() if not value]
            if len(sources) != 1:
                found = " and ".join(sources) or "no secret"
                lacking.append(f"{found}, needed exactly one source of it")
            unused: dict[str, object] = {"token_file": self.token_file}
        else:
            lacking, unused = [], dict(sources)
        if self.kind == "managed_identity":
            unused |= {"tenant_id": self.tenant_id, "token_file": self.token_file}
        return lacking + [f"{name}, needed none" for name, value in unused.items() if value]

    def _secret_sources(self) -> dict[str, object]:
        return {
            "client_secret": self.client_secret is not None,
            "client_secret_variable": self.client_secret_variable,
            "client_secret_file": self.client_secret_file,
            "certificate_file": self.certificate_file,
        }

    def login(self, settings: AzureSettings) -> AzureLogin:
        """Return the login at the settings' Azure cloud, a secret read from its source now."""
        what = f"the secret of Azure client '{self.client_id}'"
        return AzureLogin(
            kind=self.kind,
            tenant_id=self.tenant_id,
            client_id=self.client_id,
            client_secret=read_secret(
                what, self.client_secret, self.client_secret_variable, self.client_secret_file
            ),
            certificate_path=self.certificate_file,
            token_file=self.token_file,
            environment=settings.environment,
            proxy=settings.proxy,
            ca_bundle=settings.ca_bundle,
        )
