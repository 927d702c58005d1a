"""What a job asks of its node and what a node can do: levels, their order, and both on the wire."""

import json
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from shoal import spec
from shoal.cli.document import to_document
from shoal.cli.facts_table import node_details
from shoal.cli.single_command import Wishes, single_command
from shoal.cli.tables import nodes_table
from shoal.sandbox import Claim, NodeSandbox, Sandbox, SandboxLevel, SandboxNetwork
from shoal.session.feature import Feature, needed_features
from shoal.specfile.load import parse
from shoal.v1 import sandbox_pb2, spec_pb2
from shoal.view import NodeView
from shoal.wire.fields import WireError
from shoal.wire.sandbox import NODE_SANDBOX
from shoal.wire.spec import decode_job_spec, encode_job_spec

NONE, USER, CONFINED = SandboxLevel


def test_a_level_covers_those_below_it() -> None:
    assert [[one.covers(other) for other in SandboxLevel] for one in SandboxLevel] == [
        [True, False, False],
        [True, True, False],
        [True, True, True],
    ]


@pytest.mark.parametrize(
    ("default", "levels", "at"),
    [
        (USER, {USER, CONFINED}, {NONE: USER, USER: USER, CONFINED: CONFINED}),
        (NONE, {NONE, CONFINED}, {NONE: NONE, USER: CONFINED, CONFINED: CONFINED}),
        (CONFINED, {USER, CONFINED}, {NONE: CONFINED, USER: CONFINED, CONFINED: CONFINED}),
        (USER, {USER}, {NONE: USER, USER: USER, CONFINED: None}),
        (NONE, {NONE}, {NONE: NONE, USER: None, CONFINED: None}),
        (NONE, set[SandboxLevel](), {NONE: None, USER: None, CONFINED: None}),
    ],
)
def test_a_job_runs_at_the_lowest_level_that_covers_it_and_the_default(
    default: SandboxLevel, levels: set[SandboxLevel], at: dict[SandboxLevel, SandboxLevel | None]
) -> None:
    can = NodeSandbox(default, frozenset(levels))
    assert {wanted: can.level_for(wanted) for wanted in SandboxLevel} == at


def job(tmp_path: Path, rest: str) -> spec.Job:
    text = f"name: p\njobs:\n  a:\n    run: x\n    {rest}\n"
    (found,) = parse(text, "p.yaml", tmp_path).pipeline.jobs
    return found


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("sandbox: confined", Sandbox(CONFINED)),
        ("sandbox: none", Sandbox()),
        ("sandbox: {level: user}", Sandbox(USER)),
        (
            "sandbox: {level: confined, network: none, enforce: [cpus]}",
            Sandbox(CONFINED, SandboxNetwork.NONE, frozenset({Claim.CPUS})),
        ),
    ],
)
def test_a_specification_says_what_its_job_asks_for(
    tmp_path: Path, written: str, meant: Sandbox
) -> None:
    found = job(tmp_path, written)
    assert found.sandbox == meant
    message = encode_job_spec(found)
    assert decode_job_spec(message) == found
    assert message.HasField("sandbox") == (meant != Sandbox())
    needs = needed_features(spec.Pipeline("p", (found,)), found)
    assert (Feature.SANDBOX in needs) == (meant != Sandbox())
    assert json.dumps(to_document(found)), "it can be shown"


def test_claims_that_only_bind_are_read(tmp_path: Path) -> None:
    found = job(tmp_path, "resources: {processes: 64, disk: 1Gi}")
    assert found.resources == spec.Resources(processes=64, disk_bytes=1 << 30)
    assert decode_job_spec(encode_job_spec(found)) == found


def test_what_this_version_does_not_know_is_refused_in_a_job_and_left_out_of_a_node() -> None:
    message = spec_pb2.JobSpec(name="a", run=["x"])
    message.sandbox.enforce.append(77)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with pytest.raises(WireError, match=r"sandbox\.enforce: 77 is not a claim"):
        decode_job_spec(message)
    message.sandbox.ClearField("enforce")
    message.sandbox.level = 9  # type: ignore[assignment]  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(WireError, match=r"sandbox\.level: 9 is not a level"):
        decode_job_spec(message)
    can = sandbox_pb2.NodeSandbox(
        filters=["x" * 300] * 20,
        enforces=[sandbox_pb2.EnforcedClaim(claim=sandbox_pb2.CLAIM_CPUS, by="rlimit")],
        refused=[sandbox_pb2.RefusedLevel(level=sandbox_pb2.SANDBOX_LEVEL_USER, why="y" * 9999)],
    )
    can.default = 9  # type: ignore[assignment]  # pyright: ignore[reportAttributeAccessIssue]
    can.levels.extend([9, sandbox_pb2.SANDBOX_LEVEL_USER])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    can.enforces.add(by="magic").claim = 77  # type: ignore[assignment]  # pyright: ignore[reportAttributeAccessIssue]
    can.refused.add(why="?").level = 9  # type: ignore[assignment]  # pyright: ignore[reportAttributeAccessIssue]
    found = NODE_SANDBOX.decode(can)
    assert (found.default, found.levels) == (NONE, frozenset({USER}))
    assert found.enforces == {Claim.CPUS: "rlimit"}
    assert found.filters == ("x" * 256,) * 16
    assert set(found.refused) == {USER}
    assert len(found.refused[USER]) < 2_100


def test_people_see_what_a_node_can_do_and_cannot() -> None:
    can = NodeSandbox(
        USER,
        frozenset({USER, NONE}),
        {Claim.MEMORY: "cgroup v2", Claim.DISK: "watch"},
        ("seccomp",),
        {CONFINED: "there is no bubblewrap"},
    )
    out = StringIO()
    now = datetime(2026, 1, 1, tzinfo=UTC)
    show = Console(file=out, width=200).print
    show(node_details(NodeView("n1", sandbox=can), now))
    show(nodes_table([NodeView("n1", sandbox=can), NodeView("old")], now))
    lines = [" ".join(line.split()) for line in out.getvalue().splitlines()]
    assert "sandbox of jobs user (or none)" in lines
    assert "cannot be had confined: there is no bubblewrap" in lines
    assert "binds jobs memory by cgroup v2" in lines
    assert "disk by watch" in lines
    assert "filters seccomp" in lines
    assert any(line.startswith("n1 ") and " user " in f"{line} " for line in lines)


def test_a_single_command_may_ask_for_a_level() -> None:
    for level in SandboxLevel:
        pipeline, _ = single_command(["wc"], Wishes(sandbox=level.value))
        assert pipeline.jobs[0].sandbox == Sandbox(level)
