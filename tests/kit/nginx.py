"""A real nginx before a gateway, with the configuration that is shipped."""

import getpass
import signal
from pathlib import Path
from typing import Self

from tests.kit.child_process import ChildProcess
from tests.kit.ports import accepts, free_port
from tests.kit.programs import program
from tests.kit.site_authority import KeyPair
from tests.kit.tree import ROOT
from tests.kit.until import until_sync

SHIPPED = ROOT / "deploy" / "nginx" / "gateway.conf"


class Nginx:
    """One nginx on all addresses of loopback.

    Args:
        folder: where its files go.
        proof: what it shows browsers.
        behind: `host:port` of the gateway.
    """

    def __init__(self, folder: Path, proof: KeyPair, behind: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self._child = ChildProcess(folder / "nginx.log")
        self._program = program("nginx")
        self._config = folder / "nginx.conf"
        site = SHIPPED.read_text()
        for shipped, here in (
            ("listen 443 ssl http2;", f"listen 0.0.0.0:{self.port} ssl http2;"),
            ("/etc/ssl/shoal/web.pem", str(proof.certificate)),
            ("/etc/ssl/shoal/web.key", str(proof.key)),
            ("http://127.0.0.1:7480", f"http://{behind}"),
        ):
            assert shipped in site
            site = site.replace(shipped, here)
        temporary = "".join(
            f"{kind}_temp_path {folder / kind};\n"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        # Started as root it would change to a user that cannot read the folder.
        user = f"user {getpass.getuser()} root;\n" if getpass.getuser() == "root" else ""
        self._config.write_text(
            f"{user}daemon off;\nworker_processes 1;\npid {folder / 'pid'};\nerror_log stderr warn;\n"
            f"events {{}}\nhttp {{\naccess_log off;\n{temporary}{site}}}\n"
        )

    @property
    def url(self) -> str:
        """Where it serves."""
        return f"https://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        process = self._child.run([self._program, "-e", "stderr", "-c", str(self._config)])
        until_sync(
            lambda: accepts(self.port) or process.poll() is not None,
            60,
            "nginx accepts connections",
        )
        assert process.poll() is None, self._child.log()
        return self

    def __exit__(self, *_: object) -> None:
        self._child.end(signal.SIGTERM)
