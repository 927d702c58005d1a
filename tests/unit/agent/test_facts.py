"""What is read of a Jetson TX2, of machines that say less, and of files that hang or hold garbage."""

import threading
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_agent.facts import parsers
from edge_agent.facts.heat import heat_of, refusal
from edge_agent.facts.machine_files import MachineFiles
from edge_agent.facts.news import worth_telling
from edge_agent.facts.reader import FactsReader
from edge_agent.facts.sources import SOURCES
from shoal.node_facts import Heat, NodeFacts, PowerRailFact, TemperatureFact
from tests.kit.tx2_tree import Tx2Tree
from tests.kit.until import until


def _reader(root: Path) -> FactsReader:
    return FactsReader(root, root, lambda: 1_700_000_000.0, deadline_seconds=30.0)


async def test_a_tx2_says_everything(tmp_path: Path) -> None:
    tree = Tx2Tree(tmp_path)
    reader = _reader(tmp_path)
    await reader.read()
    tree.write(
        "proc/stat", "cpu  10050 200 3000 80050 1000 0 300 0 0 0\ncpu0 1 1 1 1\ncpu1 1 1 1 1\n"
    )
    facts = await reader.read()
    assert (facts.os, facts.os_version, facts.kernel) == (
        "Linux",
        "Ubuntu 18.04.6 LTS",
        "4.9.337-tegra",
    )
    assert (facts.board, facts.l4t_version, facts.jetpack_version) == ("quill", "32.7.4", "4.6.4")
    assert (facts.cpu_count, facts.cpu_percent) == (2, 50.0)
    assert facts.memory_total_bytes == 8041404 * 1024
    assert facts.memory_used_bytes == (8041404 - 6020704) * 1024
    assert facts.swap_total_bytes - facts.swap_free_bytes == 20000 * 1024
    assert [disk.path for disk in facts.disks] == ["/"]
    assert facts.disks[0].total_bytes > facts.disks[0].free_bytes > 0
    names = [zone.name for zone in facts.temperatures]
    assert names == [
        "BCPU-therm", "MCPU-therm", "GPU-therm", "PLL-therm", "Tboard_tegra", "Tdiode_tegra", "thermal-fan-est",
    ]  # fmt: skip
    assert facts.temperatures[0] == TemperatureFact("BCPU-therm", 41.5, 95.5, 101.0)
    assert facts.temperatures[-1].throttle_celsius is None, "a fan slows nothing down"
    assert facts.gpu_percent == 34.5
    assert facts.emc_percent == 5.0
    assert PowerRailFact("VDD_IN", 2942.0) in facts.rails
    assert len(facts.rails) == 6
    assert (facts.throttled, facts.heat, facts.problem) == ((), Heat.COOL, "")
    assert facts.measure_time is not None


async def test_a_board_that_is_slowed_down_is_hot_and_its_fan_is_not_meant(tmp_path: Path) -> None:
    tree = Tx2Tree(tmp_path)
    reader = _reader(tmp_path)
    tree.throttle("pwm-fan", 3)
    assert (await reader.read()).throttled == ()
    tree.throttle("cpu-balanced", 2)
    facts = await reader.read()
    assert (facts.throttled, facts.heat) == (("cpu-balanced",), Heat.HOT)


async def test_steps_of_heat_do_not_sway_with_the_sensor(tmp_path: Path) -> None:
    tree = Tx2Tree(tmp_path)
    reader = _reader(tmp_path)
    seen: list[Heat] = []
    for degrees in (70.0, 80.5, 79.5, 80.6, 91.0, 89.5, 88.0, 78.0):
        tree.heat("BCPU-therm", degrees)
        seen.append((await reader.read()).heat)
    cool, warm, hot = Heat.COOL, Heat.WARM, Heat.HOT
    assert seen == [cool, warm, warm, warm, hot, hot, warm, cool]


async def test_a_board_that_is_about_to_shut_down_takes_no_new_work(tmp_path: Path) -> None:
    tree = Tx2Tree(tmp_path)
    reader = _reader(tmp_path)
    assert not refusal((await reader.read()).temperatures)
    tree.heat("GPU-therm", 98.5)
    said = refusal((await reader.read()).temperatures)
    assert "GPU-therm is within 3 °C of the 101 °C" in said
    tree.heat("GPU-therm", 99.1)
    assert refusal((await reader.read()).temperatures) == said, (
        "the sentence has no figure that sways"
    )


async def test_an_empty_machine_says_nothing_and_breaks_nothing(tmp_path: Path) -> None:
    facts = await _reader(tmp_path).read()
    assert facts.os == facts.board == facts.problem == ""
    assert (facts.cpu_count, facts.cpu_percent, facts.gpu_percent) == (0, None, None)
    assert facts.heat is Heat.UNKNOWN


async def test_the_monitors_of_a_newer_jetson_linux_say_volts_and_amperes(tmp_path: Path) -> None:
    tree = Tx2Tree(tmp_path)
    monitor = "sys/bus/i2c/devices/1-0040"
    tree.write(f"{monitor}/name", "ina3221\n")
    for port, name in ((1, "VDD_GPU_SOC"), (2, "NC"), (7, "sum of shunt voltages")):
        tree.write(f"{monitor}/hwmon/hwmon4/in{port}_label", f"{name}\n")
        tree.write(f"{monitor}/hwmon/hwmon4/in{port}_input", "5000\n")
        tree.write(f"{monitor}/hwmon/hwmon4/curr{port}_input", "500\n")
    rails = (await _reader(tmp_path).read()).rails
    assert [rail for rail in rails if rail.milliwatts == 2500.0] == [
        PowerRailFact("VDD_GPU_SOC", 2500.0)
    ]


async def test_how_busy_the_cores_are_now_is_seen_in_a_window(tmp_path: Path) -> None:
    tree = Tx2Tree(tmp_path)
    reader = FactsReader(Path("/"), tmp_path, lambda: 0.0, deadline_seconds=30.0)
    facts = await reader.read(window_seconds=0.05)
    assert facts.cpu_count >= 1
    assert facts.cpu_percent is None or 0 <= facts.cpu_percent <= 100
    assert tree.root.exists()


async def test_a_file_that_hangs_costs_what_lies_behind_it_and_no_more(tmp_path: Path) -> None:
    Tx2Tree(tmp_path)
    free = threading.Event()
    asked: list[str] = []

    def stuck(_files: MachineFiles, _state: Path) -> Mapping[str, object]:
        asked.append("stuck")
        free.wait(60)
        return {"board": "late"}

    def behind(_files: MachineFiles, _state: Path) -> Mapping[str, object]:
        return {"kernel": "behind"}

    sources = {"the system": SOURCES["the system"], "the bus": stuck, "the rest": behind}
    reader = FactsReader(tmp_path, tmp_path, lambda: 0.0, sources=sources, deadline_seconds=0.5)
    facts = await reader.read()
    assert (facts.board, facts.kernel) == ("quill", "4.9.337-tegra")
    assert facts.problem == "the bus and the rest could not be read in time"
    facts = await reader.read()
    assert facts.kernel == "behind", "what hangs is not asked again, and the rest is read"
    assert facts.problem == "the bus could not be read in time"
    assert asked == ["stuck"]
    free.set()

    async def is_read_again() -> bool:
        facts = await reader.read()
        return (facts.board, facts.problem) == ("late", "")

    await until(is_read_again, 30, "the bus that has come back")


def test_what_sways_is_no_news() -> None:
    zone = TemperatureFact("a", 40.0, 95.0)
    facts = NodeFacts(cpu_percent=20.0, temperatures=(zone,))
    assert worth_telling(None, facts)
    assert not worth_telling(facts, facts)
    near = NodeFacts(cpu_percent=25.0, temperatures=(TemperatureFact("a", 41.0, 95.0),))
    assert not worth_telling(facts, near)
    assert worth_telling(facts, NodeFacts(cpu_percent=31.0, temperatures=(zone,)))
    assert worth_telling(facts, NodeFacts(cpu_percent=None, temperatures=(zone,)))
    assert worth_telling(facts, NodeFacts(cpu_percent=20.0))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("# R32 (release), REVISION: 7.4, GCID: 1", "32.7.4"),
        ("# R28 (release), REVISION: 2.0, GCID: 1", "28.2.0"),
        ("# R36 (release), REVISION: 4.3, GCID: 1", "36.4.3"),
        ("# R21 (release), REVISION: 5, GCID: 1", "21.5"),
        ("", ""),
        ("R32", ""),
    ],
)
def test_the_release_of_jetson_linux(text: str, found: str) -> None:
    assert parsers.l4t_version(text) == found


GARBAGE = st.one_of(
    st.text(max_size=200),
    st.from_regex(r"[-+]?\d{0,40}( \w+)?\n?", fullmatch=True),
    st.lists(
        st.sampled_from(["cpu", "cpu0", "MemTotal:", "=", "/dev/a", "\\999", "\0", "\n", " 1"])
    ).map("".join),
)


@given(GARBAGE, GARBAGE, GARBAGE)
def test_garbage_is_no_fact_and_no_error(one: str, other: str, third: str) -> None:
    for text in (one, other, third):
        assert len(parsers.word(text)) <= 256
        parsers.number(text)
        degrees = parsers.celsius(text)
        assert degrees is None or -100 <= degrees <= 250
        parsers.os_release(text)
        parsers.available(parsers.meminfo(text))
        list(parsers.mounts(text))
        parsers.jetpack_version(parsers.l4t_version(text))
        busy = parsers.cpu_percent(parsers.cpu_times(one), parsers.cpu_times(text))
        assert busy is None or 0 <= busy <= 100
    power = parsers.milliwatts(one, other, third)
    assert power is None or power >= 0


FILES = (
    "proc/stat", "proc/meminfo", "proc/self/mounts", "proc/device-tree/model", "etc/os-release",
    "etc/nv_tegra_release", "sys/devices/gpu.0/load", "sys/kernel/debug/bpmp/debug/clk/emc/rate",
    "sys/kernel/actmon_avg_activity/mc_all", "sys/devices/virtual/thermal/thermal_zone0/type",
    "sys/devices/virtual/thermal/thermal_zone0/temp",
    "sys/devices/virtual/thermal/thermal_zone1/trip_point_0_temp",
    "sys/devices/virtual/thermal/thermal_zone1/trip_point_0_type",
    "sys/devices/virtual/thermal/thermal_zone2/cdev0_trip_point",
    "sys/devices/virtual/thermal/cooling_device1/cur_state",
    "sys/devices/3160000.i2c/i2c-0/0-0040/iio:device0/rail_name_0",
    "sys/devices/3160000.i2c/i2c-0/0-0040/iio:device0/in_power0_input",
)  # fmt: skip


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.dictionaries(st.sampled_from(FILES), st.binary(max_size=80), max_size=6))
def test_a_machine_whose_files_hold_garbage_is_read_all_the_same(
    tmp_path_factory: pytest.TempPathFactory, spoilt: dict[str, bytes]
) -> None:
    root = tmp_path_factory.mktemp("board")
    Tx2Tree(root)
    for path, content in spoilt.items():
        (root / path).write_bytes(content)
    fields: dict[str, object] = {}
    for read in SOURCES.values():
        fields |= read(MachineFiles(root), root)
    facts = NodeFacts(**fields)  # type: ignore[arg-type]
    assert facts.memory_available_bytes <= facts.memory_total_bytes
    heat_of(facts.temperatures, facts.throttled, Heat.UNKNOWN)
