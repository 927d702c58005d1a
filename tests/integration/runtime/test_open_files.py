"""A controller takes as many descriptors as it may have: what strangers hold leaves some for its store."""

import resource
from pathlib import Path

from services.runtime.open_files import OPEN_FILES
from tests.kit.controller_process import ControllerProcess


async def test_a_controller_may_open_as_many_files_as_its_hard_limit_lets_it(
    tmp_path: Path,
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
    try:
        async with ControllerProcess(tmp_path) as controller:
            assert controller.process is not None
            found = resource.prlimit(controller.process.pid, resource.RLIMIT_NOFILE)
        assert found == (most, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
