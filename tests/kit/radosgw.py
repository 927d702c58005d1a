"""The strict S3 server: radosgw before a Ceph of one monitor and one OSD that keeps its objects in memory.

It checks the signature of every request and knows neither checksums of SHA-256 nor conditions on the end
of a multipart upload. Everybody in that Ceph proves himself (cephx), everything listens on 127.0.0.1, and all
files are in one folder.
"""

import contextlib
import json
import os
import signal
import subprocess
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, Self

from tests.kit.child_process import ChildProcess
from tests.kit.ports import accepts, free_port
from tests.kit.programs import program
from tests.kit.until import until_sync

PROGRAMS: Final = (
    "ceph",
    "ceph-authtool",
    "ceph-mon",
    "ceph-osd",
    "monmaptool",
    "radosgw",
    "radosgw-admin",
)

_CAPS: Final = {
    "mon.": ("mon", "allow *"),
    "client.admin": ("mon", "allow *", "osd", "allow *"),
    "osd.0": ("mon", "allow profile osd", "osd", "allow *"),
    "client.rgw": ("mon", "allow rw", "osd", "allow rwx"),
}
"""Who there is, and what each may do."""

_CONFIGURATION: Final = """
[global]
fsid = {cluster}
mon_host = {monitor}
mon_initial_members = a
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
ms_bind_msgr1 = false
auth_cluster_required = cephx
auth_service_required = cephx
auth_client_required = cephx
auth_allow_insecure_global_id_reclaim = false
keyring = {folder}/keyring
run_dir = {folder}
crash_dir = {folder}
admin_socket =
log_file =
log_to_stderr = true
mon_cluster_log_file = {folder}/cluster.log
mon_data = {folder}/mon
mon_data_avail_crit = 0
paxos_propose_interval = 0.05
paxos_min_wait = 0.01
osd_data = {folder}/osd
osd_objectstore = memstore
memstore_device_bytes = 8G
osd_crush_chooseleaf_type = 0
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 4
osd_pool_default_pg_autoscale_mode = off
mon_warn_on_pool_no_redundancy = false
rgw_data = {folder}
rgw_frontends = beast endpoint=127.0.0.1:{port}
"""

_DEADLINE_SECONDS: Final = 60
"""How long a quiet machine may need for one step."""


class Radosgw:
    """One radosgw on 127.0.0.1; it keeps its port and its objects over stop and start, and has no queues.

    Attributes:
        port: where it listens.
        endpoint: its address.
        credentials: variables with the keys of its one user.

    Args:
        folder: where its files and its logs go.
    """

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.credentials: Mapping[str, str] = {}
        self._programs = {name: program(name) for name in PROGRAMS}
        self._folder = folder
        self._monitor = ChildProcess(folder / "mon.log")
        self._osd = ChildProcess(folder / "osd.log")
        self._gateway = ChildProcess(folder / "radosgw.log")

    def __enter__(self) -> Self:
        try:
            self._begin()
            self.start()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def start(self) -> None:
        """Start the gateway, and wait until it accepts connections."""
        self._run(self._gateway, "radosgw", "-f", "-n", "client.rgw")
        self._until_accepted(self._gateway, self.port, "radosgw")

    def stop(self) -> None:
        """Kill the gateway; does nothing when it does not run. Its objects stay, since they are at the OSD."""
        self._gateway.end(signal.SIGKILL)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Let it take connections and answer nothing until the end of the block."""
        process = self._gateway.process
        assert process is not None, "start it first"
        process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            process.send_signal(signal.SIGCONT)

    def _begin(self) -> None:
        """Make and start monitor and OSD, and make the user."""
        monitor_port = free_port()
        cluster, osd = str(uuid.uuid4()), str(uuid.uuid4())
        monitor = f"[v2:127.0.0.1:{monitor_port}/0]"
        (self._folder / "osd").mkdir()
        (self._folder / "ceph.conf").write_text(
            _CONFIGURATION.format(
                cluster=cluster, folder=self._folder, port=self.port, monitor=monitor
            )
        )
        keyring = str(self._folder / "keyring")
        for name, caps in _CAPS.items():
            create = () if Path(keyring).exists() else ("--create-keyring",)
            pairs = zip(caps[::2], caps[1::2], strict=True)
            granted = (word for pair in pairs for word in ("--cap", *pair))
            self._call("ceph-authtool", keyring, *create, "--gen-key", "-n", name, *granted)
        # The monitor takes all keys over at once, so nobody has to ask it for one afterwards.
        monitors = str(self._folder / "monmap")
        self._call("monmaptool", "--create", "--addv", "a", monitor, "--fsid", cluster, monitors)
        self._call("ceph-mon", "--mkfs", "-i", "a", "--monmap", monitors, "--keyring", keyring)
        self._run(self._monitor, "ceph-mon", "-f", "-i", "a")
        self._until_accepted(self._monitor, monitor_port, "ceph-mon")
        self._call("ceph", "osd", "new", osd, "0")
        self._call("ceph-osd", "--mkfs", "-i", "0", "--osd-uuid", osd)
        self._run(self._osd, "ceph-osd", "-f", "-i", "0")
        # It waits for the OSD, and makes the pools.
        made = self._call(
            "radosgw-admin", "user", "create", "--uid", "ada", "--display-name", "Ada"
        )
        (keys,) = json.loads(made)["keys"]
        self.credentials = {
            "AWS_ACCESS_KEY_ID": keys["access_key"],
            "AWS_SECRET_ACCESS_KEY": keys["secret_key"],
        }

    def _end(self) -> None:
        # In good order the OSD would first write to the disk what it has in memory.
        for child in (self._gateway, self._osd, self._monitor):
            child.end(signal.SIGKILL)

    def _run(self, child: ChildProcess, name: str, *words: str) -> None:
        child.run(
            [self._programs[name], *self._configured(), *words], self._environ(), self._folder
        )

    def _until_accepted(self, child: ChildProcess, port: int, what: str) -> None:
        process = child.process
        assert process is not None
        until_sync(
            lambda: accepts(port) or process.poll() is not None,
            _DEADLINE_SECONDS,
            f"{what} on port {port}",
        )
        assert process.poll() is None, child.log()

    def _call(self, name: str, *words: str) -> str:
        """Run a program to its end, and return what it said."""
        where = () if name == "ceph-authtool" else self._configured()
        done = subprocess.run(
            [self._programs[name], *where, *words],
            env=self._environ(),
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=4 * _DEADLINE_SECONDS,
            check=False,
        )
        assert done.returncode == 0, f"{name} {' '.join(words)}: {done.stdout}{done.stderr}"
        return done.stdout

    def _configured(self) -> tuple[str, ...]:
        return ("-c", str(self._folder / "ceph.conf"))

    def _environ(self) -> dict[str, str]:
        # What else is configured for Ceph on this machine is none of its business.
        return {name: value for name, value in os.environ.items() if not name.startswith("CEPH_")}
