"""Which files below /dev belong to a class of devices that a job asks for.

A class that is not in the table is the name of a file below /dev, or that name with a number behind it, so that
an operator's `--device ttyUSB` is /dev/ttyUSB0, /dev/ttyUSB1 and so on. All devices of a class go together: of
two cameras a job that asks for `video` may use both.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final

_PATTERNS: Final[Mapping[str, Sequence[str]]] = MappingProxyType(
    {
        "video": ("video*", "media*", "v4l-subdev*"),
        "gpu": ("nvidia*", "nvhost*", "nvmap", "nvgpu/**/*", "dri/*", "dma_heap/*", "kfd"),
    }
)
_PLAIN: Final = re.compile(r"[A-Za-z0-9_-]+")


def device_nodes(
    wanted: Sequence[str], offered: Collection[str], root: Path = Path("/")
) -> tuple[Path, ...]:
    """Return the device nodes of all classes that are wanted and offered, each once.

    Args:
        wanted: classes that a job asks for.
        offered: classes that the operator or the machine says the node has; no others count.
        root: the folder that stands for `/`.
    """
    found: dict[Path, None] = {}
    for name in wanted:
        if name not in offered or not _PLAIN.fullmatch(name):
            continue
        for pattern in _PATTERNS.get(name, (name, f"{name}[0-9]*")):
            nodes = sorted((root / "dev").glob(pattern))
            found |= {
                node: None for node in nodes if node.is_char_device() or node.is_block_device()
            }
    return tuple(found)
