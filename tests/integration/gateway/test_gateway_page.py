"""docs/gateway.md: its commands are run as they stand, by a shell with curl, and print what it says."""

import asyncio
import os
import sys
from pathlib import Path

from tests.integration.gateway.conftest import Site
from tests.kit.document_blocks import blocks
from tests.kit.tree import ROOT


async def test_the_commands_of_the_page_print_what_it_says(site: Site, tmp_path: Path) -> None:
    environ = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "GATEWAY": site.gateway.url,
        "STATE": str(site.gateway.state),
    }
    found = blocks(ROOT / "docs" / "gateway.md")
    assert len(found) >= 7
    for block in found:
        shell = await asyncio.create_subprocess_exec(
            "bash", "-euo", "pipefail", "-c", block.commands,
            cwd=tmp_path, env=environ, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        async with asyncio.timeout(120):
            output, _ = await shell.communicate()
        said = output.decode(errors="replace")
        assert shell.returncode == 0, f"{block.commands}\n{said}"
        assert block.missing(said) == [], f"{block.commands}\n{said}"
        if block.section == "Users":
            environ["TOKEN"] = said.split()[0]
