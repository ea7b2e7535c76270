"""When a task runs again, and when an earlier result stands for it."""

from typing import Any

import pytest
from prefect import flow, task
from prefect.states import Completed, Failed

from imageport.errors import BadDisk, CloudThrottled, ImageportError, LeaseHeld, ShareUnreachable
from tasks import export, preflight, prepare, publish, upload, verify
from tasks._branch import Branch, working_for
from tasks._policies import REMEMBERED, RETRYING, StepKey, is_retryable
from tasks.models import Route, SourceIdentity

ROUTE = Route(source="a", target="b", cloud="imageport-aws-target/c", place="aws/r/b")


def key(policy: StepKey, **inputs: Any) -> str | None:
    return policy.compute_key(None, inputs, {})  # type: ignore[arg-type]


def test_two_steps_with_equal_inputs_have_two_keys() -> None:
    upload_key = key(StepKey(step="upload", inputs=("image",)), image="gold")
    prepare_key = key(StepKey(step="prepare", inputs=("image",)), image="gold")
    assert upload_key is not None
    assert upload_key.startswith("imageport-upload-v1-")
    assert upload_key.rpartition("-")[2] == str(prepare_key).rpartition("-")[2]
    assert upload_key != prepare_key


@pytest.mark.parametrize(
    "step",
    [
        preflight.identify, preflight.preflight, upload.upload, upload.compose_and_upload,
        prepare.prepare, export.preflight_master,
    ],
    ids=lambda step: str(step.name),
)  # fmt: skip
def test_what_a_run_does_for_each_of_several_targets_is_named_after_it(step: Any) -> None:
    assert step.task_run_name.endswith(" for {route.place}")


def test_a_new_version_of_a_step_forgets_earlier_results() -> None:
    one = key(StepKey(step="upload", version=1, inputs=("image",)), image="gold")
    two = key(StepKey(step="upload", version=2, inputs=("image",)), image="gold")
    assert one != two


def test_only_the_named_inputs_count() -> None:
    policy = StepKey(step="upload", inputs=("route", "source_key"))
    same = [
        key(policy, route=ROUTE, source_key="k", keep_parent=flag, image="gold")
        for flag in (True, False)
    ]
    assert same[0] == same[1]
    assert key(policy, route=ROUTE, source_key="other") != same[0]
    elsewhere = ROUTE.model_copy(update={"place": "aws/r2/b"})
    assert key(policy, route=elsewhere, source_key="k") != same[0]


def test_a_key_over_nothing_is_a_mistake() -> None:
    with pytest.raises(KeyError):
        key(StepKey(step="upload"), image="gold")
    with pytest.raises(KeyError):
        key(StepKey(step="upload", inputs=("missing",)), image="gold")


@pytest.mark.parametrize(
    "made", [upload.upload, upload.compose_and_upload, prepare.prepare, preflight.preflight]
)
def test_remembered_results_are_json_and_keyed_by_step(made: Any) -> None:
    assert isinstance(made.cache_policy, StepKey)
    assert made.cache_policy.step == made.name
    assert set(made.cache_policy.inputs) <= set(made.fn.__annotations__)
    assert made.result_serializer == "json"
    assert made.persist_result is True


@pytest.mark.parametrize("made", [publish.publish, verify.verify, preflight.identify])
def test_what_the_store_itself_knows_is_never_remembered(made: Any) -> None:
    assert not made.persist_result


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (CloudThrottled("Cannot put block 1: slow down."), True),
        (ShareUnreachable("Cannot reach 'files'."), True),
        (LeaseHeld("Cannot take the lease."), True),
        (BadDisk("Bad header."), False),
        (ValueError("not ours"), False),
        (KeyboardInterrupt(), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_error_alone_decides_whether_to_try_again(error: BaseException, again: bool) -> None:
    assert is_retryable(None, None, Failed(data=error)) is again  # type: ignore[arg-type]


def test_a_good_state_is_not_tried_again() -> None:
    assert is_retryable(None, None, Completed(data=1)) is False  # type: ignore[arg-type]


def test_a_branch_of_a_run_that_is_being_ended_does_not_wait_for_another_try() -> None:
    failed = Failed(data=CloudThrottled("Cannot go on."))
    with working_for(Branch("aws", ended=lambda: True)):
        assert is_retryable(None, None, failed) is False  # type: ignore[arg-type]


@pytest.mark.prefect
@pytest.mark.usefixtures("prefect_server")
def test_prefect_tries_again_what_may_mend_and_nothing_else() -> None:
    tries = {"throttled": 0, "bad": 0}

    @task(**{**RETRYING, "retry_delay_seconds": 0, "retry_jitter_factor": None})
    def throttled() -> str:
        tries["throttled"] += 1
        if tries["throttled"] < 3:
            raise CloudThrottled("Cannot put block 1: slow down.")
        return "done"

    @task(**{**RETRYING, "retry_delay_seconds": 0, "retry_jitter_factor": None})
    def bad() -> None:
        tries["bad"] += 1
        raise BadDisk("Bad header.")

    @flow
    def both() -> str:
        with pytest.raises(ImageportError):
            bad()
        return throttled()

    assert both() == "done"
    assert tries == {"throttled": 3, "bad": 1}


@pytest.mark.prefect
@pytest.mark.usefixtures("prefect_server")
def test_a_result_is_taken_over_by_a_later_run_unless_it_is_refreshed() -> None:
    ran: list[str] = []

    @task(cache_policy=StepKey(step="counted", inputs=("route", "key")), **REMEMBERED)
    def counted(route: Route, key: str, quiet: bool = True) -> Route:
        ran.append(f"{key} {quiet}")
        return route

    @flow
    def once(refresh: bool = False) -> Route:
        return counted.with_options(refresh_cache=refresh)(ROUTE, "k", quiet=refresh)

    assert [once(), once()] == [ROUTE, ROUTE]
    assert len(ran) == 1
    once(refresh=True)
    assert len(ran) == 2


def test_what_is_composed_at_the_site_is_remembered_by_its_options_too() -> None:
    policy = upload.compose_and_upload.cache_policy
    identity = SourceIdentity(
        image="gold", source_key="k", options_key="o", engine_id="e", size_bytes=1, prepared_id=""
    )
    same = {"route": ROUTE, "image": "gold", "keep_parent": True}
    known = key(policy, identity=identity, **same)
    for name in ("source_key", "options_key", "engine_id"):
        changed = identity.model_copy(update={name: "other"})
        assert key(policy, identity=changed, **same) != known, name
