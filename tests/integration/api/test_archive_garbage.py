"""An operator looks at what nothing names in the archive, and has it removed: `shoal archive gc`."""

import asyncio
import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from services.archive.manifest import manifest_key, manifest_text
from shoal.model import Artifact
from shoal.names import AttemptRef
from tests.kit.running_controller import running_controller

DAY = 86_400


def put(archive: Path, key: str, days: float, data: bytes = b"hello") -> Path:
    path = archive / key
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    then = time.time() - days * DAY
    os.utime(path, (then, then))
    return path


async def shoal(address: str, *words: str) -> str:
    command = (sys.executable, "-m", "shoal.cli", *words, "--controller", address)
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await asyncio.wait_for(process.communicate(), 300)
    assert process.returncode == 0, said.decode()
    return said.decode()


async def test_what_nothing_names_goes_and_what_a_manifest_names_stays(tmp_path: Path) -> None:
    async with running_controller(tmp_path / "controller") as addresses:
        archive = tmp_path / "controller/archive"
        kept, lost = (AttemptRef("default", "scan-1", "a", number, number) for number in (2, 1))
        named = Artifact("results/x", 5, "0" * 64, f"{kept.prefix}/out/results/x")
        stays = [
            put(archive, named.key, 400),
            put(archive, f"{lost.prefix}/out/results/young", 29),
            put(archive, "ada/Classification/task7/Results/x", 400),
            put(archive, "bundles/sha256/" + "1" * 64, 29),
        ]
        text = manifest_text(kept, [named], datetime(2026, 1, 1, tzinfo=UTC)).encode()
        stays.append(put(archive, manifest_key(kept.job_ref), 400, text))
        goes = [
            put(archive, f"{lost.prefix}/stderr", 31),
            put(archive, "bundles/sha256/" + "2" * 64, 31),
            put(archive, "listings/sha256/" + "3" * 64, 31),
        ]
        said = await shoal(addresses.grpc, "archive", "gc", "--dry-run")
        assert f"{lost.prefix}/stderr" in said
        assert "3 objects with 15 B and 0 unfinished uploads would be removed" in said
        assert all(path.exists() for path in (*stays, *goes))
        said = await shoal(addresses.grpc, "archive", "gc")
        assert "3 objects with 15 B and 0 unfinished uploads are removed" in said
        assert all(path.exists() for path in stays)
        assert not any(path.exists() for path in goes)
