"""Generated code is what the contracts generate."""

import re
import subprocess
import tomllib
from pathlib import Path

from tests.kit.tree import GENERATED, ROOT, text


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


def test_the_oldest_runtime_that_we_allow_loads_generated_code() -> None:
    # Generated code refuses, when imported, a runtime older than its generator.
    generated = "\n".join(path.read_text() for path in (ROOT / GENERATED).glob("*_pb2*.py"))
    grpc = max(re.findall(r"GRPC_GENERATED_VERSION = '([0-9.]+)'", generated), key=_version)
    protobuf = max(re.findall(r"# Protobuf Python Version: ([0-9.]+)", generated), key=_version)
    assert _version(_oldest("grpcio")) >= _version(grpc)
    assert _version(_oldest("protobuf")) >= _version(protobuf)


def _oldest(distribution: str) -> str:
    """Return the lower bound of a dependency of the SDK."""
    project = tomllib.loads(text(Path("sdk/pyproject.toml")))["project"]
    wanted = (re.match(rf"{distribution}>=([0-9.]+)", line) for line in project["dependencies"])
    return next(found[1] for found in wanted if found)


def _version(written: str) -> tuple[int, ...]:
    return tuple(int(part) for part in written.split("."))
