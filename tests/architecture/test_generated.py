"""Generated code is what the contracts generate."""

import subprocess
from pathlib import Path

from tests.kit.tree import GENERATED, ROOT


def test_generated_code_is_in_sync(tmp_path: Path) -> None:
    subprocess.run(
        ["make", "--silent", "proto", f"PROTO_OUT={tmp_path}"], cwd=ROOT, check=True, timeout=60
    )
    fresh = _contents(tmp_path / "shoal" / "v1")
    committed = _contents(ROOT / GENERATED)
    assert sorted(fresh) == sorted(committed), "run `make proto`"
    assert [name for name in fresh if fresh[name] != committed[name]] == [], "run `make proto`"


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*_pb2*")}
