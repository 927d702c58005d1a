"""Which levels a node can do: tried by real agents and by users of every kind, and told to the controller."""

import contextlib
import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from compose.own_sandbox import own_sandbox
from edge_agent.sandbox.probe import Ground, best, ground_here, reasons, try_levels
from shoal.sandbox import SandboxLevel
from shoal.wire.sandbox import NODE_SANDBOX
from tests.kit.agent_process import AgentProcess
from tests.kit.object_server import ObjectServer
from tests.kit.open_folder import open_folder  # noqa: F401 - a fixture  # pyright: ignore[reportUnusedImport]
from tests.kit.programs import program, unavailable
from tests.kit.scripted_controller import ScriptedController
from tests.kit.until import until

NONE, USER, CONFINED = SandboxLevel
ADA = 61_235
JOBS = 300_001
PYTHON = "/usr/bin/python3"
MACHINE = os.uname().machine
ROOT = Path(__file__).parents[3]
RIGHTS = ("setuid", "setgid", "chown", "dac_override", "fowner", "kill")

TRY = """
import json, sys
from pathlib import Path
from edge_agent.sandbox.probe import Ground, try_levels
state, wrapper, user, machine = sys.argv[1:]
found = try_levels(Ground(Path(state), int(user), (Path("/usr/bin"),), machine, wrapper))
print(json.dumps([{level.value: why for level, why in found.against.items()}, found.filters, found.remark]))
"""


@pytest.fixture
def copy(open_folder: Path) -> Path:  # noqa: F811
    """A folder with a copy of the modules that every user can read, and a state folder of ada's."""
    if os.geteuid():
        unavailable("users are made for the test, which root may alone")
    for package in (ROOT / "sdk" / "shoal", ROOT / "services", ROOT / "edge_agent"):
        shutil.copytree(package, open_folder / package.name)
    for path in open_folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    state = open_folder / "ada" / "state"
    state.mkdir(parents=True)
    for folder in (state.parent, state):
        os.chown(folder, ADA, ADA)
    state.chmod(0o700)
    return open_folder


def tried(copy: Path, *rights: str, wrapper: str | None = None) -> tuple[dict[str, str], list[str]]:
    """What an agent of ada with these capabilities finds."""
    words = [program("setpriv"), "--reuid", str(ADA), "--regid", str(ADA), "--clear-groups"]
    if rights:
        held = ",".join(f"+{one}" for one in rights)
        words += ["--inh-caps", held, "--ambient-caps", held]
    state = str(copy / "ada" / "state")
    words += [PYTHON, "-B", "-c", TRY, state, wrapper or program("bwrap"), str(JOBS), MACHINE]
    done = subprocess.run(
        words,
        env={"PYTHONPATH": str(copy)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    against, filters, _ = json.loads(done.stdout)
    assert os.listdir(state) == [], "a trial leaves nothing"
    return against, filters


def test_an_ordinary_user_can_confine_and_is_told_which_rights_the_rest_needs(copy: Path) -> None:
    against, filters = tried(copy)
    assert against["confined"] == ""
    assert "cannot become user 300001" in against["user"]
    assert "SETUID, SETGID, CHOWN, DAC_OVERRIDE, FOWNER and KILL" in against["user"]
    assert set(filters) <= {"seccomp", "landlock"}
    assert "seccomp" in filters


def test_a_user_with_the_rights_can_do_both_and_each_right_is_needed(copy: Path) -> None:
    assert tried(copy, *RIGHTS)[0] == {"user": "", "confined": ""}
    for missing in RIGHTS:
        against, _ = tried(copy, *(one for one in RIGHTS if one != missing))
        assert against["user"], f"it is found without {missing}"
        assert against["confined"] == ""


@pytest.mark.parametrize("wrapper", ["/bin/false", "/nowhere/bwrap"])
def test_a_bubblewrap_that_does_not_work_is_told(copy: Path, wrapper: str) -> None:
    assert tried(copy, *RIGHTS, wrapper=wrapper)[0]["confined"]


def test_a_state_folder_or_an_interpreter_behind_a_closed_folder_is_told(
    open_folder: Path,  # noqa: F811
) -> None:
    if os.geteuid():
        unavailable("other users are root's to become")
    closed = open_folder / "closed"
    (closed / "state").mkdir(parents=True)
    closed.chmod(0o700)
    begin = time.monotonic()
    found = try_levels(Ground(open_folder, JOBS, (closed / "state",), MACHINE, program("bwrap")))
    assert time.monotonic() - begin < 3, "ten times what it may take"
    assert dict(found.against) == {USER: "", CONFINED: ""}
    assert f"the interpreter of the agent cannot be reached by users of jobs, since {closed}" in (
        found.remark
    )
    there = Ground(closed / "state", JOBS, (Path("/usr/bin"),), MACHINE, program("bwrap"))
    found = try_levels(there)
    assert f"since {closed} lets no other user pass: let it (chmod o+x)" in found.against[USER]
    assert found.against[CONFINED] == found.against[USER], (
        "root can be confined as another user only"
    )


async def test_an_agent_tells_its_levels_or_does_not_start() -> None:
    async with (
        ObjectServer() as objects,
        ScriptedController(objects) as controller,
        AgentProcess(controller.address) as agent,
    ):
        await until(lambda: controller.hellos, 60, "a session")
        can = NODE_SANDBOX.decode(controller.hellos[-1].sandbox)
        assert can.default is NONE
        assert can.level_for(CONFINED) is CONFINED
        assert "seccomp" in can.filters
        await agent.terminate()
        agent.start("--sandbox", "user")
        await until(lambda: len(controller.hellos) > 1, 60, "another session")
        can = NODE_SANDBOX.decode(controller.hellos[-1].sandbox)
        assert can.default is USER
        assert NONE not in can.levels


async def test_an_agent_whose_level_cannot_be_had_is_refused() -> None:
    bare = AgentProcess("127.0.0.1:1", environ={"PATH": "/nowhere"})
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(shutil.rmtree, bare.state)
        status, said = await bare.call("--sandbox", "confined")
    assert status == 2, said
    assert "the sandbox level confined cannot be had here. user: can be had" in said
    assert "install the package bubblewrap" in said
    assert "Or say --sandbox none" in said


def test_a_cluster_of_this_machine_takes_the_best_and_says_why_it_is_not_better(
    open_folder: Path,  # noqa: F811
) -> None:
    state = open_folder / "cluster"
    chosen = own_sandbox(state)
    found = try_levels(ground_here(state, JOBS, MACHINE, os.environ["PATH"]))
    assert chosen.level is (best(found) or NONE)
    assert chosen.said.startswith(f"{chosen.level.value}: ")
    assert (reasons(found) in chosen.said) == (chosen.level is NONE)
    assert own_sandbox(state, CONFINED).level is CONFINED, "it is the agents that refuse"
