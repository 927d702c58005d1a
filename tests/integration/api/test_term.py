"""Two controllers on one store, as processes: the older one ends itself and says why."""

import os
import shutil
from pathlib import Path

import pytest

from services.runtime.process import ExitCode
from shoal.client import Client
from shoal.errors import ShoalError
from shoal.spec import Job, Pipeline
from tests.kit.controller_process import ControllerProcess
from tests.kit.until import until

PIPELINE = Pipeline("hello", (Job("greet", ("true",)),))


async def test_the_older_of_two_controllers_ends_itself(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    async with ControllerProcess(first) as older:
        process = older.process
        assert process is not None
        async with Client(older.grpc) as client:
            before = (await client.submit(PIPELINE)).pipeline
            # The same files by another name, with a lock of their own, as a shared database has none.
            shutil.copytree(
                first / "state",
                second / "state",
                copy_function=os.link,
                ignore=shutil.ignore_patterns("*.lock"),
            )
            async with ControllerProcess(second) as later:
                with pytest.raises(ShoalError, match="shutting down"):
                    await client.submit(PIPELINE)
                await until(lambda: process.poll() is not None, 30, "the end of the older one")
                assert process.returncode == ExitCode.SUPERSEDED
                assert "term 1 of this one is over" in older.log()
                assert "Traceback" not in older.log()
                async with Client(later.grpc) as other:
                    assert [one.id async for one in other.list()] == [before.id]
