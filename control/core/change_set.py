"""What one step of the control machine changes, collected into effects in their order."""

from __future__ import annotations

from control.core import effects, rows
from control.core.state import AttemptRecord, JobRecord, NodeRecord, PipelineRecord
from shoal.names import AttemptRef, JobRef, PipelineRef


class ChangeSet:
    """Remembers which records were touched; each is written and shown once, as it is at the end.

    Args:
        start: This start of the control plane; each step that records something is a commit of it.
        revision: The last revision so far; each step that shows something has the next one.
        next_sequence: The outbox sequence that is not taken yet.
    """

    def __init__(self, start: rows.StartRow, revision: int, next_sequence: int) -> None:
        self.start = start
        self.revision = revision
        self._next_sequence = next_sequence
        self.node_changes = 0
        """How often a node changed in more than what is claimed of it."""
        self._begin()

    @property
    def last_sequence(self) -> int:
        """The outbox sequence that was taken last; 0 for none."""
        return self._next_sequence - 1

    def _begin(self) -> None:
        self._added: list[rows.PipelineAdded] = []
        self._pipelines: dict[PipelineRef, PipelineRecord] = {}
        self._jobs: dict[JobRef, JobRecord] = {}
        self._scales: dict[tuple[PipelineRef, int], rows.ScaleRow] = {}
        self._attempts: dict[AttemptRef, AttemptRecord] = {}
        self._nodes: dict[str, NodeRecord] = {}
        self._manifests: list[rows.ManifestRow] = []
        self._outbox: list[rows.OutboxRow] = []
        self._objects: list[rows.OutboxRow] = []
        self._forgotten: list[PipelineRef] = []
        self._shown_pipelines: dict[PipelineRef, PipelineRecord] = {}
        self._shown_nodes: dict[str, NodeRecord] = {}
        self._forgotten_nodes: dict[str, None] = {}
        self._desired: dict[str, None] = {}
        self._sessions: list[effects.EndSession | effects.Tell] = []
        self._answers: list[effects.Answer] = []
        self._identities: dict[str, rows.Row] = {}
        self._secrets: dict[tuple[str, str], rows.SecretRow | rows.SecretForgotten] = {}
        self._spans: list[rows.SpansRow] = []
        self._stored: dict[
            tuple[str, str, int],
            rows.StoredVersionRow | rows.StoredVersionForgotten | rows.StoredDeleted,
        ] = {}
        self._trust_changed = False

    def added(self, row: rows.PipelineAdded, pipeline: PipelineRecord) -> None:
        """A pipeline was submitted."""
        self._added.append(row)
        self._shown_pipelines[pipeline.ref] = pipeline

    def pipeline(self, pipeline: PipelineRecord) -> None:
        """A pipeline changed."""
        self._pipelines[pipeline.ref] = self._shown_pipelines[pipeline.ref] = pipeline

    def show_pipeline(self, pipeline: PipelineRecord) -> None:
        """A pipeline changed in what is only shown."""
        self._shown_pipelines[pipeline.ref] = pipeline

    def job(self, pipeline: PipelineRecord, job: JobRecord) -> None:
        """A job changed."""
        self._jobs[job.ref] = job
        self.show_job(pipeline, job)

    def show_job(self, pipeline: PipelineRecord, job: JobRecord) -> None:
        """A job changed in what is only shown."""
        job.view = None
        self._shown_pipelines[pipeline.ref] = pipeline

    def scale(self, pipeline: PipelineRecord, row: rows.ScaleRow) -> None:
        """The replicas of a job are being changed, or are no longer."""
        self._scales[row.ref, row.number] = row
        self._shown_pipelines[pipeline.ref] = pipeline

    def attempt(self, attempt: AttemptRecord) -> None:
        """An attempt changed; its job is said to have changed besides, in what is shown if no more."""
        self._attempts[attempt.ref] = attempt

    def node(self, node: NodeRecord) -> None:
        """A node changed."""
        self._nodes[node.name] = node
        self.node_changes += 1
        self.show_node(node)

    def show_node(self, node: NodeRecord) -> None:
        """A node changed in what is only shown, such as what is claimed of it."""
        node.snapshot = None
        self._shown_nodes[node.name] = node

    def forget_node(self, name: str) -> None:
        """A node is no longer remembered."""
        self._nodes.pop(name, None)
        self._shown_nodes.pop(name, None)
        self._forgotten_nodes[name] = None

    def manifest(self, row: rows.ManifestRow) -> None:
        """A job was committed."""
        self._manifests.append(row)

    def outbox(self, row: rows.OutboxRow) -> None:
        """A fact has to leave; the row, which was just made, gets the next sequence."""
        row.sequence = self._next_sequence
        if row.kind is rows.OutboxKind.STATE or row.kind is rows.OutboxKind.NOTE:
            row.id = f"{row.id}/{row.sequence}"
        elif row.kind is rows.OutboxKind.MANIFEST or row.kind is rows.OutboxKind.COPIES:
            self._objects.append(row)
        self._outbox.append(row)
        self._next_sequence += 1

    def forgotten(self, ref: PipelineRef) -> None:
        """An ended pipeline is no longer remembered."""
        self._forgotten.append(ref)

    def token(self, row: rows.TokenRow | rows.TokenForgotten) -> None:
        """A join token was made, used or forgotten."""
        self._identities[row.id] = row

    def certificate(self, row: rows.CertificateRow | rows.CertificateForgotten) -> None:
        """A certificate was issued, revoked or forgotten."""
        self._identities[row.serial] = row

    def secret(self, row: rows.SecretRow | rows.SecretForgotten) -> None:
        """A secret was set, sealed anew or removed."""
        self._secrets[row.namespace, row.name] = row

    def spans(self, row: rows.SpansRow) -> None:
        """Something has ended that is in a trace."""
        self._spans.append(row)

    def stored(
        self, row: rows.StoredVersionRow | rows.StoredVersionForgotten | rows.StoredDeleted
    ) -> None:
        """A version of a stored pipeline was added or forgotten, or all of it was deleted."""
        version = 0 if isinstance(row, rows.StoredDeleted) else row.version
        self._stored[row.namespace, row.name, version] = row

    def trust_changed(self) -> None:
        """Other certificates are revoked than before."""
        self._trust_changed = True

    def set_desired(self, node: str) -> None:
        """What should run on a node changed."""
        self._desired[node] = None

    def end_session(self, node: NodeRecord, why: str) -> None:
        """The present session of a node is over."""
        self._sessions.append(effects.EndSession(node.name, node.session_id, why))

    def tell(self, node: NodeRecord, text: str) -> None:
        """The agent of a node's present session should say something in its log."""
        self._sessions.append(effects.Tell(node.name, node.session_id, text))

    def answer(self, call: int, value: effects.AnswerValue) -> None:
        """A caller may know something once everything is recorded."""
        self._answers.append(effects.Answer(call, value))

    def effects(self) -> tuple[effects.Effect, ...]:
        """Return what is to be done, record first, and begin anew."""
        gone = self._forgotten or self._forgotten_nodes
        if self._shown_pipelines or self._shown_nodes or self._desired or gone:
            self.revision += 1
        for pipeline in self._shown_pipelines.values():
            pipeline.revision = self.revision
        for node in self._shown_nodes.values():
            node.revision = self.revision
        written: list[rows.Row] = [*self._added]
        written += [pipeline.row() for pipeline in self._pipelines.values()]
        written += [job.row() for job in self._jobs.values()]
        written += self._scales.values()
        written += [attempt.row() for attempt in self._attempts.values()]
        # Before the rows of nodes: one of the same name that comes later is a new one.
        written += [rows.NodeForgotten(name) for name in self._forgotten_nodes]
        written += [node.row() for node in self._nodes.values()]
        written += self._manifests
        written += self._outbox
        written += [rows.PipelineForgotten(ref) for ref in self._forgotten]
        written += self._identities.values()
        written += self._secrets.values()
        written += self._spans
        written += self._stored.values()
        done: list[effects.Effect] = []
        if written:
            self.start = rows.StartRow(self.start.term, self.start.id, self.start.commits + 1)
            written.append(self.start)
            done.append(
                effects.CommitRows(
                    tuple(written),
                    tells=bool(self._outbox),
                    objects=tuple(self._objects),
                    through=self._next_sequence - 1,
                    traces=bool(self._spans),
                )
            )
        if self._trust_changed:
            done.append(effects.TrustChanged())
        done += self._sessions
        done += [effects.SetDesired(name) for name in self._desired]
        done += [effects.ShowNode(name, gone=True) for name in self._forgotten_nodes]
        done += [effects.ShowNode(name) for name in self._shown_nodes]
        done += [effects.ShowPipeline(ref) for ref in self._shown_pipelines]
        done += [effects.ShowPipeline(ref, gone=True) for ref in self._forgotten]
        done += self._answers
        self._begin()
        return tuple(done)
