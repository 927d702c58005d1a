"""F21: `docs/fleet.md` is carried out as it stands, over ssh, on machines with systemd.

Between its blocks the fleet meets what a page does not show: a play that is killed, a release that cannot start, an
agent that is killed, an authority that takes over.
"""

import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from tests.kit.document_blocks import Block, blocks
from tests.kit.tree import ROOT
from tests.kit.until import until_sync
from tests.lanes.ansible.fleet import ADDRESSES, BOARDS, LOG, Fleet, documents, fleet, step

PAGE: Final = ROOT / "docs" / "fleet.md"
WHEELS_PAGE: Final = ROOT / "docs" / "boards.md"
NEW: Final = "0.2.0"
BROKEN: Final = "0.3.0"
IDENTITY: Final = "/var/lib/shoal/agent/identity/identity.pem"
TO_JOIN: Final = r"shoal1\.[0-9a-f]\{64\}\."
PLACES: Final = {"board-1": "hall", "board-2": "yard"}
WAIT: Final = "until [ -e /tmp/go ]; do sleep 0.1; done; hostname"


@pytest.mark.timeout(1500)
def test_f21_the_page_about_a_fleet_is_carried_out() -> None:
    with fleet() as made:
        _bring_wheels(made)
        story = Story(made)
        for number, block in enumerate(blocks(PAGE)):
            if "not in CI" not in block.where:
                before, after = story.around(block)
                before()
                with step(f"block {number}: {block.commands.strip().splitlines()[-1]}"):
                    carry_out(made, block)
                after()
        story.remove_the_last()
        assert story.told == set(story.BESIDE), "these blocks are not on the page any more"


def carry_out(made: Fleet, block: Block) -> None:
    """Do what a block says, and compare what it prints; nodes are there within seconds, and a reader looks again."""

    def printed() -> bool:
        status, said = made.run(block.commands)
        missing = block.missing(said)
        if block.commands.strip() == "shoal nodes" and (status or missing):
            return False
        assert status == 0, f"{block.commands}: status {status}:\n{said}"
        assert not missing, f"{block.commands} did not print {missing} but:\n{said}"
        return True

    until_sync(printed, 30, block.commands)


class Story:
    """What happens beside the blocks of the page.

    Args:
        made: the fleet.
    """

    BESIDE: Final = (
        ("ansible-playbook site.yml", 1),
        ("ansible-playbook upgrade.yml", 1),
        ("ansible-playbook drain.yml --limit board-2 -e shoal_board_drained=false", 1),
        ("ansible-playbook remove.yml --limit board-2", 1),
    )
    """The blocks of the page that something happens beside: their beginning, and the how manieth of them."""

    def __init__(self, made: Fleet) -> None:
        self._made = made
        self.told = set[tuple[str, int]]()
        self._seen: dict[str, int] = {}
        self._pipelines: Mapping[str, str] = {}

    def around(self, block: Block) -> tuple[Callable[[], None], Callable[[], None]]:
        """Return what is to be done before a block, and after it."""
        begin = block.commands.splitlines()[0]
        self._seen[begin] = self._seen.get(begin, 0) + 1
        beside = {
            self.BESIDE[0]: (self._without_limit, self._joined),
            self.BESIDE[1]: (self._interrupted, self._upgraded),
            self.BESIDE[2]: (_nothing, self._broken),
            self.BESIDE[3]: (_nothing, self._removed),
        }
        key = (begin, self._seen[begin])
        if key in beside:
            self.told.add(key)
        if block.where.endswith("with a newer checkout"):
            _rename(self._made.checkout, NEW)
        return beside.get(key, (_nothing, _nothing))

    def _without_limit(self) -> None:
        """Nothing is installed yet: what cannot be meant is refused with the remedy."""
        status, said = self._made.run("ansible-playbook remove.yml")
        assert status != 0
        assert "say which boards with --limit, such as --limit board-2" in said
        words = "ansible-playbook site.yml --limit board-1 -e shoal_board_name=Board_1"
        status, said = self._made.run(words)
        assert status != 0
        assert "board-1: shoal_board_name is Board_1, which is no name of a node" in said

    def _joined(self) -> None:
        """Tokens are gone and were told nowhere; jobs run on both; another authority is followed without a play."""
        made = self._made
        assert not re.search(TO_JOIN.replace("\\", ""), made.said)
        for machine in ADDRESSES:
            assert made.on(machine, f"journalctl --no-pager | grep -c '{TO_JOIN}' || true") == "0\n"
        for board in BOARDS:
            assert not made.holds(board, "[ -e /etc/shoal/join.token ]")
            shipped = (ROOT / "compose" / "systemd" / "shoal-agent.service").read_text()
            assert made.on(board, "cat /etc/systemd/system/shoal-agent.service") == shipped
        with step("an authority takes over, and the boards renew their certificates"):
            before = {board: made.on(board, f"cat {IDENTITY}") for board in BOARDS}
            made.operator("authority add")
            (new,) = documents(made.operator("authority list --json"))[-1:]
            made.operator(f"authority use {new['fingerprint'][:16]}")
            for board in BOARDS:
                until_sync(partial(self._renewed, board, before[board]), 30, f"{board} renews")

    def _renewed(self, board: str, before: str) -> bool:
        return self._made.on(board, f"cat {IDENTITY}") != before

    def _interrupted(self) -> None:
        """A play is killed while it installs on the first board, under jobs that run; nothing has noticed."""
        made = self._made
        self._pipelines = {board: self._run_until_told(board) for board in BOARDS}
        release = f"/opt/shoal/{NEW}"
        with step("an upgrade is killed in the middle"):
            output = made.checkout / "killed"
            process = made.start("ansible-playbook upgrade.yml", output)
            try:
                until_sync(
                    lambda: (
                        process.poll() is not None
                        or made.holds(
                            "board-1", f"[ -d {release}/venv ] && ! [ -e {release}/complete ]"
                        )
                    ),
                    60,
                    "the upgrade has begun on board-1",
                )
                assert process.poll() is None, output.read_text()
            finally:
                made.interrupt(process)
        for board in BOARDS:
            assert made.on(board, "readlink /opt/shoal/venv") != f"/opt/shoal/{NEW}/venv\n"
            assert made.nodes()[board]["connected"], board
            assert len(made.nodes()[board]["attempts"]) == 1
        status, said = made.run("ansible-playbook site.yml --limit board-2")
        assert status != 0
        assert re.search("board-2: it runs the release .*: upgrade.yml brings it, board by", said)

    def _run_until_told(self, board: str) -> str:
        words = f"shoal run --detach --json --require place={PLACES[board]} -- sh -c '{WAIT}'"
        status, said = self._made.run(words)
        assert status == 0, said
        pipeline = str(documents(said)[0]["id"])
        until_sync(
            lambda: self._made.nodes()[board]["attempts"] != [], 30, f"{pipeline} is on {board}"
        )
        return pipeline

    def _upgraded(self) -> None:
        """The jobs that ran all the while succeed where they were, and an agent that is killed comes back."""
        made = self._made
        for board, pipeline in self._pipelines.items():
            assert len(made.nodes()[board]["attempts"]) == 1
            made.on(board, "touch /tmp/go")
            status, said = made.run(
                f"shoal status --watch {pipeline}; shoal status --json {pipeline}"
            )
            assert status == 0, said
            (job,) = documents(said)[-1]["jobs"]
            ended = [(one["number"], one["node"], one["state"]) for one in job["attempts"]]
            assert ended == [(1, board, "SUCCEEDED")]
        copies = made.on("controller", "ls /var/lib/shoal/backup")
        assert re.fullmatch(rf"controller-.*-before-{NEW}\.tar\n", copies)
        with step("an agent is killed, and back"):
            made.on("board-1", "systemctl kill --kill-who=main --signal=KILL shoal-agent")
            counted = "systemctl show --property=NRestarts --value shoal-agent"
            until_sync(lambda: made.on("board-1", counted) == "1\n", 30, "systemd starts it again")
            until_sync(lambda: made.nodes()["board-1"]["connected"], 30, "it has its session again")

    def _broken(self) -> None:
        """A release whose agent cannot start stops at the first board, which goes back; the other is not touched."""
        made = self._made
        _rename(made.checkout, BROKEN)
        agent = made.checkout / "edge_agent" / "agent.py"
        agent.write_text('raise SystemExit("this release is broken")\n')
        wheels = "-w broken ../../sdk ../.."
        status, said = made.run(
            "mkdir broken; cp -l boards/wheels/*.whl broken; rm broken/shoal*.whl\n"
            f"pip wheel --quiet --no-deps --no-build-isolation {wheels}"
        )
        assert status == 0, said
        other = made.on("board-2", "cat /proc/sys/kernel/random/boot_id; ls /opt/shoal")
        status, said = made.play(
            "upgrade.yml --limit boards -e shoal_release_wheels=$PWD/broken -e shoal_board_ready_seconds=8"
        )
        assert status != 0
        assert re.search(rf"board-1: the board was not alive with version {BROKEN}", said)
        assert f"It runs the release {NEW} with the earlier settings again" in said
        assert "this release is broken" in said
        assert made.on("board-1", "readlink /opt/shoal/venv") == f"/opt/shoal/{NEW}/venv\n"
        assert made.on("board-2", "cat /proc/sys/kernel/random/boot_id; ls /opt/shoal") == other
        until_sync(lambda: made.nodes()["board-1"]["connected"], 30, "board-1 is back")
        assert {one["agent_version"] for one in made.nodes().values()} == {NEW}

    def _removed(self) -> None:
        """Nothing of it is left on the machine, nor in the cluster, and a second removal finds nothing to do."""
        made = self._made
        _nothing_left(made, "board-2")
        status, said = made.play("remove.yml --limit board-2")
        assert status == 0
        assert re.search(r"board-2 .*changed=0 .*failed=0", said), said

    def remove_the_last(self) -> None:
        """The board with a Python of its own leaves nothing, either."""
        status, said = self._made.play("remove.yml --limit board-1")
        assert status == 0, said
        _nothing_left(self._made, "board-1")
        assert self._made.nodes() == {}


def _nothing() -> None:
    pass


def _nothing_left(made: Fleet, board: str) -> None:
    left = "find / -xdev -iname '*shoal*' -not -path '/proc/*' -not -path '/var/log/*'"
    assert made.on(board, left) == ""
    assert not made.holds(board, "getent passwd shoal || getent group shoal")
    assert not made.holds(board, "grep -aqs '[/]opt/shoal' /proc/[0-9]*/cmdline")
    assert board not in made.nodes()
    certificates = documents(made.operator("identities list --json"))
    believed = {one["identity"]["name"] for one in certificates if one["revoke_time"] is None}
    assert board not in believed


def _rename(checkout: Path, version: str) -> None:
    """Let the checkout be one of another version, as `git pull` does."""
    path = checkout / "sdk" / "shoal" / "version.py"
    text, count = re.subn(
        r'(?m)^VERSION: Final = ".*"$', f'VERSION: Final = "{version}"', path.read_text()
    )
    assert count == 1, path
    path.write_text(text)


def _bring_wheels(made: Fleet) -> None:
    """Make the folder `boards` as the page about boards does, and the Python of this machine in the place of uv's."""
    for block in blocks(WHEELS_PAGE):
        if "with internet" in block.section and "not in CI" not in block.where:
            with step(f"wheels: {block.commands.strip().splitlines()[0]}"):
                status, said = made.run(block.commands, seconds=200)
            assert status == 0, said
    python = (
        "boards/python/cpython-3.11.14-linux-aarch64-gnu"  # as the page names the one of a Jetson
    )
    status, said = made.run(
        f"mkdir -p {python}/bin {python}/lib\n"
        f"cp /usr/bin/python3.11 {python}/bin\n"
        f"ln -s python3.11 {python}/bin/python3\n"
        f"cp -r /usr/lib/python3.11 {python}/lib"
    )
    assert status == 0, said
    LOG.info("the wheelhouse is complete")
