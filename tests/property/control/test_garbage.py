"""Whatever happens while garbage is collected: what is named stays, and what is named by nothing goes."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random
from typing import Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st

from control.core.rows import KeptNames
from control.leader.garbage import DAY_SECONDS, GarbageRules
from control.leader.garbage_collector import GarbageCollector
from services.archive.manifest import manifest_key, manifest_text, read_manifest
from shoal.model import Artifact
from shoal.names import AttemptRef, PipelineRef
from tests.simulation.mesh.archive import MemoryArchive

WHEN = datetime(2026, 11, 30, tzinfo=UTC)


@dataclass
class Run:
    """A pipeline of one job: what its attempts have stored, and how far it is."""

    ref: PipelineRef
    bundle: str
    attempt: int = 1
    objects: list[Artifact] = field(default_factory=list[Artifact])
    committed: str = ""
    state: str = "under way"

    def at(self) -> AttemptRef:
        return AttemptRef(self.ref.namespace, self.ref.pipeline, "a", self.attempt, self.attempt)


class World(MemoryArchive):
    """An archive, a store and clients, of which one takes a step whenever the archive is asked."""

    def __init__(self, rng: Random) -> None:
        super().__init__(rng)
        self.now = 0.0
        self.runs: dict[PipelineRef, Run] = {}
        self.wanted: str = ""
        """A bundle of a client that knows it is there, and is about to submit."""
        self.steps_left = 0
        self.collector = GarbageCollector(
            cast("Any", self), self, GarbageRules(), wall=lambda: self.now
        )
        self.kept = 0

    # ---- the store

    async def kept_names(self) -> KeptNames:
        await self._answer("")
        return KeptNames(
            frozenset(
                (one.ref.namespace, one.ref.pipeline)
                for one in self.runs.values()
                if one.state in {"under way", "dead"}
            ),
            frozenset(one.bundle for one in self.runs.values()),
            frozenset(),
            frozenset(
                manifest_key(one.at().job_ref)
                for one in self.runs.values()
                if one.committed and manifest_key(one.at().job_ref) not in self.objects
            ),
        )

    async def mark_published(self, sequences: Sequence[int]) -> None:
        await self._answer("")

    # ---- what others do meanwhile

    async def _answer(self, key: str) -> None:
        if self.steps_left:
            self.steps_left -= 1
            await self.step()

    def put_now(self, key: str, data: bytes) -> None:
        self.objects[key] = data
        self.times[key] = self.now

    async def refresh(self, key: str) -> None:
        if key in self.objects:
            self.times[key] = self.now

    async def step(self) -> None:
        rng = self.rng
        live = [one for one in self.runs.values() if one.state == "under way"]
        one = rng.choice(live) if live else None
        match rng.randrange(9):
            case 0:
                self.now += rng.random() * 3_600  # a client that was told of a bundle submits soon
            case 1 if not self.wanted and not self.collector.sparing.locked():
                self.wanted = hashlib.sha256(b"%d" % rng.randrange(4)).hexdigest()
                key = f"bundles/sha256/{self.wanted}"
                left, self.steps_left = self.steps_left, 0
                if not await self.collector.has(key):
                    self.put_now(key, b"bundle")
                self.steps_left = left
            case 2 if self.wanted:
                ref = PipelineRef("default", f"p-{len(self.runs)}-{rng.randrange(10**6)}")
                self.runs[ref] = Run(ref, self.wanted)
                self.wanted = ""
            case 3 | 4 if one is not None:
                path = f"results/{rng.randrange(3)}"
                key = f"{one.at().prefix}/out/{path}"
                self.put_now(key, b"x")
                artifact = Artifact(path, 1, hashlib.sha256(b"x").hexdigest(), key)
                one.objects = [*(a for a in one.objects if a.path != path), artifact]
            case 5 if one is not None:
                one.committed = manifest_text(one.at(), one.objects, WHEN)
                one.state = "ended"
            case 6 if one is not None:
                one.attempt += 1
                one.objects = []
                if rng.random() < 0.5:
                    one.state = rng.choice(["ended", "dead"])
            case 7:
                for run in self.runs.values():
                    key = manifest_key(run.at().job_ref)
                    if run.committed and key not in self.objects:
                        self.put_now(key, run.committed.encode())
            case 8 if self.runs and rng.random() < 0.3:
                gone = rng.choice([*self.runs.values()])
                published = manifest_key(gone.at().job_ref) in self.objects
                if gone.state == "ended" and (published or not gone.committed):
                    del self.runs[gone.ref]
            case _:
                pass

    def check(self) -> None:
        """What is named is there."""
        for key, data in self.objects.items():
            if key.endswith("/manifest.json"):
                for artifact in read_manifest(data):
                    assert artifact.key in self.objects, f"{artifact.key} of {key} is gone"
        for run in self.runs.values():
            assert f"bundles/sha256/{run.bundle}" in self.objects, f"the bundle of {run} is gone"
            if run.state == "under way" or run.committed:
                for artifact in run.objects:
                    assert artifact.key in self.objects, f"{artifact.key} of {run} is gone"

    async def delete(self, keys: Any) -> None:
        await super().delete(keys)
        self.check()


@given(st.integers(0, 2**32), st.integers(1, 6))
@settings(max_examples=150, deadline=None)
async def test_nothing_that_is_named_goes_whatever_happens_meanwhile(
    seed: int, passes: int
) -> None:
    world = World(Random(seed))
    for _ in range(passes):
        for _ in range(world.rng.randrange(60)):
            await world.step()
        world.wanted = ""  # that client gave up
        world.now += world.rng.random() * 40 * DAY_SECONDS
        world.steps_left = world.rng.randrange(80)
        await world.collector.collect(dry_run=False)
        world.steps_left = 0
        world.check()
    # Once all has ended and a long time has passed, nothing is left but what is committed.
    for run in world.runs.values():
        key = manifest_key(run.at().job_ref)
        if run.committed and key not in world.objects:
            world.put_now(key, run.committed.encode())
    world.runs.clear()
    world.now += 100 * DAY_SECONDS
    before = dict(world.objects)
    told = await world.collector.collect(dry_run=True)
    assert world.objects == before
    done = await world.collector.collect(dry_run=False)
    assert (told.objects, told.size_bytes) == (done.objects, done.size_bytes)
    named = {
        artifact.key
        for key, data in world.objects.items()
        if key.endswith("/manifest.json")
        for artifact in read_manifest(data)
    }
    manifests = {key for key in world.objects if key.endswith("/manifest.json")}
    assert set(world.objects) == named | manifests


async def test_results_end_after_their_time_with_the_manifest_first() -> None:
    world = World(Random(1))
    world.collector = GarbageCollector(
        cast("Any", world), world, GarbageRules(results=90 * DAY_SECONDS), wall=lambda: world.now
    )
    ref = AttemptRef("default", "p", "a", 1, 1)
    artifact = Artifact("results/x", 1, "0" * 64, f"{ref.prefix}/out/results/x")
    world.put_now(artifact.key, b"x")
    world.put_now(manifest_key(ref.job_ref), manifest_text(ref, [artifact], WHEN).encode())
    world.put_now("ada/Classification/task7/Results/x", b"x")
    world.put_now("default/pipelines/p/jobs/a/unknown", b"x")
    world.now = 89 * DAY_SECONDS
    assert (await world.collector.collect(dry_run=False)).objects == 0
    world.now = 91 * DAY_SECONDS
    assert (await world.collector.collect(dry_run=False)).keys == (manifest_key(ref.job_ref),)
    assert (await world.collector.collect(dry_run=False)).keys == (artifact.key,)
    assert len(world.objects) == 2


async def test_stale_uploads_are_given_up_and_those_of_running_jobs_go_on() -> None:
    world = World(Random(1))
    ref = PipelineRef("default", "p")
    world.runs[ref] = Run(ref, "0" * 64)
    for key in ("default/pipelines/p/jobs/a/attempts/1-1/out/x", "bundles/sha256/" + "1" * 64):
        await world.begin_upload(key, cast("Any", None))
    for upload in world.uploads.values():
        upload.begin_time = 0.0
    world.now = 6 * DAY_SECONDS
    assert (await world.collector.collect(dry_run=False)).uploads == 0
    world.now = 8 * DAY_SECONDS
    assert (await world.collector.collect(dry_run=True)).uploads == 1
    assert len(world.uploads) == 2
    assert (await world.collector.collect(dry_run=False)).uploads == 1
    assert [upload.key for upload in world.uploads.values()] == [
        "default/pipelines/p/jobs/a/attempts/1-1/out/x"
    ]
