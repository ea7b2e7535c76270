# References: Amazon EC2 API: RunInstances, StartInstances, StopInstances, TerminateInstances.
"""Launching, and the answers that moto gives too easily; the states are in `machine_states`."""

from __future__ import annotations

import base64
from typing import Any

from moto.core.responses import ActionResult
from moto.core.types import Base64EncodedString
from moto.core.utils import utcnow
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models.instances import Instance, InstanceBackend, InstanceState
from moto.ec2.models.security_groups import SecurityGroupBackend
from moto.ec2.responses.general import General
from moto.ec2.responses.instances import InstanceResponse

from imageport.sandbox.aws import machine_states
from imageport.sandbox.aws.client_tokens import idempotent
from imageport.sandbox.aws.ec2_capacity import check_launch
from imageport.sandbox.aws.emulator import current
from imageport.sandbox.aws.moto_patches import replaces
from imageport.sandbox.machines.screenshot import BLACK_JPEG

USER_DATA_BYTES = 16 * 1024
CONSOLE_BYTES = 64 * 1024

_moto_run_response = InstanceResponse.run_instances
_moto_run = InstanceBackend.run_instances
_moto_delete_group = SecurityGroupBackend.delete_security_group


@replaces(InstanceResponse, "run_instances", "moto ignores ClientToken")
def _run_instances_response(self: InstanceResponse) -> ActionResult:
    return idempotent(self, "RunInstances", lambda: _moto_run_response(self))


@replaces(InstanceResponse, "_parse_block_device_mapping", "moto forgets the image's own devices")
def _block_device_mapping(self: InstanceResponse) -> list[dict[str, Any]]:
    image_id = self._get_param("ImageId")
    asked = {item["DeviceName"]: item for item in self._get_param("BlockDeviceMappings", [])}
    devices = []
    for mapping in self.ec2_backend.describe_images(ami_ids=[image_id])[0].block_device_mappings:
        changes = asked.pop(mapping["DeviceName"], {}).get("Ebs", {})
        devices.append({**mapping, "Ebs": {**mapping["Ebs"], **changes}})
    devices += asked.values()
    return [_template(item) for item in devices]


def _template(mapping: dict[str, Any]) -> dict[str, Any]:
    names = ("SnapshotId", "VolumeSize", "VolumeType", "Iops", "Encrypted", "KmsKeyId")
    ebs = {name: mapping.get("Ebs", {}).get(name) for name in names}
    ebs["Encrypted"] = bool(ebs["Encrypted"])
    ebs["DeleteOnTermination"] = bool(mapping.get("Ebs", {}).get("DeleteOnTermination", True))
    return {"DeviceName": mapping["DeviceName"], "Ebs": ebs, "NoDevice": mapping.get("NoDevice")}


@replaces(InstanceBackend, "run_instances", "moto's machines run at once and do nothing")
def _run_instances(self: Any, *arguments: Any, **chosen: Any) -> Any:
    user_data = arguments[2] if len(arguments) > 2 else chosen.get("user_data")
    if user_data and len(base64.b64decode(str(user_data))) > USER_DATA_BYTES:
        raise EC2ClientError("InvalidParameterValue", "User data is limited to 16384 bytes")
    with current().lock:
        nics = chosen.get("nics") or [{}]
        subnet_id = chosen.get("subnet_id") or nics[0].get("SubnetId")
        check_launch(self, str(chosen["instance_type"]), subnet_id, int(arguments[1]))
        reservation = _moto_run(self, *arguments, **chosen)
        for instance in reservation.instances:
            machine_states.launch(instance)
    return reservation


@replaces(Instance, "start", "moto starts what is not stopped or has no root, at once")
def _start(self: Instance) -> InstanceState:
    return machine_states.start(self)


@replaces(Instance, "stop", "moto stops anything at once")
def _stop(self: Instance) -> InstanceState:
    return machine_states.stop(self)


@replaces(Instance, "terminate", "moto terminates at once and deletes volumes unconditionally")
def _terminate(self: Instance) -> InstanceState:
    return machine_states.terminate(self)


@replaces(Instance, "reboot", "moto makes any machine running")
def _reboot(self: Instance) -> None:
    if self.state != "running":
        raise EC2ClientError("IncorrectState", f"The instance '{self.id}' is not 'running'.")


@replaces(General, "get_console_output", "moto tells of a Xen kernel of 2006")
def _console_output(self: General) -> ActionResult:
    self.error_on_dryrun()
    instance = self.ec2_backend.get_instance(self._get_param("InstanceId"))
    text = current().hypervisor.console(instance.id)[-CONSOLE_BYTES:]
    answer: dict[str, Any] = {"InstanceId": instance.id, "Timestamp": utcnow()}
    if text:
        answer["Output"] = Base64EncodedString.from_raw_string(text)
    return ActionResult(answer)


@replaces(General, "get_console_screenshot", "moto has none")
def _console_screenshot(self: General) -> ActionResult:
    self.error_on_dryrun()
    instance = self.ec2_backend.get_instance(self._get_param("InstanceId"))
    if instance.state != "running":
        raise EC2ClientError(
            "IncorrectInstanceState", f"The instance {instance.id} is not running."
        )
    image = base64.b64encode(BLACK_JPEG).decode()
    return ActionResult({"InstanceId": instance.id, "ImageData": image})


@replaces(SecurityGroupBackend, "delete_security_group", "moto deletes groups of live machines")
def _delete_group(self: Any, name: str | None = None, group_id: str | None = None) -> None:
    with current().lock:
        for interface in self.enis.values():
            if group_id in [group.id for group in interface.group_set]:
                raise EC2ClientError(
                    "DependencyViolation", f"resource {group_id} has a dependent object"
                )
        _moto_delete_group(self, name, group_id)
