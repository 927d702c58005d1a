"""What the image adds to its BASE runs on the oldest JetPack that is promised: L4T r32, with the glibc of Ubuntu 18.04.

The shipped BASE (python:3.11-slim-bullseye) is not here: CI cannot pull it. What is looked at are the files that the
shipped Dockerfile adds to whatever BASE it is given. The BASE of this lane is newer, and would be refused by it.
"""

import json
import re
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.kit.docker import DockerError
from tests.kit.programs import program
from tests.lanes.arm64.conftest import LOG, BoardImage, build_options

pytestmark = pytest.mark.timeout(900)  # with the bases and the image, on a busy machine
OLDEST: Final = {"GLIBC": (2, 27), "GLIBCXX": (3, 4, 25), "CXXABI": (1, 3, 11), "GCC": (8, 0, 0)}
"""What Ubuntu 18.04 has: glibc 2.27, and libstdc++ and libgcc_s of GCC 8."""
ADDED_BYTES_MAX: Final = 200_000_000
_NEED: Final = re.compile(r"Name: (GLIBC|GLIBCXX|CXXABI|GCC)_(\d[\d.]*)")
_FILE: Final = re.compile(r"^File: (.*)$", re.MULTILINE)


@pytest.fixture(scope="module")
def layers(image: BoardImage, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The layers of the image, the oldest first."""
    folder = tmp_path_factory.mktemp("image")
    image.docker("save", "--output", str(folder / "image.tar"), image.name, seconds=120)
    with tarfile.open(folder / "image.tar") as tar:
        tar.extractall(folder, filter="data")
    (folder / "image.tar").unlink()
    [manifest] = json.loads((folder / "manifest.json").read_text())
    return [folder / name for name in manifest["Layers"]]


@pytest.fixture(scope="module")
def of_base(image: BoardImage) -> int:
    """How many of the layers are those of BASE."""
    said = image.docker("image", "inspect", "--format", "{{json .RootFS.Layers}}", image.base)
    return len(json.loads(said))


def unpacked(layers: list[Path], folder: Path) -> Iterator[Path]:
    """Write the programs and libraries in these layers to a folder; yields each."""
    for number, layer in enumerate(layers):
        with tarfile.open(layer) as tar:
            for member in tar:
                source = tar.extractfile(member) if member.isreg() else None
                if source is None or source.read(4) != b"\x7fELF":
                    continue
                path = folder / str(number) / member.name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(b"\x7fELF" + source.read())
                yield path


def needs(files: list[Path]) -> dict[str, dict[str, tuple[int, ...]]]:
    """What each file asks its libraries for at most, by kind, as readelf reads it."""
    words = [program("readelf"), "--wide", "--version-info", *map(str, files)]
    said = subprocess.run(words, capture_output=True, text=True, timeout=120, check=True).stdout
    pieces = [said] if len(files) == 1 else _FILE.split(said)[1:]
    if len(files) == 1:
        pieces = [str(files[0]), said]
    found: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, text in zip(pieces[::2], pieces[1::2], strict=True):
        most = found.setdefault(name, {})
        for kind, version in _NEED.findall(text):
            numbers = tuple(int(part) for part in version.split("."))
            most[kind] = max(most.get(kind, (0,)), numbers)
    return found


def too_new(found: dict[str, dict[str, tuple[int, ...]]]) -> list[str]:
    """The files that ask for more than the oldest JetPack has."""
    return [
        f"{name} asks for {kind}_{'.'.join(map(str, version))}"
        for name, most in found.items()
        for kind, version in most.items()
        if version > OLDEST[kind]
    ]


def test_no_file_that_the_image_adds_asks_for_more_than_the_oldest_jetpack_has(
    layers: list[Path], of_base: int, tmp_path: Path
) -> None:
    files = list(unpacked(layers[of_base:], tmp_path))
    names = {path.name for path in files}
    assert {"uv", "cygrpc.cpython-311-aarch64-linux-gnu.so", "_rust.abi3.so"} <= names
    machines = {path.read_bytes()[18:20] for path in files}
    assert machines == {b"\xb7\x00"}, "not all of them are for aarch64"
    found = needs(files)
    assert len(found) == len(files)
    assert too_new(found) == []
    for kind in OLDEST:
        most = max((of.get(kind, (0,)) for of in found.values()), default=(0,))
        LOG.info("%d files added to BASE ask for %s_%s at most", len(files), kind, _dotted(most))
    LOG.info(
        "NOT RUN HERE: the shipped BASE, python:3.11-slim-bullseye, which cannot be pulled in CI. "
        "Debian 12 for aarch64 stands in for it, and a Jetson is not at hand: qemu runs it"
    )


def test_the_check_finds_what_is_too_new(layers: list[Path], of_base: int, tmp_path: Path) -> None:
    # Debian 12 has glibc 2.36: a Python of it is one that JetPack 4 could not run by itself.
    files = [path for path in unpacked(layers[:of_base], tmp_path) if path.name == "python3.11"]
    assert len(too_new(needs(files))) == 1


def test_what_the_image_adds_is_small(image: BoardImage) -> None:
    sizes = [
        int(image.docker("image", "inspect", "--format", "{{.Size}}", name))
        for name in (image.name, image.base)
    ]
    added = sizes[0] - sizes[1]
    LOG.info("the image adds %.1f MB to BASE, which has %.1f MB", added / 1e6, sizes[1] / 1e6)
    assert added <= ADDED_BYTES_MAX


@pytest.mark.parametrize(
    ("processor", "reason"),
    [
        ("arm64", r"BASE has no /usr/bin/python3\.\d+, as BUILD_BASE"),
        ("s390x", "there is no image for 's390x': build it for linux/amd64 or linux/arm64"),
    ],
)
def test_what_cannot_be_built_is_refused_in_a_sentence(
    image: BoardImage, processor: str, reason: str
) -> None:
    empty, platform = f"{image.name}-{processor}", f"linux/{processor}"
    label = "FROM scratch\nLABEL base=empty\n"
    image.docker("build", "--quiet", "--platform", platform, "--tag", empty, "-", stdin=label)
    try:
        with pytest.raises(DockerError, match=reason):
            image.docker(
                "build", "--file", "edge_agent/Dockerfile", "--platform", platform,
                *build_options(empty), ".",
                seconds=120,
            )  # fmt: skip
    finally:
        image.docker("image", "rm", "--force", empty)


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
