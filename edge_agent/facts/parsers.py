"""What the files of a Linux machine say, as values; garbage is no fact, never an error.

The forms are those of proc(5), os-release(5), and Linux' Documentation/driver-api/thermal/sysfs-api.rst.
Those of Jetson Linux are as jetson-stats reads them (`jtop/core` of github.com/rbonghi/jetson_stats).
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

_DIGITS_MAX: Final = 18
"""More digits than any count of a machine has; a longer number is garbage."""

_NUMBER: Final = re.compile(rf"[+-]?\d{{1,{_DIGITS_MAX}}}", re.ASCII)
_L4T: Final = re.compile(
    r"#\s*R(\d{1,3})\s*\(release\)\s*,\s*REVISION:\s*(\d{1,3}(?:\.\d{1,3}){0,2})", re.ASCII
)

_JETPACKS: Final = MappingProxyType(
    {
        "28.1.0": "3.1", "28.2.0": "3.2", "28.2.1": "3.3", "28.4.0": "3.3.3",
        "32.1.0": "4.2", "32.2.0": "4.2.1", "32.2.1": "4.2.2", "32.2.3": "4.2.3", "32.3.1": "4.3",
        "32.4.3": "4.4", "32.4.4": "4.4.1", "32.5.0": "4.5", "32.5.1": "4.5.1", "32.5.2": "4.5.1",
        "32.6.1": "4.6", "32.7.1": "4.6.1", "32.7.2": "4.6.2", "32.7.3": "4.6.3", "32.7.4": "4.6.4",
        "32.7.5": "4.6.5", "32.7.6": "4.6.6",
        "35.1.0": "5.0.2", "35.2.1": "5.1", "35.3.1": "5.1.1", "35.4.1": "5.1.2", "35.5.0": "5.1.3",
        "35.6.0": "5.1.4", "36.3.0": "6.0", "36.4.0": "6.1", "36.4.3": "6.2",
    }
)  # fmt: skip
"""Which JetPack a release of Jetson Linux belongs to (developer.nvidia.com/embedded/jetpack-archive)."""


def word(text: str, most: int = 256) -> str:
    """Return the first line of a text without what cannot be shown, at most so many characters."""
    line = text.replace("\0", "\n").strip().partition("\n")[0]
    return "".join(one for one in line if one.isprintable())[:most].strip()


def number(text: str) -> int | None:
    """Return the whole number that a file holds, be it with a unit behind it; None for anything else."""
    first = text.replace("\0", " ").split(maxsplit=1)
    return int(first[0]) if first and _NUMBER.fullmatch(first[0]) else None


def celsius(text: str) -> float | None:
    """Return degrees from thousandths of them; None for what no sensor that works can say."""
    thousandths = number(text)
    if thousandths is None or not -100_000 <= thousandths <= 250_000:
        return None
    return thousandths / 1000


def share(part: float | None, whole: float | None) -> float | None:
    """Return how much of a whole a part is, from 0 to 100; None where that means nothing."""
    if part is None or whole is None or whole <= 0:
        return None
    return min(max(100.0 * part / whole, 0.0), 100.0)


def os_release(text: str) -> str:
    """Return the name for people in an os-release file."""
    pairs = dict(_pairs(text.splitlines(), "="))
    return word(pairs.get("PRETTY_NAME", "") or pairs.get("VERSION", "")).strip("\"'")


def meminfo(text: str) -> Mapping[str, int]:
    """Return the lines of /proc/meminfo as bytes by their names."""
    found: dict[str, int] = {}
    for name, value in _pairs(text.splitlines(), ":"):
        kibibytes = number(value)
        if kibibytes is not None and 0 <= kibibytes < 1 << 50:
            found[name] = kibibytes * 1024
    return found


def available(memory: Mapping[str, int]) -> int:
    """Return the bytes that programs could have; a kernel before 3.14 does not estimate them."""
    if "MemAvailable" in memory:
        return memory["MemAvailable"]
    return sum(memory.get(name, 0) for name in ("MemFree", "Buffers", "Cached"))


@dataclass(frozen=True, slots=True)
class CpuTimes:
    """What all cores together have done since the machine started, in ticks, and how many are on."""

    busy: int
    total: int
    cores: int


def cpu_times(text: str) -> CpuTimes | None:
    """Read /proc/stat; None where it has no line of all cores."""
    times: CpuTimes | None = None
    cores = 0
    for line in text.splitlines():
        words = line.split()
        if words and re.fullmatch(r"cpu\d{1,5}", words[0], re.ASCII):
            cores += 1
        elif words and words[0] == "cpu" and times is None:
            # user nice system idle iowait irq softirq steal; guest is in user already.
            ticks = [number(one) for one in words[1:9]]
            if len(ticks) >= 4 and all(one is not None and one >= 0 for one in ticks):
                known = [one for one in ticks if one is not None]
                total = sum(known)
                times = CpuTimes(total - sum(known[3:5]), total, 0)
    return None if times is None else CpuTimes(times.busy, times.total, cores)


def cpu_percent(before: CpuTimes | None, now: CpuTimes | None) -> float | None:
    """Return how busy the cores were between two looks; None where there were not two."""
    if before is None or now is None:
        return None
    return share(now.busy - before.busy, now.total - before.total)


def mounts(text: str) -> Iterator[str]:
    """Return where devices are mounted, each once, from /proc/self/mounts; there an octal escape is a blank."""
    seen: set[str] = set()
    for line in text.splitlines():
        words = line.split(" ")
        if len(words) >= 3 and words[0].startswith("/dev/") and words[0] not in seen:
            seen.add(words[0])
            yield re.sub(r"\\([0-3][0-7]{2})", lambda code: chr(int(code[1], 8)), words[1])


def l4t_version(text: str) -> str:
    """Return the release of Jetson Linux from /etc/nv_tegra_release, such as `32.7.4`."""
    found = _L4T.search(text)
    return "" if found is None else f"{int(found[1])}.{found[2]}"


def jetpack_version(l4t: str) -> str:
    """Return the JetPack of a release of Jetson Linux; empty where it is not known here."""
    full = l4t if l4t.count(".") >= 2 else f"{l4t}.0"
    return _JETPACKS.get(full, "")


def milliwatts(power: str, millivolts: str, milliamperes: str) -> float | None:
    """Return what a rail carries: what its driver says (mW), or the product of voltage and current."""
    said = number(power)
    if said is None:
        volts, amperes = number(millivolts), number(milliamperes)
        if volts is None or amperes is None:
            return None
        watts = volts * amperes / 1000
    else:
        watts = float(said)
    return watts if math.isfinite(watts) and 0 <= watts < 1e9 else None


def _pairs(lines: Iterable[str], between: str) -> Iterator[tuple[str, str]]:
    for line in lines:
        name, found, value = line.partition(between)
        if found:
            yield name.strip(), value.strip()
