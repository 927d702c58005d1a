"""`host-python` of the image, tried on this machine's own root; `make lane-arm64` tries it on a foreign one."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.kit.programs import unavailable
from tests.kit.tree import ROOT

SCRIPT = ROOT / "edge_agent" / "host-python.sh"


def host_python(root: str, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run it with the board's folders below `root`."""
    return subprocess.run(
        ["sh", SCRIPT, *words],
        env={"PATH": os.environ["PATH"], "HOST_ROOT": root, **environ},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_it_starts_the_python_below_the_root_with_the_loader_of_the_root(tmp_path: Path) -> None:
    loaders = list(Path("/usr/lib").glob("*-linux-gnu/ld-linux-*.so.*"))
    if not loaders or not Path("/usr/bin/python3").exists():
        unavailable("there is no Python of the system: apt-get install python3")
    root = tmp_path / "a board"
    root.mkdir()
    (root / "usr").symlink_to("/usr")
    code = "import sys, os, _ctypes; print(sys.prefix, sys.argv[1:], os.readlink('/proc/self/exe'))"
    ran = host_python(str(root), "-I", "-c", code, "a b", "*")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith(f"{root}/usr ['a b', '*'] ")
    assert Path(ran.stdout.split()[-1]).name.startswith("ld-"), "the loader of the system runs it"
    assert host_python(str(root), "-c", "raise SystemExit(7)").returncode == 7


@pytest.mark.parametrize("there", [(), ("usr/bin/python3",)])
def test_without_the_folders_of_the_board_it_says_how_to_mount_them(
    there: tuple[str, ...], tmp_path: Path
) -> None:
    for name in there:
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).symlink_to("/bin/true")
    ran = host_python(str(tmp_path), "-c", "pass")
    assert (ran.returncode, ran.stdout) == (127, "")
    assert f"is not at {tmp_path}/usr/bin/python3 with its loader in {tmp_path}/lib" in ran.stderr
    assert f"--volume /usr:{tmp_path}/usr:ro --volume /lib:{tmp_path}/lib:ro" in ran.stderr
