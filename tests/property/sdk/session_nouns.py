"""Strategies for the nouns of a session; every field of each is drawn, so that none is forgotten."""

import dataclasses
from typing import Any

from hypothesis import strategies as st

from shoal import limits
from shoal.model import Followed, JobState, ReasonCode
from shoal.names import AttemptRef
from shoal.node_facts import Heat
from shoal.protocol_version import Protocols
from shoal.session.assignment import Assignment, Goal
from shoal.session.attempt_lanes import AttemptLanes
from shoal.session.bundles import BundlesHeld, BundlesWanted, WantedBundle
from shoal.session.folder_files import FilesGranted, FilesWanted
from shoal.session.lane import Lane, LanePeer, Stretch
from shoal.session.log_piece import LogPiece
from shoal.session.messages import (
    Desired,
    FactsWanted,
    Fenced,
    Heartbeat,
    Hello,
    NodeCondition,
    Refused,
    Welcome,
)
from shoal.session.observation import Observation
from shoal.session.progress import Progress
from shoal.session.stage import AttemptStage, StageReached
from shoal.session.trust import CertificateIssued, CertificateWanted, Trust
from shoal.session.uploads import (
    ArtifactContent,
    ArtifactParts,
    PartGrant,
    UploadGrant,
    UploadsGranted,
    UploadsWanted,
)
from shoal.spec import Distribute, PortFormat
from shoal.view import LogStream
from tests.property.sdk import specs
from tests.property.sdk.specs import COUNTS, IDS, NUMBERS_32, NUMBERS_63, NUMBERS_64, TEXT, WORDS

SPANS = st.floats(0, limits.DURATION_SECONDS_MAX)


def drawn(noun: type[Any], **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Draw a noun by all its fields."""
    missing = {one.name for one in dataclasses.fields(noun)} ^ fields.keys()
    assert not missing, f"draw these fields of {noun.__name__} too: {missing}"
    return st.builds(noun, **fields)


REFS = st.builds(AttemptRef, IDS, IDS, IDS, COUNTS, NUMBERS_63)
LANES = drawn(
    Lane,
    id=WORDS,
    output=st.booleans(),
    port=WORDS,
    peer_replica=NUMBERS_32,
    peer_replicas=st.integers(1, limits.LANES_MAX),
    peer=drawn(LanePeer, address=TEXT, attempt=TEXT, epoch=NUMBERS_64, done=st.booleans()),
    distribute=st.sampled_from(Distribute),
    peer_port=TEXT,
    peer_job=TEXT,
    peer_format=st.sampled_from(PortFormat),
    keep=NUMBERS_32,
    stretch=drawn(
        Stretch,
        generation=NUMBERS_32,
        producer_begin=NUMBERS_64,
        consumer_begin=NUMBERS_64,
        consumer_end=st.none() | NUMBERS_64,
    ),
    hold=NUMBERS_32,
    end=st.none() | NUMBERS_64,
    ticket=st.binary(max_size=300),
)
ASSIGNMENTS = drawn(
    Assignment,
    ref=REFS,
    job=specs.JOBS,
    replica=NUMBERS_32,
    replicas=COUNTS,
    bundle_digest=specs.MAYBE_HASHES,
    bundle_url=TEXT,
    bundle_pieces_url=TEXT,
    file_urls=specs.MAPPINGS,
    goal=st.sampled_from(Goal),
    lanes=specs.tuples(LANES),
    replacement=st.booleans(),
    tells_stages=st.booleans(),
    listings=st.dictionaries(specs.IDS, specs.MAYBE_HASHES, max_size=2),
    secrets=st.dictionaries(specs.IDS, st.binary(max_size=20), max_size=2),
    traceparent=specs.TRACEPARENTS,
)
MOMENTS = specs.TIMES.filter(lambda time: time is not None)
STAGES = st.lists(st.sampled_from(AttemptStage), unique=True).flatmap(
    lambda stages: st.tuples(
        *(st.builds(StageReached, st.just(one), MOMENTS) for one in sorted(stages))
    )
)
OBSERVATIONS = drawn(
    Observation,
    ref=REFS,
    state=st.sampled_from(JobState),
    reason=specs.REASONS,
    artifacts=specs.tuples(specs.ARTIFACTS),
    start_time=specs.TIMES,
    end_time=specs.TIMES,
    holds=specs.tuples(specs.HOLDS),
    ended_inputs=specs.tuples(IDS),
    stages=STAGES,
)
SHOWN = TEXT.map(lambda text: "".join(one for one in text if one.isprintable()))
FOLLOWED = drawn(Followed, cluster_id=WORDS, term=NUMBERS_64, start_id=TEXT, commit=NUMBERS_64)
CONDITIONS = drawn(
    NodeCondition,
    refuses=TEXT,
    kept=specs.tuples(specs.KEPT_FOLDERS),
    keeper_version=SHOWN,
    stream_worker_version=SHOWN,
    outdated=TEXT,
    heat=st.sampled_from(Heat),
)
PROTOCOLS = st.tuples(st.integers(1, 2**31), st.integers(0, 2**31), SHOWN).map(
    lambda drawn: Protocols(drawn[0], drawn[0] + drawn[1], drawn[2])
)
FROM_AGENT = st.one_of(
    drawn(
        Hello,
        node=IDS,
        agent_id=SHOWN,
        capacity=specs.CAPACITIES,
        stream_address=SHOWN,
        agent_version=SHOWN,
        labels=specs.MAPPINGS,
        architecture=SHOWN,
        attempts=specs.tuples(OBSERVATIONS),
        bundles=st.frozensets(specs.HASHES, max_size=3),
        member_name=SHOWN.filter(bool),
        instance_id=SHOWN,
        followed=st.none() | FOLLOWED,
        condition=CONDITIONS,
        says_holds=st.booleans(),
        takes_lanes=st.booleans(),
        protocols=st.none() | PROTOCOLS,
        facts=st.none() | specs.FACTS,
        features=st.frozensets(SHOWN, max_size=3),
        sandbox=st.none() | specs.NODE_SANDBOXES,
    ),
    st.just(Heartbeat()),
    specs.FACTS,
    CONDITIONS,
    OBSERVATIONS,
    # A piece of a log says no namespace.
    drawn(
        LogPiece,
        ref=st.builds(AttemptRef, st.just("default"), IDS, IDS, COUNTS, NUMBERS_63),
        stream=st.sampled_from(LogStream),
        offset=NUMBERS_64,
        data=st.binary(max_size=20),
        print_time=specs.TIMES,
    ),
    drawn(Progress, ref=REFS, streams=specs.tuples(specs.COUNTERS), text=TEXT),
    drawn(
        FilesWanted,
        ref=REFS,
        input=specs.IDS,
        first=NUMBERS_32,
        count=st.integers(0, limits.ADDRESSES_MAX),
    ),
    drawn(
        UploadsWanted,
        ref=REFS,
        artifacts=specs.tuples(specs.ARTIFACTS),
        parts=specs.tuples(
            drawn(
                ArtifactParts,
                path=specs.PATHS,
                part_bytes=NUMBERS_63,
                part_sha256=specs.tuples(specs.HASHES),
                upload_id=TEXT,
            )
        ),
        contents=specs.tuples(
            drawn(ArtifactContent, path=specs.PATHS, data=st.binary(max_size=1000))
        ),
    ),
    drawn(BundlesHeld, digests=st.frozensets(specs.HASHES, max_size=3)),
    drawn(CertificateWanted, request=st.binary(max_size=100)),
)
FROM_CONTROLLER = st.one_of(
    st.just(FactsWanted()),
    drawn(
        BundlesWanted,
        bundles=specs.tuples(
            drawn(WantedBundle, digest=specs.MAYBE_HASHES, url=TEXT, pieces_url=TEXT)
        ),
    ),
    drawn(
        Welcome,
        controller_id=TEXT,
        lease_seconds=SPANS,
        heartbeat_seconds=SPANS,
        # A welcome says no commit.
        following=st.none() | st.builds(Followed, WORDS, NUMBERS_64, TEXT),
        quarantine=TEXT,
        adopted=st.booleans(),
        retry_seconds=SPANS,
        protocols=st.none() | PROTOCOLS,
        takes_contents=st.booleans(),
    ),
    drawn(
        Desired,
        revision=NUMBERS_64,
        snapshot=st.booleans(),
        assignments=specs.tuples(ASSIGNMENTS),
        removed=specs.tuples(REFS),
        commit=NUMBERS_64,
        lanes=specs.tuples(drawn(AttemptLanes, ref=REFS, lanes=specs.tuples(LANES))),
        part=NUMBERS_32,
        more=st.booleans(),
    ),
    drawn(
        FilesGranted,
        ref=REFS,
        input=specs.IDS,
        first=NUMBERS_32,
        urls=specs.tuples(TEXT),
        problem=TEXT,
    ),
    drawn(
        UploadsGranted,
        ref=REFS,
        grants=specs.tuples(
            drawn(
                UploadGrant,
                path=TEXT,
                key=TEXT,
                url=TEXT,
                headers=specs.MAPPINGS,
                problem=TEXT,
                upload_id=TEXT,
                parts=specs.tuples(
                    drawn(PartGrant, number=NUMBERS_32, url=TEXT, headers=specs.MAPPINGS)
                ),
                stored=st.booleans(),
                later=TEXT,
            )
        ),
    ),
    drawn(
        Refused,
        ref=st.none() | REFS,
        reason=TEXT.filter(lambda reason: reason != ReasonCode.FENCED),
        message=TEXT,
    ),
    drawn(Fenced, ref=REFS, message=TEXT),
    drawn(
        Trust,
        authorities=st.binary(max_size=100),
        ticket_keys=specs.tuples(st.binary(min_size=32, max_size=32)),
        revoked=specs.tuples(specs.HASHES),
        gossip_keys=specs.tuples(
            st.sampled_from((16, 24, 32)).flatmap(
                lambda size: st.binary(min_size=size, max_size=size)
            )
        ),
    ),
    drawn(CertificateIssued, certificate=st.binary(max_size=100)),
)
