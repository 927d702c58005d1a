"""Strategies for specifications, models and views, as far as the contract can carry them."""

from datetime import UTC, datetime
from typing import Any

from hypothesis import strategies as st

from shoal import limits, node_facts, spec, view
from shoal.compat import Compat
from shoal.kept_folder import KeptFolder
from shoal.model import (
    Artifact,
    Capacity,
    JobState,
    MemberState,
    PipelineState,
    Reason,
    ReasonCode,
    StreamCounters,
)
from shoal.names import AttemptRef
from shoal.sandbox import Claim, NodeSandbox, Sandbox, SandboxLevel, SandboxNetwork
from shoal.secret import SecretForm, SecretUse
from shoal.session.port_hold import PortHold
from shoal.trace_context import TraceContext

IDS = st.from_regex(r"[a-z][a-z0-9-]{0,12}", fullmatch=True)
TRACEPARENTS = st.just("") | st.builds(
    TraceContext,
    st.integers(1, 2**128 - 1).map("{:032x}".format),
    st.integers(1, 2**64 - 1).map("{:016x}".format),
    st.booleans(),
).map(str)
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12)
COUNTS = st.integers(1, 2**32 - 1)
MILLIONS = st.integers(1, 1_000_000)
NUMBERS_63 = st.integers(0, limits.INTEGER_MAX)
NUMBERS_64 = st.integers(0, 2**64 - 1)
NUMBERS_32 = st.integers(0, 2**32 - 1)
HASHES = st.from_regex(r"[0-9a-f]{64}", fullmatch=True)
MAYBE_HASHES = st.one_of(st.just(""), HASHES)
SECONDS = st.floats(0.001, 1e6)
PATHS = st.lists(st.from_regex(r"[A-Za-z0-9_*][A-Za-z0-9_. *-]{0,5}", fullmatch=True)).map(
    lambda parts: "/".join(["file", *parts])
)
MAPPINGS = st.dictionaries(TEXT, TEXT, max_size=3)
VARIABLE_NAMES = st.from_regex(r"[A-Za-z_]\w{0,5}", fullmatch=True).filter(str.isascii)
VARIABLES = st.dictionaries(VARIABLE_NAMES, TEXT)
TIMES = st.none() | st.datetimes(
    datetime.fromisoformat("1970-01-01"),
    datetime.fromisoformat("9998-12-31"),
    timezones=st.just(UTC),
)


def tuples(items: st.SearchStrategy[Any], min_size: int = 0) -> st.SearchStrategy[tuple[Any, ...]]:
    """Short tuples of `items`."""
    return st.lists(items, min_size=min_size, max_size=3).map(tuple)


def _command(program: str, rest: tuple[str, ...]) -> tuple[str, ...]:
    return (program, *rest)


BINDINGS = st.one_of(
    st.builds(
        spec.PortBinding,
        st.sampled_from([item for item in spec.PortFormat if item is not spec.PortFormat.BYTES]),
        st.sampled_from(spec.PortAttachment),
    ),
    st.builds(
        spec.PortBinding,
        st.just(spec.PortFormat.BYTES),
        st.sampled_from(spec.PortAttachment),
        st.integers(1, 64 * 1024 * 1024),
    ),
)
STEPS = st.one_of(
    st.builds(spec.RequirementsStep, PATHS),
    st.builds(spec.UrlStep, WORDS.map(lambda rest: f"https://{rest}"), MAYBE_HASHES),
    st.builds(spec.WheelStep, PATHS),
    st.builds(spec.PipStep, tuples(TEXT, min_size=1)),
    st.builds(spec.ConstraintsStep, PATHS),
)
STAND_INS = st.builds(
    spec.StandIn,
    st.sampled_from(["null", "0", '[1, "x"]', '{"a": 1.5}']),
    st.booleans(),
    MILLIONS,
    st.sampled_from(spec.Drop),
)


def _folder(
    name: str, kind: str, source: str, path: str, layout: spec.Layout, more: str
) -> spec.FolderInput:
    prefix, artifacts = (source, "") if kind == "prefix" else ("", source)
    return spec.FolderInput(name, prefix, artifacts, path, layout, (more,), more)


JOBS = st.builds(
    spec.Job,
    name=IDS,
    run=st.builds(_command, WORDS, tuples(TEXT)),
    environment=st.builds(spec.Environment, TEXT, tuples(STEPS), st.booleans()),
    streams=tuples(
        st.builds(
            spec.StreamInput,
            IDS,
            IDS,
            IDS,
            BINDINGS,
            MILLIONS,
            st.sampled_from(spec.Merge),
            st.none() | STAND_INS,
        )
    ),
    files=tuples(st.builds(spec.FileInput, IDS, WORDS, PATHS, MAYBE_HASHES)),
    folders=tuples(
        st.builds(
            _folder,
            IDS,
            st.sampled_from(["prefix", "artifacts"]),
            WORDS,
            PATHS,
            st.sampled_from(spec.Layout),
            PATHS,
        )
    ),
    outputs=tuples(st.builds(spec.Output, IDS, BINDINGS, st.sampled_from(spec.Distribute))),
    replicas=COUNTS,
    resources=st.builds(
        spec.Resources,
        st.floats(0.01, 1e4),
        NUMBERS_63,
        tuples(WORDS),
        st.integers(0, limits.PROCESSES_MAX),
        NUMBERS_63,
    ),
    place=st.builds(spec.Place, MAPPINGS, tuples(WORDS), st.sampled_from(spec.Strategy)),
    archive=tuples(PATHS, min_size=1),
    retry=st.builds(spec.Retry, MILLIONS, SECONDS, SECONDS),
    timeout_seconds=st.just(0.0) | SECONDS,
    variables=VARIABLES,
    stdin=st.just("") | PATHS,
    recovery=st.sampled_from(spec.Recovery),
    placement=st.sampled_from(spec.Placement),
    grace_seconds=SECONDS,
    layout=st.sampled_from(spec.Layout),
    archive_on=st.sampled_from(spec.ArchiveOn),
    secrets=tuples(st.builds(SecretUse, VARIABLE_NAMES, IDS, st.sampled_from(SecretForm))),
    sandbox=st.builds(
        Sandbox,
        st.sampled_from(SandboxLevel),
        st.sampled_from(SandboxNetwork),
        st.frozensets(st.sampled_from(Claim)),
    ),
)
PARAMETERS = st.dictionaries(
    st.from_regex(r"[A-Za-z][A-Za-z0-9_-]{0,8}", fullmatch=True),
    TEXT
    | st.booleans()
    | st.integers(-limits.INTEGER_MAX, limits.INTEGER_MAX)
    | st.floats(allow_nan=False, allow_infinity=False),
    max_size=3,
)
COMPATS = st.builds(
    Compat,
    st.sampled_from(["", "ada", "x; touch pwned", "Łódź 🙂"]),
    st.sampled_from(["", "Classification"]),
    st.sampled_from(["", "task7", "..a"]),
    st.booleans(),
    st.booleans(),
)
PIPELINES = st.builds(
    spec.Pipeline,
    IDS,
    tuples(JOBS),
    MAYBE_HASHES,
    MAPPINGS,
    PARAMETERS,
    st.none() | COMPATS,
    st.booleans(),
)

REASONS = st.builds(Reason, st.sampled_from(ReasonCode), st.integers(-(2**31), 2**31 - 1), TEXT)
ARTIFACTS = st.builds(Artifact, PATHS, NUMBERS_63, HASHES, TEXT)
_DEVICES = tuples(WORDS.filter(str.isprintable))
CAPACITIES = st.builds(Capacity, st.floats(0, 1e4), NUMBERS_63, _DEVICES)
HOLDS = st.builds(PortHold, IDS, COUNTS, st.integers(0, limits.RECORDS_MAX), st.booleans())
NODE_SANDBOXES = st.builds(
    NodeSandbox,
    st.sampled_from(SandboxLevel),
    st.frozensets(st.sampled_from(SandboxLevel)),
    st.dictionaries(st.sampled_from(Claim), TEXT),
    tuples(TEXT),
    st.dictionaries(st.sampled_from(SandboxLevel), TEXT),
)
KEPT_FOLDERS = st.builds(
    KeptFolder,
    st.builds(AttemptRef, IDS, IDS, IDS, COUNTS, NUMBERS_63),
    TEXT,
    NUMBERS_63,
    TIMES,
)
_FIGURES = st.floats(-1e6, 1e6)
FACTS = st.builds(
    node_facts.NodeFacts,
    os=TEXT,
    os_version=TEXT,
    kernel=TEXT,
    board=TEXT,
    l4t_version=TEXT,
    jetpack_version=TEXT,
    cpu_count=NUMBERS_32,
    cpu_percent=st.none() | _FIGURES,
    memory_total_bytes=NUMBERS_63,
    memory_available_bytes=NUMBERS_63,
    swap_total_bytes=NUMBERS_63,
    swap_free_bytes=NUMBERS_63,
    disks=tuples(st.builds(node_facts.DiskFact, TEXT, NUMBERS_63, NUMBERS_63)),
    temperatures=tuples(
        st.builds(
            node_facts.TemperatureFact, TEXT, _FIGURES, st.none() | _FIGURES, st.none() | _FIGURES
        )
    ),
    gpu_percent=st.none() | _FIGURES,
    emc_percent=st.none() | _FIGURES,
    rails=tuples(st.builds(node_facts.PowerRailFact, TEXT, _FIGURES)),
    throttled=tuples(TEXT),
    heat=st.sampled_from(node_facts.Heat),
    measure_time=TIMES,
    problem=TEXT,
)
COUNTERS = st.builds(
    StreamCounters,
    IDS,
    st.booleans(),
    NUMBERS_64,
    NUMBERS_64,
    NUMBERS_64,
    NUMBERS_64,
    st.floats(0, limits.DURATION_SECONDS_MAX),
    NUMBERS_64,
    st.booleans(),
    NUMBERS_64,
    NUMBERS_64,
    NUMBERS_64,
    NUMBERS_64,
)
JOB_NAMES = st.builds("pipelines/{}/jobs/{}".format, IDS, IDS)
ATTEMPT_NAMES = st.builds("pipelines/{}/jobs/{}/attempts/{}".format, IDS, IDS, COUNTS)
MANIFESTS = st.builds(view.Manifest, TEXT, ATTEMPT_NAMES, NUMBERS_63, tuples(ARTIFACTS), TIMES)
ATTEMPTS = st.builds(
    view.AttemptView,
    ATTEMPT_NAMES,
    COUNTS,
    NUMBERS_63,
    st.sampled_from(JobState),
    TEXT,
    REASONS,
    TIMES,
    TIMES,
    TIMES,
)
JOB_VIEWS = st.builds(
    view.JobView,
    JOB_NAMES,
    IDS,
    st.sampled_from(JobState),
    NUMBERS_32,
    REASONS,
    TEXT,
    NUMBERS_64,
    tuples(ATTEMPTS),
    tuples(COUNTERS),
    st.none() | MANIFESTS,
    TEXT,
    TEXT,
)
PIPELINE_VIEWS = st.builds(
    view.PipelineView,
    IDS,
    IDS,
    st.sampled_from(PipelineState),
    PIPELINES,
    REASONS,
    TIMES,
    TIMES,
    tuples(JOB_VIEWS),
    NUMBERS_64,
    TEXT,
    prefetch=st.none() | st.builds(view.PrefetchView, NUMBERS_32, NUMBERS_32),
    traceparent=TRACEPARENTS,
)
NODES = st.builds(
    view.NodeView,
    IDS,
    st.booleans(),
    st.booleans(),
    st.sampled_from(MemberState),
    CAPACITIES,
    CAPACITIES,
    MAPPINGS,
    tuples(TEXT),
    TEXT,
    TEXT,
    TEXT,
    TIMES,
    NUMBERS_64,
    TEXT,
    TEXT,
    TEXT,
    tuples(KEPT_FOLDERS),
    facts=st.none() | FACTS,
    facts_time=TIMES,
    facts_problem=TEXT,
    move_time=TIMES,
    sandbox=st.none() | NODE_SANDBOXES,
)
MEMBERS = st.builds(
    view.MemberView,
    TEXT,
    TEXT,
    NUMBERS_32,
    st.sampled_from(MemberState),
    NUMBERS_32,
    MAPPINGS,
    TIMES,
)
EVENTS = st.builds(view.Event, TEXT, TEXT, TEXT, TIMES, TEXT, NUMBERS_64, st.booleans())
VERDICTS = st.builds(view.NodeVerdict, TEXT, st.booleans(), TEXT, st.floats(-1e9, 1e9))
CHUNKS = st.builds(
    view.LogChunk,
    ATTEMPT_NAMES,
    st.sampled_from(view.LogStream),
    NUMBERS_64,
    st.binary(max_size=20),
    NUMBERS_63,
)
