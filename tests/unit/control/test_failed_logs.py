"""Where the logs of failed attempts are: recorded after their end, once, and nothing else comes so late."""

import pytest

from shoal.model import Artifact, JobState, Reason, ReasonCode
from shoal.names import AttemptRef
from shoal.session.observation import Observation
from shoal.spec import Retry
from tests.unit.control.desk import Desk
from tests.unit.control.world import single

BROKE = Reason(ReasonCode.EXIT, 3, "it said so")


def logs(ref: AttemptRef, *paths: str) -> tuple[Artifact, ...]:
    return tuple(Artifact(path, 4, "ab" * 32, f"{ref.prefix}/out/{path}") for path in paths)


def failed(desk: Desk, attempts: int = 1) -> AttemptRef:
    """The first attempt of a job, which failed."""
    desk.dial_all("n1")
    pipeline = desk.submit(single(retry=Retry(attempts=attempts, backoff_seconds=60.0)))
    ref = desk.current(pipeline, "main")
    desk.fail(pipeline, "main")
    return ref


@pytest.mark.parametrize("attempts", [1, 2], ids=["the last attempt", "one that is tried again"])
def test_the_logs_of_an_attempt_that_failed_are_recorded_when_they_come(attempts: int) -> None:
    desk = Desk()
    ref = failed(desk, attempts)
    seen = Observation(ref, JobState.FAILED, BROKE, logs(ref, "stdout", "stderr"))
    for _ in range(2):
        assert desk.say("n1", seen) == ()
        job = desk.job(ref.job_ref.pipeline_ref, "main")
        assert job.attempts[0].artifacts == seen.artifacts
        assert job.attempts[0].state is JobState.FAILED
        assert job.manifest is None
    desk.start()
    assert desk.job(ref.job_ref.pipeline_ref, "main").attempts[0].artifacts == seen.artifacts


@pytest.mark.parametrize("path", ["results/x", "../stdout", "elsewhere"])
def test_nothing_but_logs_under_its_own_prefix_comes_after_an_end(path: str) -> None:
    desk = Desk()
    ref = failed(desk)
    other = ref._replace(number=9)
    late = logs(other, "stdout") if path == "elsewhere" else logs(ref, path)
    assert desk.say("n1", Observation(ref, JobState.FAILED, BROKE, late)) == ()
    assert desk.job(ref.job_ref.pipeline_ref, "main").attempts[0].artifacts == ()
