"""From what a program needs to its plan, at each level."""

import base64
import os
import platform
import tempfile
from pathlib import Path

import pytest

from edge_agent.sandbox import landlock, seccomp
from edge_agent.sandbox.entry import execute
from edge_agent.sandbox.narrowing import LANDLOCK, SECCOMP, Narrowing, NarrowingError, Needs
from edge_agent.sandbox.plan import SECCOMP_WORD, FilesRule, SandboxPlan
from shoal.sandbox import SandboxLevel, SandboxNetwork

PLAN = SandboxPlan(uid=231_000, gid=231_000, oom_score=500)
needs_landlock = pytest.mark.skipif(
    landlock.abi() < landlock.SCOPES_ABI, reason="the kernel has no Landlock of today"
)


def _narrowing(state: Path, *filters: str, wrapper: str = "/usr/bin/bwrap") -> Narrowing:
    return Narrowing([str(state)], filters, platform.machine(), wrapper)


def test_level_none_leaves_the_plan_as_it_is(tmp_path: Path) -> None:
    narrowing = _narrowing(tmp_path, SECCOMP, LANDLOCK)
    assert narrowing.plan(PLAN, SandboxLevel.NONE, Needs(str(tmp_path))) == PLAN


def test_level_user_without_filters_takes_rights_alone(tmp_path: Path) -> None:
    plan = _narrowing(tmp_path).plan(PLAN, SandboxLevel.USER, Needs(str(tmp_path)))
    assert plan.no_new_privileges
    assert (plan.files, plan.scoped, plan.seccomp, plan.wrap) == ((), False, "", ())
    assert (plan.uid, plan.oom_score) == (PLAN.uid, PLAN.oom_score)


@needs_landlock
def test_level_user_hides_what_bubblewrap_would(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    narrowing = _narrowing(tmp_path, SECCOMP, LANDLOCK)
    plan = narrowing.plan(PLAN, SandboxLevel.USER, Needs(str(work), writes=(str(work),)))
    rules = {rule.path: rule.write for rule in plan.files}
    assert plan.scoped
    assert base64.b64decode(plan.seccomp) == seccomp.program(platform.machine())
    assert plan.own == (FilesRule(str(work), write=True),)
    assert rules["/usr"] is False
    assert rules["/tmp"] is True
    beside = {str(path) for path in tmp_path.parent.iterdir()}
    assert not beside & set(rules), "what lies in a folder that may be written costs no rules"
    assert "/root" not in rules
    assert "/" not in rules


@needs_landlock
@pytest.mark.skipif(
    os.geteuid() != 0, reason="only root makes folders beside what others may write to"
)
def test_rules_are_one_value_until_something_comes_to_lie_beside_what_is_hidden() -> None:
    with tempfile.TemporaryDirectory(dir="/var/lib") as name:
        state, work = Path(name, "state"), Path(name, "state", "work")
        work.mkdir(parents=True)
        Path(name, "before").mkdir()
        narrowing = _narrowing(state, LANDLOCK)
        needs = Needs(str(work), reads=(str(state),), writes=(str(work),))
        first = narrowing.plan(PLAN, SandboxLevel.USER, needs).files
        assert narrowing.plan(PLAN, SandboxLevel.USER, needs).files is first
        assert FilesRule(f"{name}/before") in first
        assert FilesRule(f"{name}/state") in first, "since it is read"
        Path(name, "later").mkdir()
        os.utime(name, ns=(1, 1))  # whatever the clock of files did in between
        later = narrowing.plan(PLAN, SandboxLevel.USER, needs).files
        assert set(later) - set(first) == {FilesRule(f"{name}/later")}
        closed = narrowing.plan(PLAN, SandboxLevel.USER, Needs(str(work))).files
        assert FilesRule(f"{name}/state") not in closed
        narrowing.forget()
        assert set(narrowing.plan(PLAN, SandboxLevel.USER, needs).files) == set(later)


def test_level_confined_wraps_the_program(tmp_path: Path) -> None:
    work, link = tmp_path / "work", tmp_path / "link"
    work.mkdir()
    link.symlink_to(work)
    narrowing = _narrowing(tmp_path, SECCOMP)
    needs = Needs(str(link), writes=(str(link),), network=SandboxNetwork.NONE)
    plan = narrowing.plan(PLAN, SandboxLevel.CONFINED, needs)
    assert plan.no_new_privileges
    assert plan.files == (), "a process with such rules could not mount"
    assert SECCOMP_WORD in plan.wrap
    assert "--unshare-net" in plan.wrap
    # Real paths: what a link names is not there behind a folder that is hidden.
    assert str(link) not in plan.wrap
    assert plan.wrap[-3:] == ("--chdir", str(work), "--")


@pytest.mark.parametrize("home", ["", "/", "/usr/sbin", "relative", "/bin"])
def test_a_home_that_is_none_of_its_own_is_not_hidden(
    home: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or all programs of the node would be hidden with it."""
    (tmp_path / "relative").mkdir()
    monkeypatch.chdir(tmp_path)
    plans = [
        Narrowing(hidden, (), platform.machine(), "/usr/bin/bwrap").plan(
            PLAN, SandboxLevel.CONFINED, Needs(str(tmp_path))
        )
        for hidden in ([home], [])
    ]
    assert plans[0] == plans[1]


def test_no_network_needs_level_confined(tmp_path: Path) -> None:
    needs = Needs(str(tmp_path), network=SandboxNetwork.NONE)
    with pytest.raises(NarrowingError, match="needs the level confined, and this one has user"):
        _narrowing(tmp_path).plan(PLAN, SandboxLevel.USER, needs)


def test_without_bubblewrap_nothing_is_confined(tmp_path: Path) -> None:
    narrowing = _narrowing(tmp_path, wrapper="")
    with pytest.raises(NarrowingError, match="install the package bubblewrap"):
        narrowing.plan(PLAN, SandboxLevel.CONFINED, Needs(str(tmp_path)))


@pytest.mark.skipif(os.geteuid() != 0, reason="it takes root to be refused as root")
def test_root_is_not_confined_as_root(tmp_path: Path) -> None:
    with pytest.raises(NarrowingError, match="root cannot be confined as root"):
        _narrowing(tmp_path).plan(SandboxPlan(), SandboxLevel.CONFINED, Needs(str(tmp_path)))


@needs_landlock
def test_a_program_of_level_user_sees_nothing_hidden_and_writes_what_it_may(tmp_path: Path) -> None:
    """Its user is that of the tests: what is refused here is not refused by rights of files."""
    work = tmp_path / "work"
    work.mkdir()
    narrowing = Narrowing(["/var/lib"], [SECCOMP, LANDLOCK], platform.machine(), "")
    plan = narrowing.plan(SandboxPlan(), SandboxLevel.USER, Needs(str(work), writes=(str(work),)))
    said = _run(
        plan,
        work,
        "ls /var/lib || echo hidden; ls /run || echo hidden; echo 1 >file && cat file;"
        " echo 1 >/etc/changed || echo refused; cat /etc/passwd >/dev/null && echo read;"
        " echo 1 >/dev/shm/$$ && rm /dev/shm/$$ && echo scratch; unshare --user true || echo refused",
    )
    printed = [line for line in said.splitlines() if ": " not in line]
    assert printed == ["hidden", "hidden", "1", "refused", "read", "scratch", "refused"]


def _run(plan: SandboxPlan, folder: Path, script: str) -> str:
    """Carry out a plan in a child that becomes a shell; return what it prints."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.chdir(folder)
            os.dup2(writing, 1)
            os.dup2(writing, 2)
            execute(plan, ["/bin/sh", "-c", script], {"PATH": "/usr/bin:/bin"})
        except BaseException as error:  # noqa: BLE001 - a child never returns
            os.write(writing, str(error).encode())
        finally:
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading) as said:
        printed = said.read()
    os.waitpid(child, 0)
    return printed
