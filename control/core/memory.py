"""What the control machine has in memory, and what has to be read from the store before a step.

Rule: pipelines that have not ended are in memory, as records or in the queue; ended ones are in the
store alone, but for those that ended last. Request ids are in the store alone, but for those that
were used last.

Invariant: when an event is handled, everything that it names is in memory if the store has it. So
the machine stays pure: `missing` says what a batch of events names, the leader reads that, and
`learn` takes it. No commit is under way meanwhile, so what is read is what counts.

Example: an agent repeats the end of an attempt since its acknowledgement was lost, an hour later. Its
pipeline has ended: it is read again, the repetition is found to be one, and it is dropped again later.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from control.core import events
from control.core.hydration import records
from control.core.machine_part import MachinePart
from control.core.rows import FoundRows, KnownRequest, Queued, RequestKey
from control.core.state import PipelineRecord
from shoal.names import PipelineRef

REQUESTS_IN_MEMORY = 10_000


class Memory(MachinePart):
    """Remembers and forgets pipelines and requests."""

    def remember(self, pipeline: PipelineRecord) -> None:
        """Keep a pipeline that has not ended in memory."""
        self._cluster.keep(pipeline)
        self._situation.open += 1

    def line_up(self, queued: Sequence[Queued]) -> None:
        """Put the next pipelines of the queue that the store has behind those that were read before."""
        self._situation.open += len(queued)
        for row in queued:
            self._cluster.queued[row.ref] = row
            self._situation.backlog.line_up(row.ref, row.kind)

    def remember_request(self, key: RequestKey, known: KnownRequest) -> None:
        """Keep a request in memory for as long as it is one of the last."""
        requests = self._situation.requests
        requests[key] = known
        if len(requests) > REQUESTS_IN_MEMORY:
            requests.popitem(last=False)

    def missing(
        self, batch: Iterable[events.Event]
    ) -> tuple[Sequence[PipelineRef], Sequence[RequestKey]]:
        """Return the pipelines and requests that events name and that are not in memory."""
        refs: dict[PipelineRef, None] = {}
        keys: dict[RequestKey, None] = {}
        for event in batch:
            match event:
                case events.Submit():
                    asked = event.submission
                    if asked.request_id:
                        keys[asked.namespace, asked.request_id] = None
                case (
                    events.Cancel()
                    | events.Finish()
                    | events.Scale()
                    | events.Revive()
                    | events.Discard()
                ):
                    refs[event.ref] = None
                case events.Observed():
                    for one in event.observations:
                        refs[one.ref.pipeline_ref] = None
                case events.HelloReceived():
                    refs |= dict.fromkeys(one.ref.pipeline_ref for one in event.hello.attempts)
                case _:
                    pass
        return [ref for ref in refs if not self.has(ref)], [key for key in keys if self._lacks(key)]

    def _lacks(self, key: RequestKey) -> bool:
        """Whether a request is not in memory as it is; the store knows how a forgotten one ended."""
        known = self._situation.requests.get(key)
        return known is None or not self.remembers(known.ref)

    def has(self, ref: PipelineRef) -> bool:
        """Whether a pipeline is in memory."""
        cluster = self._cluster
        return ref in cluster.pipelines or ref in cluster.queued

    def remembers(self, ref: PipelineRef) -> bool:
        """Whether a pipeline is in memory, or has ended and is in the store."""
        return self.has(ref) or ref in self._situation.ended or ref in self._situation.dead

    def learn(self, found: FoundRows) -> None:
        """Take what was read; a pipeline that is in memory stays as it is."""
        for pipeline in records(found.rows, self._cluster):
            if pipeline.state.terminal and not self.has(pipeline.ref):
                self._cluster.pipelines[pipeline.ref] = pipeline
                self._situation.recent.append(pipeline.ref)
        for key, known in found.requests.items():
            self.remember_request(key, known)

    def trim(self) -> None:
        """Drop the ended pipelines from memory that are not among the last."""
        recent = self._situation.recent
        while len(recent) > self._config.ended_in_memory:
            self._cluster.pipelines.pop(recent.popleft(), None)

    def forget(self) -> None:
        """Drop the pipelines that ended longest ago for good, once there are too many."""
        ended = self._situation.ended
        while len(ended) > self._config.pipelines_ended_max:
            ref, _ = ended.popitem(last=False)
            self._cluster.pipelines.pop(ref, None)
            self._change.forgotten(ref)
