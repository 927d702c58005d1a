"""Jobs with users of their own, by a real agent that is root: what they have, and what is read of what they leave."""

import contextlib
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from edge_agent.attempt_folder import AttemptFolder, keeper_id
from edge_agent.sandbox.job_users import registry_here
from edge_agent.sandbox.user_processes import processes_of
from edge_agent.sandbox.user_range import USERS_OF_JOBS
from shoal.model import JobState, ReasonCode
from shoal.names import AttemptRef
from shoal.sandbox import Sandbox, SandboxLevel
from shoal.spec import Environment, Job, Output, PortAttachment, PortBinding, PortFormat
from tests.integration.agent.board import Board
from tests.kit.agent_process import AgentProcess
from tests.kit.bundle_archive import tar_of
from tests.kit.object_server import ObjectServer
from tests.kit.programs import program
from tests.kit.scripted_controller import ScriptedController
from tests.kit.until import until

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root lets jobs have users"),
]

SYSTEM = Environment(python="system")
OPEN = {"attempts", "builds", "environments", "packages", "sdk", "tools"}


@contextlib.asynccontextmanager
async def running_board(level: str) -> AsyncIterator[Board]:
    """A board whose jobs run at a level if they ask for no more."""
    async with (
        ObjectServer() as objects,
        ScriptedController(objects) as controller,
        AgentProcess(controller.address, "--sandbox", level) as agent,
    ):
        found = Board(objects, controller, agent)
        await found.connected()
        yield found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def board() -> AsyncIterator[Board]:
    """A board whose jobs have users of their own."""
    async with running_board("user") as found:
        yield found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lenient() -> AsyncIterator[Board]:
    """A board whose jobs have users of their own if they ask for it."""
    async with running_board("none") as found:
        yield found


SERVICE = 61_235
CAPABILITIES = ("setuid", "setgid", "chown", "dac_override", "fowner", "kill")


class UnitAgent(AgentProcess):
    """An agent as a unit of systemd starts it: a user of its own, with these capabilities and no others."""

    def argv(self) -> list[str]:
        held = ",".join(f"+{name}" for name in CAPABILITIES)
        words = [f"--inh-caps={held}", f"--ambient-caps={held}", f"--bounding-set=-all,{held}"]
        user = [f"--reuid={SERVICE}", f"--regid={SERVICE}", "--clear-groups"]
        return [program("setpriv"), *user, *words, *super().argv()]


def shell(name: str, script: str, **more: object) -> Job:
    return Job(name, ("sh", "-c", script), **more)  # type: ignore[arg-type]


def folder_of(board: Board, ref: AttemptRef) -> AttemptFolder:
    return AttemptFolder(board.agent.state / "attempts" / keeper_id(ref))


def registered(board: Board) -> list[int]:
    """The users that this agent has taken, for attempts and for those to come."""
    state = os.path.realpath(board.agent.state)
    found: list[int] = []
    for path in registry_here().iterdir():
        with contextlib.suppress(FileNotFoundError):  # they come and go
            if path.read_text().startswith(f"{state}\n"):
                found.append(int(path.name))
    return found


async def said(board: Board, ref: AttemptRef, word: str) -> None:
    def there() -> bool:
        states = board.controller.states(ref)
        return word in board.controller.log(ref) or (bool(states) and states[-1].terminal)

    await until(there, 30, f"{word!r} in the log of {ref.name}\n{board.agent.log()[-3000:]}")
    assert word in board.controller.log(ref), board.controller.reason(ref)


async def test_each_attempt_has_a_user_and_no_other_attempt_sees_what_is_its_own(
    board: Board,
) -> None:
    wait = "until test -e go; do sleep 0.05; done"
    one = board.run(
        shell("one", f"id -u; id -G; umask; echo mine > results/x; echo ready; {wait}"),
        tar_of({"code/": "", "code/main.py": "x = 1\n", "data": "d"}),
    )
    await said(board, one, "ready")
    first = folder_of(board, one)
    uid, groups, umask = board.controller.log(one).split()[:3]
    assert int(uid) in USERS_OF_JOBS
    assert (groups, umask) == (uid, "0022")
    assert int(uid) in registered(board)
    tries = (
        f"ls {first.path}", f"ls {first.work}", f"cat {first.work}/data", f"cat {first.stdout}",
        f"ls {first.home}", f"ls {board.agent.state}", f"cat {board.agent.state}/agent.db",
        f"touch {first.work}/go", f"kill $(pgrep -u {uid} -o)", f"cat /proc/$(pgrep -u {uid} -o)/environ",
        f"touch {board.agent.state}/environments/x", f"cat {board.agent.state}/keeper.log",
        f"ls {board.agent.state}/bundles", f"mv {first.path} $HOME",
    )  # fmt: skip
    script = "; ".join(
        f"if {words} 2>/dev/null; then echo DONE {i}; fi" for i, words in enumerate(tries)
    )
    other = board.run(
        shell("other", f"id -u; {script}; echo $HOME $TMPDIR $USER; touch $HOME/x $TMPDIR/x")
    )
    assert await board.end(other) is JobState.SUCCEEDED, board.controller.reason(other)
    lines = board.controller.log(other).split("\n")
    assert int(lines[0]) in USERS_OF_JOBS
    assert lines[0] != uid
    assert not [tries[int(line.split()[1])] for line in lines if line.startswith("DONE")]
    second = folder_of(board, other)
    assert lines[1] == f"{second.home} {second.tmp} job-{lines[0]}"
    assert first.work.stat().st_uid == int(uid)
    (first.work / "go").touch()
    assert await board.end(one) is JobState.SUCCEEDED
    assert board.artifact(one, "results/x") == b"mine\n"
    assert board.artifact(one, "stdout").startswith(uid.encode())
    await board.idle()
    await until(lambda: int(uid) not in registered(board), 20, "that its user is free")


async def test_nothing_of_a_state_folder_is_open_but_what_jobs_need(board: Board) -> None:
    ref = board.run(
        Job("work", ("python", "main.py"), environment=SYSTEM),
        tar_of({"main.py": "import shoal.job"}),
    )
    assert await board.end(ref) is JobState.SUCCEEDED, board.controller.reason(ref)
    failed = board.run(shell("failed", "echo x > results/x; exit 3"))
    assert await board.end(failed) is JobState.FAILED
    await board.idle()
    for path in board.agent.state.iterdir():
        mode = stat.S_IMODE(path.lstat().st_mode)
        if path.name in OPEN:
            assert not mode & 0o022, path
        elif path.name != "agent.log":  # the test's own
            assert not mode & 0o077, path
    assert stat.S_IMODE(board.agent.state.stat().st_mode) == 0o711


async def test_an_agent_that_is_killed_finds_its_jobs_with_their_users(board: Board) -> None:
    wait = "until test -e $HOME/go; do echo x >> $SHOAL_RESULTS/lines || exit 9; sleep 0.02; done"
    ref = board.run(shell("long", f"id -u; echo ready; {wait}; id -u"))
    await said(board, ref, "ready")
    uid = int(board.controller.log(ref).split()[0])
    sessions = board.controller.sessions
    board.agent.kill()
    board.agent.start()
    await board.connected(sessions + 1)
    assert registered(board) == [uid], "those that no attempt had taken were let go"
    other = board.run(shell("other", "id -u"))
    assert await board.end(other) is JobState.SUCCEEDED, board.controller.reason(other)
    assert board.controller.log(other).split() != [str(uid)]
    (folder_of(board, ref).home / "go").touch()
    assert await board.end(ref) is JobState.SUCCEEDED, board.controller.reason(ref)
    assert board.controller.log(ref).split() == [str(uid), "ready", str(uid)]
    assert board.artifact(ref, "results/lines")
    await board.idle()
    await until(lambda: uid not in registered(board), 20, "that its user is free")


async def test_what_a_job_leaves_running_ends_before_its_results_are_read(board: Board) -> None:
    secret = board.agent.state / "secret"
    secret.write_text("of root alone")
    secret.chmod(0o600)
    daemon = (
        "import os, sys\n"
        "for _ in range(2):\n"
        "    if os.fork(): os._exit(0)\n"
        "    os.setsid()\n"
        "os.execve(sys.executable, [sys.executable, '-c', 'while True:\\n"
        f'  import os; os.path.lexists("new") and os.remove("new"); os.symlink("{secret}", "new");'
        " os.rename(\"new\", \"results/x\"); open(\"new\", \"w\").close(); os.rename(\"new\", \"results/x\")'], {})\n"
    )  # fmt: skip
    ref = board.run(
        shell(
            "work", "id -u; python3 daemon.py; sleep 0.3; echo good > results/y", environment=SYSTEM
        ),
        tar_of({"daemon.py": daemon}),
    )
    await board.end(ref)
    uid = int(board.controller.log(ref).split()[0])
    assert processes_of(uid) == []
    assert b"of root alone" not in b"".join(board.objects.objects.values())
    assert board.artifact(ref, "results/y") == b"good\n"
    await board.idle()


async def test_what_the_agents_user_alone_can_run_is_refused_with_the_remedy(board: Board) -> None:
    program = board.agent.state / "bundles" / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    ref = board.run(Job("work", (str(program),)))
    assert await board.end(ref) is JobState.FAILED
    code, _, words = board.controller.reason(ref)
    assert code == ReasonCode.START.value
    assert f"to which {program.parent} is closed" in words
    assert "chmod o+x" in words


async def test_a_job_may_ask_for_more_than_the_agent_gives_by_itself(lenient: Board) -> None:
    board, state = lenient, lenient.agent.state
    plain = board.run(shell("plain", "id -u"))
    assert await board.end(plain) is JobState.SUCCEEDED
    assert board.controller.log(plain).split() == ["0"]
    await board.idle()
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    for level in (SandboxLevel.USER, SandboxLevel.CONFINED):
        ref = board.run(shell(level.value, "id -u; echo x > results/x", sandbox=Sandbox(level)))
        assert await board.end(ref) is JobState.SUCCEEDED, board.controller.reason(ref)
        assert int(board.controller.log(ref)) in USERS_OF_JOBS
        assert board.artifact(ref, "results/x") == b"x\n"


@pytest.mark.parametrize("level", ["none", "user", "confined"])
async def test_links_among_results_lead_to_nothing_of_others(lenient: Board, level: str) -> None:
    board = lenient
    secret = board.agent.state / "secret"
    secret.write_text(f"of root alone at {level}")
    secret.chmod(0o600)
    wait = "until test -e go; do sleep 0.02; done"
    name = f"links-{level}"
    ref = board.run(
        shell(
            name,
            f"ln -s {secret} results/soft; echo x > results/y; echo ready; {wait}",
            sandbox=Sandbox(SandboxLevel(level)),
        )
    )
    await said(board, ref, "ready")
    work = folder_of(board, ref).work
    # As a job does it where fs.protected_hardlinks is 0.
    os.link(secret, work / "results" / "hard")
    (work / "go").touch()
    assert await board.end(ref) is JobState.FAILED  # the link that leads out is told at each level
    words = board.controller.reason(ref)[2]
    assert "'results/soft' is a link to" in words
    got = any(secret.read_bytes() in data for data in board.objects.objects.values())
    assert got is (level == "none")
    assert ("'results/hard' cannot be read: it belongs to user 0" in words) is (level != "none")
    assert board.artifact(ref, "results/y") == b"x\n"


@pytest.mark.parametrize("level", ["user", "confined"])
async def test_ports_that_are_fifos_work_and_cannot_be_replaced(board: Board, level: str) -> None:
    port = PortBinding(PortFormat.LINES, PortAttachment.FIFO)
    script = (
        "mv {outputs.out.path} x 2>/dev/null && exit 7; echo record > {outputs.out.path}; echo done"
    )
    ref = board.run(
        shell(
            "work",
            script,
            outputs=(Output("out", binding=port),),
            sandbox=Sandbox(SandboxLevel(level)),
        )
    )
    await said(board, ref, "done")
    assert (
        Path(folder_of(board, ref).ports / "out").exists()
        or board.controller.states(ref)[-1].terminal
    )


async def test_an_agent_of_a_unit_gives_its_jobs_users_by_capabilities() -> None:
    async with ObjectServer() as objects, ScriptedController(objects) as controller:
        unit = UnitAgent(controller.address, "--sandbox", "user")
        os.chown(unit.state, SERVICE, SERVICE)
        async with unit as agent:
            board = Board(objects, controller, agent)
            await board.connected()
            had: set[int] = set()
            for level in (SandboxLevel.USER, SandboxLevel.CONFINED):
                script = (
                    "id -u; grep CapPrm /proc/self/status; ls .. 2>/dev/null; echo x > results/x"
                )
                ref = board.run(shell(level.value, script, sandbox=Sandbox(level)))
                assert await board.end(ref) is JobState.SUCCEEDED, board.controller.reason(ref)
                uid, *_, capabilities = board.controller.log(ref).split()[:3]
                assert int(uid) in USERS_OF_JOBS
                assert int(capabilities, 16) == 0
                assert board.artifact(ref, "results/x") == b"x\n"
                had.add(int(uid))
            await board.idle()
            await until(lambda: not had & set(registered(board)), 20, "that their users are free")
