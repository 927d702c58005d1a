"""The files of a Jetson TX2 with Jetson Linux r32.7.4 (JetPack 4.6.4) that facts are read from, as a folder.

The paths are those that jetson-stats reads on such a board (github.com/rbonghi/jetson_stats, `jtop/core`), and
the zones, trip points and cooling devices those of NVIDIA's "Power Management for Jetson TX2 Series Devices".
"""

from pathlib import Path
from typing import Final

_ZONES: Final = (
    # type, thousandths of a degree, trip points (type, thousandths), cooling devices (number, trip point)
    ("BCPU-therm", 41500, (("passive", 95500), ("critical", 101000)), ((0, 0),)),
    ("MCPU-therm", 41000, (("passive", 95500), ("critical", 101000)), ((0, 0),)),
    ("GPU-therm", 39500, (("passive", 95500), ("critical", 101000)), ((1, 0),)),
    ("PLL-therm", 41500, (), ()),
    ("Tboard_tegra", 36000, (("passive", 107000),), ()),
    ("Tdiode_tegra", 38250, (("critical", 107000),), ()),
    ("PMIC-Die", 100000, (("critical", 120000),), ()),
    ("thermal-fan-est", 40900, (("active", 36000), ("active", 51000)), ((2, 0), (2, 1))),
)
_COOLERS: Final = (("cpu-balanced", 0), ("gpu-balanced", 0), ("pwm-fan", 1))
_RAILS: Final = (
    ("0-0040", ("VDD_SYS_GPU", "VDD_SYS_SOC", "VDD_4V0_WIFI"), (152, 459, 38)),
    ("0-0041", ("VDD_IN", "VDD_SYS_CPU", "VDD_SYS_DDR"), (2942, 459, 532)),
)


class Tx2Tree:
    """A machine's files below a folder; what a test changes is read the next time.

    Args:
        root: the folder that stands for `/`; it is filled.
        camera: whether there is a `/dev/video0`.
    """

    def __init__(self, root: Path, *, camera: bool = False) -> None:
        self.root = root
        self._system()
        self._thermal()
        self._power()
        self.write("dev/nvhost-gpu", "")
        if camera:
            self.write("dev/video0", "")

    def write(self, path: str, text: str) -> None:
        """Have a file say something."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def heat(self, zone: str, degrees: float) -> None:
        """Have a thermal zone be so hot."""
        self.write(f"{self._zone(zone)}/temp", f"{round(degrees * 1000)}\n")

    def throttle(self, cooler: str, step: int) -> None:
        """Have the kernel slow something down, by so many steps."""
        number = [name for name, _ in _COOLERS].index(cooler)
        self.write(f"sys/devices/virtual/thermal/cooling_device{number}/cur_state", f"{step}\n")

    def _zone(self, name: str) -> str:
        number = [zone[0] for zone in _ZONES].index(name)
        return f"sys/devices/virtual/thermal/thermal_zone{number}"

    def _system(self) -> None:
        self.write(
            "etc/nv_tegra_release",
            "# R32 (release), REVISION: 7.4, GCID: 33514132, BOARD: t186ref, EABI: aarch64, "
            "DATE: Fri Jun  9 04:18:37 UTC 2023\n",
        )
        self.write(
            "etc/os-release",
            'NAME="Ubuntu"\nVERSION="18.04.6 LTS (Bionic Beaver)"\nID=ubuntu\nID_LIKE=debian\n'
            'PRETTY_NAME="Ubuntu 18.04.6 LTS"\nVERSION_ID="18.04"\n',
        )
        self.write("proc/sys/kernel/ostype", "Linux\n")
        self.write("proc/sys/kernel/osrelease", "4.9.337-tegra\n")
        self.write("proc/device-tree/model", "quill\0")
        self.write(
            "proc/stat",
            "cpu  10000 200 3000 80000 1000 0 300 0 0 0\n"
            + "".join(f"cpu{core} 1666 33 500 13333 166 0 50 0 0 0\n" for core in range(6))
            + "intr 1234\nctxt 5678\nbtime 1686284317\n",
        )
        self.write(
            "proc/meminfo",
            "MemTotal:        8041404 kB\nMemFree:         4530508 kB\nMemAvailable:    6020704 kB\n"
            "Buffers:           92720 kB\nCached:          1520048 kB\n"
            "SwapTotal:       4020692 kB\nSwapFree:        4000692 kB\nHugePages_Total:       0\n",
        )
        self.write("proc/self/mounts", "/dev/root / ext4 rw,relatime 0 0\nproc /proc proc rw 0 0\n")
        self.write("sys/devices/gpu.0/load", "345\n")
        self.write("sys/kernel/debug/bpmp/debug/clk/emc/rate", "1866000000\n")
        self.write("sys/kernel/actmon_avg_activity/mc_all", "93300\n")

    def _thermal(self) -> None:
        devices = self.root / "sys/devices/virtual/thermal"
        listed = self.root / "sys/class/thermal"
        listed.mkdir(parents=True)
        for number, (kind, step) in enumerate(_COOLERS):
            base = f"sys/devices/virtual/thermal/cooling_device{number}"
            self.write(f"{base}/type", f"{kind}\n")
            self.write(f"{base}/cur_state", f"{step}\n")
        for number, (kind, degrees, trips, coolers) in enumerate(_ZONES):
            base = f"sys/devices/virtual/thermal/thermal_zone{number}"
            self.write(f"{base}/type", f"{kind}\n")
            self.write(f"{base}/temp", f"{degrees}\n")
            for index, (trip, at) in enumerate(trips):
                self.write(f"{base}/trip_point_{index}_type", f"{trip}\n")
                self.write(f"{base}/trip_point_{index}_temp", f"{at}\n")
            for index, (cooler, trip_index) in enumerate(coolers):
                (devices / f"thermal_zone{number}/cdev{index}").symlink_to(
                    f"../cooling_device{cooler}"
                )
                self.write(f"{base}/cdev{index}_trip_point", f"{trip_index}\n")
            (listed / f"thermal_zone{number}").symlink_to(
                f"../../devices/virtual/thermal/thermal_zone{number}"
            )

    def _power(self) -> None:
        listed = self.root / "sys/bus/i2c/devices"
        listed.mkdir(parents=True)
        for number, (address, names, milliwatts) in enumerate(_RAILS):
            base = f"sys/devices/3160000.i2c/i2c-0/{address}"
            self.write(f"{base}/name", "ina3221x\n")
            for port, (name, power) in enumerate(zip(names, milliwatts, strict=True)):
                monitor = f"{base}/iio:device{number}"
                self.write(f"{monitor}/rail_name_{port}", f"{name}\n")
                self.write(f"{monitor}/in_power{port}_input", f"{power}\n")
                self.write(f"{monitor}/in_voltage{port}_input", "19152\n")
                self.write(f"{monitor}/in_current{port}_input", f"{power * 1000 // 19152}\n")
            (listed / address).symlink_to(f"../../../devices/3160000.i2c/i2c-0/{address}")
