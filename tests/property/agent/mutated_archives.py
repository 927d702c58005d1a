"""Archives that were mutated, laid out beside things that must stay as they are.

`make fuzz-bundles ARCHIVES=100000 SEED=1` plays as many as that; a failure names the seed of its archive, and
`SEED=N ARCHIVES=1` plays it again. What is drawn depends on the seed alone.
"""

import argparse
import errno
import io
import os
import shutil
import stat
import sys
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final

from edge_agent.bundles.layout import BundleRefusedError, LayoutLimits, lay_out
from edge_agent.long_work import done_at_once

SLOWEST_SECONDS: Final = 20.0
"""No archive of this size takes so long; most take a thousandth of a second."""

_LIMITS: Final = LayoutLimits(bytes_max=1 << 20, entries_max=200)
_DISK: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS})
_BLOCK: Final = tarfile.BLOCKSIZE
_NAMES: Final = (
    "a", "a/b", "a/b/c", "d", "d/link", "link", "link/x", "x", "é", "a b", ".", "./a", "a/", "a//b",
    "..", "../outside/kept", "../../outside", "a/../..", "a/../../outside/kept", "/etc/x", "/", "",
    "x" * 120, "d/" + "y" * 99, "a/" * 60 + "z", "outside", "\udc80", "nul\x01",
)  # fmt: skip
_TYPES: Final = b"0157234671LKSxgXVDN\0A"
_PAX: Final = (
    "path", "linkpath", "size", "mode", "uid", "mtime", "GNU.sparse.major", "GNU.sparse.minor",
    "GNU.sparse.name", "GNU.sparse.map", "GNU.sparse.size", "GNU.sparse.realsize", "hdrcharset",
)  # fmt: skip
_FIELDS: Final = {"name": (0, 100), "mode": (100, 8), "size": (124, 12), "type": (156, 1),
                  "link": (157, 100), "magic": (257, 8), "prefix": (345, 155)}  # fmt: skip


class EscapedError(AssertionError):
    """An archive did what none may."""


@dataclass(slots=True)
class Played:
    """How many archives came to which end, and how long the slowest took, in seconds."""

    ends: Counter[str] = field(default_factory=Counter[str])
    slowest: float = 0.0


def archive(rng: Random) -> bytes:
    """Draw an archive, and mutate it."""
    data = bytearray(_made(rng))
    for _ in range(rng.choice((0, 1, 1, 2, 3, 8))):
        rng.choice(_MUTATIONS)(rng, data)
    if rng.random() < 0.8:
        _fix_checksums(data)
    return bytes(data)


def play(seed: int, place: Path, played: Played) -> None:
    """Lay the archive of a seed out at `place`, an empty folder.

    Raises:
        EscapedError: something outside of its folder changed, or it ended as none may.
    """
    rng = Random(seed)
    root = place / str(seed)
    outside, work = root / "outside", root / "in" / "work"
    outside.mkdir(parents=True)
    work.parent.mkdir()
    (outside / "kept").write_text("kept")
    (outside / "kept").chmod(0o640)
    path = root / "bundle.tar"
    path.write_bytes(archive(rng))
    before = _fingerprint(root, work)
    began = time.monotonic()
    end = "laid out"
    try:
        done_at_once(lay_out(path, work, flat=rng.random() < 0.3, limits=_LIMITS))
    except BundleRefusedError:
        end = "refused"
    except OSError as error:
        if error.errno not in _DISK:
            raise EscapedError(f"seed {seed}: {error!r}, and it is not the disk's") from error
        end = "disk"
    except Exception as error:
        raise EscapedError(f"seed {seed}: {error!r}") from error
    seconds = time.monotonic() - began
    if _fingerprint(root, work) != before:
        raise EscapedError(f"seed {seed}: something outside of the folder changed")
    if seconds > SLOWEST_SECONDS:
        raise EscapedError(f"seed {seed}: it took {seconds:.0f} s")
    if end == "laid out":
        _look_inside(seed, work)
    played.ends[end] += 1
    played.slowest = max(played.slowest, seconds)
    _make_removable(work)
    shutil.rmtree(root)


def _made(rng: Random) -> bytes:
    out = io.BytesIO()
    style = rng.choice((tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT))
    with tarfile.open(
        fileobj=out, mode="w", format=style, encoding="utf-8", errors="surrogateescape"
    ) as tar:
        for _ in range(rng.randrange(8)):
            info = tarfile.TarInfo(rng.choice(_NAMES[: rng.choice((9, len(_NAMES)))]))
            info.type = rng.choice((b"0", b"0", b"0", b"5", b"2", b"2", b"1", b"6", b"3"))
            info.linkname = rng.choice(_NAMES)
            info.mode = rng.choice((0o644, 0o755, 0o000, 0o4777, rng.randrange(0o10000)))
            data = rng.randbytes(rng.choice((0, 1, 511, 512, 513, 2000)))
            info.size = len(data) if info.isreg() else 0
            if style == tarfile.PAX_FORMAT and rng.random() < 0.3:
                info.pax_headers = {
                    rng.choice(_PAX): rng.choice((*_NAMES, "-1", "10", "9" * 20, "1,2,3"))
                }
            try:
                tar.addfile(info, io.BytesIO(data))
            except ValueError:
                continue  # no name for this format
    return out.getvalue()


def _flip(rng: Random, data: bytearray) -> None:
    for _ in range(rng.randrange(1, 9)):
        data[rng.randrange(len(data))] = rng.randrange(256)


def _edit(rng: Random, data: bytearray) -> None:
    """Write something else into a field of a header."""
    begin = _header(rng, data)
    name = rng.choice(tuple(_FIELDS))
    at, length = _FIELDS[name]
    match name:
        case "type":
            value = bytes([rng.choice(_TYPES)])
        case "size" | "mode":
            value = rng.choice(
                (b"00000001000", b"77777777777", b"-1", b"\x80" + b"\xff" * 11, b"\xff" * 12, b"x")
            )
        case "magic":
            value = rng.choice((b"ustar\x0000", b"ustar  \0", b"\0" * 8, b"GNUtar \0"))
        case _:
            value = rng.choice(_NAMES).encode("utf-8", "surrogateescape")
    data[begin + at : begin + at + length] = value[:length].ljust(length, b"\0")


def _words(rng: Random, data: bytearray) -> None:
    """Replace a word anywhere, in the records of a PAX header above all."""
    old = rng.choice((b"path=", b"size=", b"a/b", b"link", b"..", b"\n", b"=", b"1", b"0"))
    at = data.find(old, rng.randrange(len(data)))
    if at >= 0:
        new = rng.choice((b"path=", b"..", b"/", b"\0", b"9999999", b"\n", b"=", b""))
        data[at : at + len(new)] = new


def _blocks(rng: Random, data: bytearray) -> None:
    """Take blocks away, put them in twice, or change their places."""
    count = len(data) // _BLOCK
    first, second = (rng.randrange(count) * _BLOCK for _ in range(2))
    block = bytes(data[first : first + _BLOCK])
    match rng.randrange(4):
        case 0:
            del data[first : first + _BLOCK * rng.randrange(1, 4)]
        case 1:
            data[second:second] = block
        case 2:
            data[first : first + _BLOCK] = data[second : second + _BLOCK]
            data[second : second + _BLOCK] = block
        case _:
            data[second:second] = rng.randbytes(_BLOCK)
    if len(data) < _BLOCK:
        data += bytes(_BLOCK)


def _cut(rng: Random, data: bytearray) -> None:
    del data[rng.randrange(_BLOCK, len(data) + 1) :]


_MUTATIONS: Final[tuple[Callable[[Random, bytearray], None], ...]] = (
    _flip, _edit, _edit, _edit, _words, _blocks, _cut,
)  # fmt: skip


def _header(rng: Random, data: bytearray) -> int:
    """Where a header begins, or any other block."""
    places = [
        at for at in range(0, len(data), _BLOCK) if bytes(data[at + 257 : at + 262]) == b"ustar"
    ]
    return rng.choice(places) if places else rng.randrange(len(data) // _BLOCK) * _BLOCK


def _fix_checksums(data: bytearray) -> None:
    """Let damage get past the checksums of headers."""
    for begin in range(0, len(data) - _BLOCK + 1, _BLOCK):
        if bytes(data[begin + 257 : begin + 262]) == b"ustar":
            header = data[begin : begin + _BLOCK]
            header[148:156] = b" " * 8
            data[begin + 148 : begin + 156] = b"%06o\0 " % sum(header)


def _fingerprint(root: Path, work: Path) -> dict[str, tuple[object, ...]]:
    """Everything beneath `root` that is not in `work`: what it is, its mode, and what is in it."""
    found: dict[str, tuple[object, ...]] = {}
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        for entry in os.scandir(folder):
            if entry.path == str(work):
                continue
            facts = entry.stat(follow_symlinks=False)
            said = (facts.st_mode, facts.st_size, facts.st_nlink)
            if stat.S_ISDIR(facts.st_mode):
                found[entry.path] = (facts.st_mode,)
                waiting.append(Path(entry.path))
            elif entry.name == "bundle.tar":
                found[entry.path] = said
            else:
                found[entry.path] = (*said, Path(entry.path).read_bytes())
    return found


def _look_inside(seed: int, work: Path) -> None:
    """See that what was laid out is files, folders and links, and that no link leads out."""
    real = os.path.realpath(work)
    _make_removable(work)
    for parent, folders, names in os.walk(work):
        for name in [*folders, *names]:
            path = os.path.join(parent, name)  # noqa: PTH118
            mode = os.lstat(path).st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode)):
                raise EscapedError(f"seed {seed}: {path!r} is no file, folder or link")
            if mode & (stat.S_ISUID | stat.S_ISGID):
                raise EscapedError(f"seed {seed}: {path!r} has the rights of another user")
            target = os.path.realpath(path)
            if target != real and not target.startswith(real + os.sep):
                raise EscapedError(f"seed {seed}: {path!r} leads to {target!r}")


def _make_removable(work: Path) -> None:
    """Give folders back the modes that their removal needs, for who is not root."""
    waiting = [work] if work.is_dir() else []
    while waiting:
        folder = waiting.pop()
        folder.chmod(0o700)
        waiting += [
            Path(entry.path) for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False)
        ]


def main() -> None:
    """Play archives, and say how they ended."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--archives", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0, help="seed of the first one")
    wanted = parser.parse_args()
    shared = Path("/dev/shm")
    played = Played()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as folder:
        for seed in range(wanted.seed, wanted.seed + wanted.archives):
            play(seed, Path(folder), played)
    seconds = time.monotonic() - began
    ends = ", ".join(f"{count:,} {end}" for end, count in sorted(played.ends.items()))
    sys.stdout.write(
        f"{wanted.archives:,} archives in {seconds:.0f} s, seeds from {wanted.seed}: {ends}; "
        f"nothing outside, the slowest took {played.slowest * 1000:.1f} ms\n"
    )


if __name__ == "__main__":
    main()
