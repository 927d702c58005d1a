"""What a controller would never send: messages made of nothing, and good ones of which something is not."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count
from random import Random

from edge_agent.attempts.local_attempt import LocalAttempt
from edge_agent.attempts.phase import Phase
from shoal.model import Followed
from shoal.names import AttemptRef
from shoal.session.assignment import Assignment, Goal
from shoal.session.lane import Lane
from shoal.spec import FileInput, Job, Output, StreamInput
from shoal.v1 import session_service_pb2
from shoal.wire.assignment import encode_assignment
from shoal.wire.attempt import encode_attempt_ref
from tests.kit.hostile import Hostile
from tests.kit.spoken import SPOKEN_SESSIONS

v1 = session_service_pb2

LANE = Lane("camera.frames/detector.frames", output=True, port="frames")
JOBS = (
    Job("plain", ("true",), archive=("results/**",)),
    Job("camera", ("true",), outputs=(Output("frames"),)),
    Job(
        "detector",
        ("true",),
        streams=(StreamInput("frames", "camera", "frames"),),
        files=(FileInput("model", "https://h/x", "in/x"),),
    ),
)


class HostileController:
    """Makes messages.

    Args:
        rng: where chance comes from.
        known: the attempts of the agent, which most messages are about.
    """

    def __init__(self, rng: Random, known: Callable[[], Sequence[LocalAttempt]]) -> None:
        self._rng = rng
        self._known = known
        self._hostile = Hostile(rng, self._names)
        self._epochs = count(1)

    def welcome(self, followed: Followed) -> v1.Welcome:
        """A welcome of the controller that is followed, or of one that is much like it."""
        welcome = v1.Welcome(
            controller_id="c",
            lease_seconds=6,
            heartbeat_seconds=1,
            cluster_id=followed.cluster_id,
            term=followed.term,
            start_id=followed.start_id,
            adopted=self._rng.random() < 0.1,
            protocols=SPOKEN_SESSIONS,
        )
        self._hostile.spoil(welcome, self._rng.choice((0.0, 0.3)))
        return welcome

    def response(self, sequence: int, acknowledged: int) -> v1.ConnectResponse:
        """An empty batch with these numbers, or now and then with others."""
        response = v1.ConnectResponse(sequence=sequence, acknowledged=acknowledged)
        if self._rng.random() < 0.02:
            self._hostile.spoil(response, 0.5)
            del response.messages[:]
        return response

    def _names(self) -> Sequence[str]:
        names = [record.ref.name for record in list(self._known())[-6:]]
        return [*names, "default", "frames", LANE.id, "FENCED", "results/x"]

    def message(self) -> v1.ControllerMessage:
        """A message: made of nothing, or a good one of which something is not."""
        if self._rng.random() < 0.2:
            return self._hostile.message(v1.ControllerMessage)
        known = list(self._known())[-12:]
        message = v1.ControllerMessage()
        match self._rng.randrange(8):
            case 0 if known:
                granted = message.uploads_granted
                granted.ref.CopyFrom(encode_attempt_ref(self._granting(known).ref))
                granted.grants.add(path="results/x", key="k", url="https://h/x")
            case 1 if known:
                message.refused.ref.CopyFrom(encode_attempt_ref(self._rng.choice(known).ref))
                message.refused.reason = self._rng.choice(("FENCED", "INVALID"))
            case 2 if known:
                message.desired.removed.add().CopyFrom(
                    encode_attempt_ref(self._rng.choice(known).ref)
                )
            case _:
                self._want(message.desired, known)
        self._hostile.spoil(message, self._rng.choice((0.0, 0.0, 0.003, 0.01, 0.03, 0.2)))
        return message

    def _granting(self, known: Sequence[LocalAttempt]) -> LocalAttempt:
        waiting = [record for record in known if record.phase is Phase.GRANTING]
        return self._rng.choice(waiting or known)

    def _want(self, desired: v1.Desired, known: Sequence[LocalAttempt]) -> None:
        desired.snapshot = self._rng.random() < 0.05
        desired.commit = self._rng.randrange(100)
        if self._rng.random() < 0.1:
            desired.part, desired.more = self._rng.choice(((0, True), (1, True), (1, False)))
        for _ in range(self._rng.choice((1, 1, 2, 5))):
            if known and self._rng.random() < 0.5:
                old = self._rng.choice(known).assignment
                wanted = replace(old, goal=self._rng.choice(tuple(Goal)))
            else:
                wanted = self._fresh()
            desired.assignments.add().CopyFrom(encode_assignment(wanted))

    def _fresh(self) -> Assignment:
        job, epoch = self._rng.choice(JOBS), next(self._epochs)
        ref = AttemptRef("default", self._rng.choice(("p", "q")), job.name, epoch, epoch)
        urls = {file.name: file.source for file in job.files}
        return Assignment(ref, job, file_urls=urls, lanes=(LANE,) if job.outputs else ())
