"""Where each fact of a machine lies: one function for each thing to read, in the order of their worth.

The paths of Jetson Linux (r28 to r36) are those that jetson-stats reads (github.com/rbonghi/jetson_stats,
`jtop/core/power.py`, `gpu.py`, `memory.py`, `temperature.py` and `jetson_variables.py`): the INA3221 monitors
below `/sys/bus/i2c/devices`, with `iio:device*/rail_name_N` and `in_powerN_input` up to r32 and
`hwmon/hwmon*/inN_label`, `inN_input`, `currN_input` from r34 on; the load of the GPU in thousandths beside the
devfreq device whose node in the device tree is the GPU's, or at `/sys/devices/gpu.0/load`; the activity of the
memory controller over its rate. NVIDIA's guide to r32, "Power Management for Jetson TX2 Series Devices", has the
thermal zones and cooling devices. A cooling device counts only where it is bound to a passive or hot trip
point: a fan is bound to active ones.
"""

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

import psutil

from edge_agent.facts import parsers
from edge_agent.facts.machine_files import MachineFiles
from shoal.node_facts import DiskFact, PowerRailFact, TemperatureFact

Source = Callable[[MachineFiles, Path], Mapping[str, object]]
"""Reads some fields of the facts; gets the files of the machine, and the folder of the agent's state."""

ZONES_MAX: Final = 32
RAILS_MAX: Final = 32
DISKS_MAX: Final = 16
TRIPS_MAX: Final = 16

_GPUS: Final = frozenset({"gp10b", "gv11b", "ga10b", "gm20b", "gpu"})
_KERNEL: Final = "sys/kernel"


def system(files: MachineFiles, _: Path) -> Mapping[str, object]:
    """What does not change while the machine runs."""
    l4t = parsers.l4t_version(files.text("etc/nv_tegra_release"))
    return {
        "os": parsers.word(files.text("proc/sys/kernel/ostype")),
        "os_version": parsers.os_release(files.text("etc/os-release", "usr/lib/os-release")),
        "kernel": parsers.word(files.text("proc/sys/kernel/osrelease")),
        "board": parsers.word(
            files.text("proc/device-tree/model", "sys/class/dmi/id/product_name")
        ),
        "l4t_version": l4t,
        "jetpack_version": parsers.jetpack_version(l4t),
    }


def memory(files: MachineFiles, _: Path) -> Mapping[str, object]:
    """Memory and swap."""
    found = parsers.meminfo(files.text("proc/meminfo"))
    total = found.get("MemTotal", 0)
    return {
        "memory_total_bytes": total,
        "memory_available_bytes": min(parsers.available(found), total),
        "swap_total_bytes": found.get("SwapTotal", 0),
        "swap_free_bytes": found.get("SwapFree", 0),
    }


def temperatures(files: MachineFiles, _: Path) -> Mapping[str, object]:
    """Thermal zones, and what is slowed down because of them."""
    zones: list[TemperatureFact] = []
    throttled: dict[str, None] = {}
    for zone in list(files.found("sys/class/thermal", "thermal_zone*"))[:ZONES_MAX]:
        name = parsers.word(files.text(zone / "type"))
        degrees = parsers.celsius(files.text(zone / "temp"))
        # The PMIC of a TX2 says 100 degrees for ever: its driver knows that it is not too hot, and no more.
        if not name or degrees is None or name.startswith("PMIC"):
            continue
        trips = dict(_trips(files, zone))
        slows = [bound for kind, bound in trips.values() if kind in {"passive", "hot"}]
        ends = [bound for kind, bound in trips.values() if kind == "critical"]
        zones.append(
            TemperatureFact(name, degrees, min(slows, default=None), min(ends, default=None))
        )
        for device in files.found(zone, "cdev*_trip_point"):
            trip = parsers.number(files.text(device))
            kind = trips.get(-1 if trip is None else trip, ("", 0.0))[0]
            cooler = device.with_name(device.name.partition("_")[0])
            step = parsers.number(files.text(cooler / "cur_state"))
            if kind in {"passive", "hot"} and step is not None and step > 0:
                throttled[parsers.word(files.text(cooler / "type")) or cooler.name] = None
    return {"temperatures": tuple(zones), "throttled": tuple(throttled)[:ZONES_MAX]}


def _trips(files: MachineFiles, zone: Path) -> Iterator[tuple[int, tuple[str, float]]]:
    """The trip points of a zone by their numbers: the type of each, and where it is; 0 or less is none."""
    for index in range(TRIPS_MAX):
        kind = parsers.word(files.text(zone / f"trip_point_{index}_type"))
        if not kind:
            return
        bound = parsers.celsius(files.text(zone / f"trip_point_{index}_temp"))
        if bound is not None and bound > 0:
            yield index, (kind, bound)


def gpu(files: MachineFiles, _: Path) -> Mapping[str, object]:
    """How busy the GPU is."""
    loads: list[str | Path] = [
        device / "device" / "load"
        for device in files.found("sys/class/devfreq", "*")
        if parsers.word(files.text(device / "device" / "of_node" / "name")) in _GPUS
    ]
    text = files.text(*loads, "sys/devices/gpu.0/load", "sys/devices/platform/gpu.0/load")
    return {"gpu_percent": parsers.share(parsers.number(text), 1000)}


def emc(files: MachineFiles, _: Path) -> Mapping[str, object]:
    """How busy the memory controller is: its activity in kHz over its rate in Hz."""
    rate = parsers.number(
        files.text(f"{_KERNEL}/debug/bpmp/debug/clk/emc/rate", f"{_KERNEL}/debug/clk/emc/clk_rate")
    )
    activity = parsers.number(
        files.text(
            f"{_KERNEL}/debug/cactmon/mc_all",
            f"{_KERNEL}/debug/bpmp/debug/actmon/mc_all_avg_activity",
            f"{_KERNEL}/actmon_avg_activity/mc_all",
        )
    )
    return {"emc_percent": parsers.share(activity, None if rate is None else rate / 1000)}


def rails(files: MachineFiles, _: Path) -> Mapping[str, object]:
    """The rails of INA3221 power monitors."""
    found: list[PowerRailFact] = []
    for monitor in files.found("sys/bus/i2c/devices", "*"):
        if "ina3221" not in files.text(monitor / "name"):
            continue
        for label in files.found(monitor, "iio:device*/rail_name_*"):
            port = label.name.removeprefix("rail_name_")
            base = label.parent
            _add(
                found,
                files.text(label),
                parsers.milliwatts(
                    files.text(base / f"in_power{port}_input"),
                    files.text(base / f"in_voltage{port}_input"),
                    files.text(base / f"in_current{port}_input"),
                ),
            )
        for label in files.found(monitor, "hwmon/hwmon*/in[1-6]_label"):
            port = label.name.removeprefix("in").removesuffix("_label")
            base = label.parent
            _add(
                found,
                files.text(label),
                parsers.milliwatts(
                    "",
                    files.text(base / f"in{port}_input"),
                    files.text(base / f"curr{port}_input"),
                ),
            )
    return {"rails": tuple(found[:RAILS_MAX])}


def _add(found: list[PowerRailFact], label: str, milliwatts: float | None) -> None:
    name = parsers.word(label)
    # A channel that is not connected is called so.
    if name and not re.search(r"\bNC\b", name) and milliwatts is not None:
        found.append(PowerRailFact(name, milliwatts))


def disks(files: MachineFiles, state: Path) -> Mapping[str, object]:
    """The disks that are mounted from a device, and that of the agent's state, each once."""
    found: dict[int, DiskFact] = {}
    places = [(where, files.at(where)) for where in parsers.mounts(files.text("proc/self/mounts"))]
    for where, path in [("/", files.root), *places, (str(state), state)]:
        # What is mounted in a container need not be a folder here; a mount may be gone by now.
        with contextlib.suppress(OSError, ValueError):
            if len(found) < DISKS_MAX and path.is_dir():
                device = path.stat().st_dev
                usage = psutil.disk_usage(str(path))
                found.setdefault(device, DiskFact(where, usage.total, usage.free))
    return {"disks": tuple(found.values())}


SOURCES: Final[Mapping[str, Source]] = MappingProxyType(
    {
        "the system": system,
        "memory": memory,
        "temperatures": temperatures,
        "the GPU": gpu,
        "the power monitors": rails,
        "the memory controller": emc,
        "the disks": disks,
    }
)
"""By what people call them; disks come last, since one that hangs is likeliest."""
