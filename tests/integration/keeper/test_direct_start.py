"""A program that is started without a fork finds what a forked one finds, and leaves its keeper as it was."""

import json
import resource
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from edge_agent.keeper.client import KeeperClient, KeeperError
from edge_agent.keeper.direct_start import suits
from edge_agent.sandbox.plan import FilesRule, SandboxPlan
from tests.integration.keeper.programs import ended, keeper_of, program

FORKED = SandboxPlan(
    oom_score=500, limits=((resource.RLIMIT_SIGPENDING, 1000),)
)  # a limit that no program here meets
LOOK = """
import json, os, resource, signal
found = {
    "leads": [os.getsid(0) == os.getpid(), os.getpgid(0) == os.getpid()],
    "terminal": open("/proc/self/stat").read().rpartition(")")[2].split()[4],
    "signals": [line for line in open("/proc/self/status") if line.startswith(("SigBlk", "SigIgn"))],
    "descriptors": {one: os.readlink(f"/proc/self/fd/{one}") for one in os.listdir("/proc/self/fd") if one in "012"},
    "open": [one for one in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{one}")],
    "umask": os.umask(0),
    "folder": os.getcwd(),
    "core": resource.getrlimit(resource.RLIMIT_CORE),
    "files": resource.getrlimit(resource.RLIMIT_NOFILE),
    "score": open("/proc/self/oom_score_adj").read(),
    "marked": 0 < resource.getrlimit(10)[0] < 1 << 62,
    "variables": {name: os.environ[name] for name in ("MARK", "SHOAL_KEEPER")},
}
print(json.dumps(found))
"""


async def test_both_ways_of_starting_give_a_program_the_same(board: Path) -> None:
    (board / "input").write_text("in")
    async with KeeperClient(board / "keeper.sock") as client:
        for plan in (SandboxPlan(oom_score=500), FORKED):
            await client.start(
                program(
                    *(board, sys.executable, "-IS", "-c", LOOK),
                    attempt="direct" if suits(plan) else "forked",
                    stdin=board / "input",
                    sandbox=plan,
                )
            )
        for attempt in ("direct", "forked"):
            assert (await ended(client, attempt)).exit_code == 0, (
                board / f"{attempt}.err"
            ).read_text()
    direct, forked = (
        json.loads((board / f"{attempt}.out").read_text().replace(attempt, "it"))
        for attempt in ("direct", "forked")
    )
    assert direct == forked
    assert direct["leads"] == [True, True]
    assert direct["marked"]


async def test_a_keeper_is_what_it_was_after_starts_that_worked_and_failed(board: Path) -> None:
    keeper = Path(f"/proc/{keeper_of(board)}")

    def look() -> list[str]:
        return [
            str((keeper / "cwd").readlink()),
            (keeper / "oom_score_adj").read_text(),
            (keeper / "limits").read_text(),
            *sorted(entry.name for entry in (keeper / "fd").iterdir()),
        ]

    async with KeeperClient(board / "keeper.sock") as client:
        await client.start(program(board, "/bin/true", attempt="first"))
        await ended(client, "first")
        before = look()
        await client.start(program(board, "/bin/true"))
        await ended(client)
        with pytest.raises(KeeperError, match=r"/no/such.*No such file"):
            await client.start(program(board, "/no/such", attempt="b"))
        with pytest.raises(KeeperError, match=r"nowhere.*No such file"):
            await client.start(
                replace(program(board, "/bin/true", attempt="c"), cwd=board / "nowhere")
            )
        assert look() == before
    assert before[0] == "/"


@pytest.mark.parametrize("plan", [SandboxPlan(oom_score=500), FORKED], ids=["direct", "forked"])
async def test_a_program_or_a_folder_that_is_not_there_is_told_in_the_same_words(
    board: Path, plan: SandboxPlan
) -> None:
    plain, script = board / "plain", board / "script"
    plain.write_text("no program")
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    async with KeeperClient(board / "keeper.sock") as client:
        for name, why in (
            ("/no/such", "No such file or directory (/no/such)"),
            (str(script), f"No such file or directory ({script})"),
            (str(plain), f"Permission denied ({plain})"),
            (str(board), f"Permission denied ({board})"),
        ):
            with pytest.raises(KeeperError) as found:
                await client.start(program(board, name, sandbox=plan))
            assert str(found.value) == f"cannot start {name!r} in {str(board)!r}: {why}"
        away = board / "away"
        with pytest.raises(KeeperError) as found:
            await client.start(replace(program(board, "/bin/true", sandbox=plan), cwd=away))
        assert str(found.value) == (
            f"cannot start '/bin/true' in {str(away)!r}: No such file or directory ({away})"
        )
        assert await client.list() == []


@pytest.mark.parametrize(
    "plan",
    [
        SandboxPlan(uid=250_000),
        SandboxPlan(gid=250_000),
        SandboxPlan(no_new_privileges=True),
        SandboxPlan(join=("/sys/fs/cgroup/cgroup.procs",)),
        SandboxPlan(limits=((resource.RLIMIT_DATA, 1 << 30),)),
        SandboxPlan(files=(FilesRule("/"),)),
        SandboxPlan(scoped=True),
        SandboxPlan(seccomp="BgAAAAAA/38="),
        SandboxPlan(wrap=("/usr/bin/bwrap",)),
    ],
    ids=lambda plan: next(
        name for name in plan.__slots__ if getattr(plan, name) != getattr(SandboxPlan(), name)
    ),
)
def test_a_plan_with_a_step_that_cannot_be_put_off_again_is_forked(plan: SandboxPlan) -> None:
    assert not suits(plan)
    assert suits(SandboxPlan(oom_score=500, kill=("/sys/fs/cgroup/a",)))
