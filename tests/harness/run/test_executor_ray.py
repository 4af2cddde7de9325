"""The executor for Ray, without Ray's own processes."""

import pytest

from harness.run.executor import LostError
from tests.harness.run.executors import needs


@pytest.mark.parametrize("cancelled", [False, True])
def test_only_a_run_that_was_cancelled_here_is_not_begun_again(
    cancelled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs("ray")
    import ray

    from harness.run.executor_ray import RayJob

    def get(reference: object) -> None:
        raise ray.exceptions.TaskCancelledError  # as Ray also says of a process that got SIGTERM

    monkeypatch.setattr(ray, "get", get)
    monkeypatch.setattr(ray, "cancel", lambda reference, force: None)
    job = RayJob(object())
    if cancelled:
        job.cancel()
    with pytest.raises(LostError) as lost:
        job.result()
    assert lost.value.again is not cancelled
