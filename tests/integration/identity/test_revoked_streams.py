"""A board that is revoked while it streams: the other board takes nothing more of it, and gives it nothing."""

import contextlib
from pathlib import Path

import pytest

from shoal.client import Client
from shoal.model import JobState
from tests.integration.identity.test_agents import board, revoke
from tests.integration.identity.test_newcomers import running
from tests.integration.identity.test_streams import FOLLOW, SPEC
from tests.kit.cluster import submit, when
from tests.kit.until import until


@pytest.mark.parametrize("revoked", ["cam-1", "cam-2"])
async def test_the_board_at_the_other_end_of_a_stream_leaves_a_revoked_one(
    tmp_path: Path, revoked: str
) -> None:
    lines = tmp_path / "lines"
    lines.touch()
    async with running(tmp_path / "c") as cluster, contextlib.AsyncExitStack() as stack:
        boards = {
            name: await stack.enter_async_context(
                board(cluster, "--label", f"board={name}", name=name)
            )
            for name in ("cam-1", "cam-2")
        }
        for one in boards.values():
            one.take(await cluster.token())
            one.begin()
        async with Client(cluster.addresses.grpc, credentials=cluster.operator) as client:
            spec = SPEC.format(lines=lines)
            name = (await submit(client, tmp_path / "job", spec, {"follow.py": FOLLOW})).pipeline.id
            await when(
                client, name, lambda now: all(job.state is JobState.RUNNING for job in now.jobs)
            )
        taking = boards["cam-2"].state / "attempts"

        def taken() -> str:
            return "".join(path.read_text() for path in taking.glob("*.sink.*/*/results/all"))

        with lines.open("a") as file:
            file.write("one\n")
        await until(lambda: taken() == "one\n", 60, "a record")
        assert await revoke(cluster, revoked) == 1
        other = boards["cam-2" if revoked == "cam-1" else "cam-1"]
        log = other.state / "stream-worker.log"
        words = "a peer is left" if revoked == "cam-1" else "a caller is cut"
        await until(lambda: words in log.read_text(), 20, words)
        with lines.open("a") as file:
            file.write("two\n")
        refused = f"the certificate of node/{revoked} was revoked"
        await until(
            lambda: log.read_text().count(refused) >= 2, 20, "it is refused when it dials, too"
        )
        assert taken() == "one\n"
