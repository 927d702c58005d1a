"""A user for each attempt of a machine: no two have the same, whoever dies in between."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from edge_agent.sandbox.job_users import JobUsers, NoUserError, registry_here
from edge_agent.sandbox.user_processes import end_processes_of, has_processes, processes_of
from edge_agent.sandbox.user_range import UserRange, users_of_others
from tests.kit.job_users import job_users
from tests.kit.until import until

ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes other users")
RANGE = UserRange(3_100_000, 4)


def users(root: Path, state: str = "state", chance: float = 0.0) -> JobUsers:
    folder = root / state
    (folder / "attempts").mkdir(parents=True, exist_ok=True)
    found = job_users(RANGE, root / "registry", folder, chance)
    found.open(folder / "attempts")
    return found


def attempt(root: Path, name: str, uid: int, state: str = "state") -> None:
    """The folder of an attempt that was given to a user."""
    work = root / state / "attempts" / name / "work"
    work.mkdir(parents=True)
    os.chown(work, uid, uid)


@contextmanager
def process_of(uid: int) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["/bin/sleep", "600"], user=uid, group=uid, extra_groups=[]) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize(
    "text",
    ["", "200000", "200000:0", "0:10", "999:10", "4294967290:10", "-1:5", "a:b", "1e5:3", "٣٠٠٠:5"],
)
def test_a_range_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"FIRST:COUNT|range of users"):
        UserRange.parse(text)


def test_a_range_reads_as_it_is_written() -> None:
    assert UserRange.parse(" 200000:65536 ") == UserRange()
    assert str(UserRange(5000, 10)) == "5000:10"
    assert [uid in UserRange(5000, 10) for uid in (4999, 5000, 5009, 5010)] == [
        False,
        True,
        True,
        False,
    ]


def test_two_agents_of_a_machine_share_no_user(tmp_path: Path) -> None:
    one, other = users(tmp_path, "a"), users(tmp_path, "b")
    taken = [one.take("p.1"), other.take("p.1"), one.take("p.2"), other.take("p.2")]
    assert sorted(taken) == [3_100_000, 3_100_001, 3_100_002, 3_100_003]
    assert one.take("p.1") == taken[0]
    with pytest.raises(NoUserError, match=r"none of the users 3100000:4 is free.*--job-users"):
        one.take("p.3")
    other.free("p.1")
    assert one.take("p.3") == taken[1]


def test_numbers_go_round_from_one_that_is_drawn(tmp_path: Path) -> None:
    drawn = users(tmp_path, chance=0.5)
    assert drawn.take("p.1") == 3_100_002
    drawn.free("p.1")
    assert drawn.take("p.2") == 3_100_003
    assert drawn.take("p.3") == 3_100_000


@ROOT
def test_an_agent_that_starts_again_knows_whose_user_is_whose(tmp_path: Path) -> None:
    before = users(tmp_path)
    kept, gone = before.take("p.kept"), before.take("p.gone")
    attempt(tmp_path, "p.kept", kept)
    again = users(tmp_path)
    assert again.take("p.kept") == kept
    assert sorted(path.name for path in (tmp_path / "registry").iterdir()) == [str(kept)]
    assert gone != kept
    assert again.take("p.next") != kept


@ROOT
def test_after_a_reboot_the_folders_say_it(tmp_path: Path) -> None:
    attempt(tmp_path, "p.kept", 3_100_002)
    after = users(tmp_path)
    assert after.take("p.kept") == 3_100_002
    assert 3_100_002 not in {after.take(f"p.{number}") for number in range(3)}


def test_what_an_agent_took_that_is_no_more_is_free(tmp_path: Path) -> None:
    gone = users(tmp_path, "gone")
    for number in range(4):
        gone.take(f"p.{number}")
    shutil.rmtree(tmp_path / "gone")
    assert users(tmp_path).take("p.1") == 3_100_000


def test_words_that_are_none_in_the_registry_take_a_user_and_no_more(tmp_path: Path) -> None:
    (tmp_path / "registry").mkdir()
    (tmp_path / "registry" / "3100000").write_bytes(b"\xff\xfe")
    (tmp_path / "registry" / "3100001").write_text("")
    (tmp_path / "registry" / "other").mkdir()
    assert users(tmp_path).take("p.1") == 3_100_002


def test_a_registry_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    (tmp_path / "registry").touch()
    with pytest.raises(NoUserError, match=r"the registry of users .* cannot be used"):
        users(tmp_path)


@ROOT
def test_a_user_with_processes_is_nobodys_and_one_that_is_given_back_has_none(
    tmp_path: Path,
) -> None:
    with process_of(3_100_000) as stranger:
        ours = users(tmp_path)
        assert ours.take("p.1") == 3_100_001
        assert stranger.poll() is None
        with process_of(3_100_001) as left:
            assert processes_of(3_100_001) == [left.pid]
            ours.free("p.1")
            assert left.wait(30) == -9
        assert stranger.poll() is None


@ROOT
async def test_many_processes_end_with_their_user() -> None:
    """Sessions of their own, no parent: nothing but the user says whose they are."""
    bomb = 3_100_003
    each = "setsid sh -c 'while :; do sleep 600 & wait; done' &"
    program = f"i=0; while [ $i -lt 40 ]; do {each} i=$((i+1)); done; wait"
    with subprocess.Popen(
        ["prlimit", "--nproc=200", "/bin/sh", "-c", program], user=bomb, group=bomb, extra_groups=[]
    ) as process:
        await until(lambda: len(processes_of(bomb)) > 40, 60, "many processes")
        assert end_processes_of(bomb) == []
        process.wait(30)
    assert processes_of(bomb) == []


def test_the_users_of_jobs_are_no_others(tmp_path: Path) -> None:
    (tmp_path / "passwd").write_text("root:x:0:0::/:/bin/sh\nada:x:200010:7::/:/bin/sh\nbad line\n")
    (tmp_path / "subuid").write_text("ada:100000:65536\nbob:165536:65536\neve:x:1\n")
    (tmp_path / "group").write_text("far:x:300000:\n")
    taken = users_of_others(tmp_path)
    assert sorted(taken) == [(0, 1), (100000, 65536), (165536, 65536), (200010, 1), (300000, 1)]
    assert UserRange().beside(taken) == UserRange(231_072)
    assert UserRange().beside(users_of_others(tmp_path / "missing")) == UserRange()
    assert UserRange().beside([(1, 2**31)]) == UserRange()


def test_a_registry_that_another_user_made_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "registry").mkdir()
    (tmp_path / "registry").chmod(0o777)
    with pytest.raises(NoUserError, match="is another user's"):
        users(tmp_path)
    (tmp_path / "registry").rmdir()
    (tmp_path / "registry").symlink_to("/tmp")
    with pytest.raises(NoUserError, match="is another user's"):
        users(tmp_path)


def test_a_registry_in_a_sticky_folder_of_all_users_is_used(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    assert users(tmp_path).take("one")
    tmp_path.chmod(0o777)
    with pytest.raises(NoUserError, match="is another user's"):
        users(tmp_path)


def test_many_at_once_get_one_each(tmp_path: Path) -> None:
    (tmp_path / "attempts").mkdir()
    ours = job_users(UserRange(3_100_000, 200), tmp_path / "registry", tmp_path)
    ours.open(tmp_path / "attempts")
    names = [f"p.{number // 2}" for number in range(80)]
    with ThreadPoolExecutor(8) as threads:
        taken = dict(zip(names, threads.map(ours.take, names), strict=True))
    assert len(set(taken.values())) == 40
    entries = {int(path.name): path for path in (tmp_path / "registry").iterdir()}
    assert entries.keys() >= set(taken.values())
    assert len(entries) <= 40 + 3, "no more than a sixty-fourth of all is ahead"
    for uid in taken.values():
        assert entries[uid].read_text().splitlines()[0] == str(tmp_path)


def test_roots_and_our_own_processes_are_not_ended() -> None:
    for uid in (0, os.getuid()):
        with pytest.raises(ValueError, match="no job's"):
            end_processes_of(uid)


@ROOT
def test_root_has_a_registry_of_its_own_beside_that_of_a_service(tmp_path: Path) -> None:
    """`RuntimeDirectory=shoal` of the unit is its user's; root's agents start on such a machine, too."""
    shared = tmp_path / "shoal" / "job-users"
    assert registry_here(shared) == shared
    shared.mkdir(parents=True)
    assert registry_here(shared) == shared
    os.chown(shared.parent, 3_100_009, 3_100_009)
    own = registry_here(shared)
    assert own == tmp_path / "shoal-root" / "job-users"
    (tmp_path / "attempts").mkdir()
    with pytest.raises(NoUserError, match="is another user's"):
        job_users(RANGE, shared, tmp_path).open(tmp_path / "attempts")
    ours = job_users(RANGE, own, tmp_path)
    ours.open(tmp_path / "attempts")
    assert ours.take("p.1") in RANGE


@ROOT
async def test_the_kernel_says_whether_a_user_has_a_process() -> None:
    mine = 3_200_000 + os.getpid()  # another run of these tests has its own
    assert not has_processes(mine)
    with process_of(mine) as left:
        assert has_processes(mine)
        left.kill()
        await until(lambda: not processes_of(mine), what="its end")
        assert has_processes(mine), "a zombie counts, so nothing is taken for gone too early"
        left.wait()
        assert not has_processes(mine)
