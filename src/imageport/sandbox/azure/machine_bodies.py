# References: Azure REST API, Virtual Machines - Create Or Update, Update (2026-04-01).
"""Members of the bodies of a virtual machine."""

from __future__ import annotations

from imageport.sandbox.azure.arm_body import READ_ONLY, Members

_ID: Members = {"id": None}
_MANAGED: Members = {
    "id": None, "storageAccountType": None, "diskEncryptionSet": _ID, "securityProfile": None,
}  # fmt: skip
DATA_DISK: Members = {
    "lun": None, "name": None, "caching": None, "writeAcceleratorEnabled": None,
    "createOption": None, "diskSizeGB": None, "managedDisk": _MANAGED, "toBeDetached": None,
    "detachOption": None, "deleteOption": None, "sourceResource": _ID,
    "diskIOPSReadWrite": None, "diskMBpsReadWrite": None,
}  # fmt: skip
STORAGE: Members = {
    "imageReference": {
        "id": None, "publisher": None, "offer": None, "sku": None, "version": None,
        "exactVersion": None,
    },
    "osDisk": {
        "osType": None, "name": None, "caching": None, "createOption": None, "diskSizeGB": None,
        "managedDisk": _MANAGED, "deleteOption": None, "writeAcceleratorEnabled": None,
    },
    "dataDisks": [DATA_DISK],
    "diskControllerType": None,
    "alignRegionalDisksToVMZone": None,
}  # fmt: skip
_PUBLIC: Members = {
    "name": None,
    "properties": {
        "deleteOption": None, "publicIPAllocationMethod": None, "publicIPAddressVersion": None,
        "idleTimeoutInMinutes": None,
    },
    "sku": {"name": None, "tier": None},
}  # fmt: skip
_ADDRESS: Members = {
    "name": None,
    "properties": {
        "subnet": _ID, "primary": None, "publicIPAddressConfiguration": _PUBLIC,
        "privateIPAddressVersion": None, "applicationSecurityGroups": None,
    },
}  # fmt: skip
_INTERFACE: Members = {
    "name": None,
    "tags": None,
    "properties": {
        "primary": None, "deleteOption": None, "enableAcceleratedNetworking": None,
        "enableIPForwarding": None, "networkSecurityGroup": _ID,
        "dnsSettings": {"dnsServers": None}, "ipConfigurations": [_ADDRESS],
        "disableTcpStateTracking": None,
    },
}  # fmt: skip
PROPERTIES: Members = {
    "hardwareProfile": {"vmSize": None},
    "storageProfile": STORAGE,
    "osProfile": {
        "computerName": None, "adminUsername": None, "adminPassword": None, "customData": None,
        "linuxConfiguration": {
            "disablePasswordAuthentication": None,
            "ssh": {"publicKeys": [{"path": None, "keyData": None}]},
            "provisionVMAgent": None, "patchSettings": None, "enableVMAgentPlatformUpdates": None,
        },
        "windowsConfiguration": None, "secrets": None, "allowExtensionOperations": None,
        "requireGuestProvisionSignal": None,
    },
    "networkProfile": {
        "networkApiVersion": None,
        "networkInterfaces": [{"id": None, "properties": {"primary": None, "deleteOption": None}}],
        "networkInterfaceConfigurations": [_INTERFACE],
    },
    "securityProfile": {
        "securityType": None, "encryptionAtHost": None,
        "uefiSettings": {"secureBootEnabled": None, "vTpmEnabled": None},
    },
    "diagnosticsProfile": {"bootDiagnostics": {"enabled": None, "storageUri": None}},
    "licenseType": None, "priority": None, "evictionPolicy": None,
    "billingProfile": {"maxPrice": None}, "userData": None, "extensionsTimeBudget": None,
    # Read-only.
    "provisioningState": None, "vmId": None, "timeCreated": None, "instanceView": None,
}  # fmt: skip
BODY: Members = {
    **READ_ONLY, "location": None, "tags": None, "zones": [None], "identity": None,
    "properties": PROPERTIES,
}  # fmt: skip
UPDATE: Members = {
    "tags": None, "zones": [None], "identity": None, "properties": PROPERTIES,
}  # fmt: skip
