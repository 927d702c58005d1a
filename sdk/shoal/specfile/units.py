"""Durations and sizes as people write them."""

import re

from shoal import limits

_DURATION_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)")
_SIZE_UNITS = {
    "": 1,
    "B": 1,
    "kB": 10**3,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
}


def parse_duration(text: str) -> float:
    """Read `90s`, `2m`, `1h30m`, `250ms` or a plain number of seconds.

    Returns:
        Seconds.

    Raises:
        ValueError: it is none of these; the message is a clause that follows the value.
    """
    if _NUMBER.fullmatch(text):
        return _lasting(float(text))
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError("is not a duration; write for example 90s, 2m, 1h30m or 250ms")
    return _lasting(sum(float(number) * _DURATION_UNITS[unit] for number, unit in parts))


def parse_size(text: str) -> int:
    """Read `512MiB`, `2GB` or a plain number of bytes.

    Returns:
        Bytes.

    Raises:
        ValueError: it is none of these; the message is a clause that follows the value.
    """
    match = _SIZE.fullmatch(text)
    unit = _SIZE_UNITS.get(match[2]) if match else None
    if match is None or unit is None:
        raise ValueError("is not a size; write for example 512MiB, 2GB or a number of bytes")
    size = float(match[1]) * unit
    if size > limits.INTEGER_MAX:
        raise ValueError("is more than a machine can have; write for example 512MiB")
    return int(size)


def _lasting(seconds: float) -> float:
    if problem := limits.duration_problem(seconds):
        raise ValueError(problem)
    return seconds
