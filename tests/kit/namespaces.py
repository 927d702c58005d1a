"""A network lab: hosts as network namespaces on one bridge, with faults that nftables makes.

Names carry a run id, so that two labs do not meet and leftovers can be told.
"""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Iterable, Sequence

from tests.kit.programs import program, unavailable

NETWORK = "10.77.0"


async def _run(*words: str, stdin: str = "") -> str:
    process = await asyncio.create_subprocess_exec(
        *words,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(30):
        said, _ = await process.communicate(stdin.encode())
    if process.returncode:
        raise RuntimeError(f"{' '.join(words)} failed: {said.decode().strip()}")
    return said.decode()


class Lab:
    """Hosts 1..n at 10.77.0.1..n, each in a namespace of its own.

    Args:
        hosts: How many.
    """

    def __init__(self, hosts: int) -> None:
        self._id = secrets.token_hex(3)
        self._hosts = hosts
        self._ip = program("ip")
        self._nft = program("nft")

    @property
    def _switch(self) -> str:
        return f"sh{self._id}s"

    def namespace(self, host: int) -> str:
        """Name of a host's namespace."""
        return f"sh{self._id}h{host}"

    @staticmethod
    def address(host: int) -> str:
        """A host's address."""
        return f"{NETWORK}.{host}"

    def inside(self, host: int, *words: str) -> list[str]:
        """A command line that runs `words` on a host."""
        return [self._ip, "netns", "exec", self.namespace(host), *words]

    async def build(self) -> None:
        """Make the namespaces."""
        ip, switch = self._ip, self._switch
        await _run(ip, "netns", "add", switch)
        await _run(ip, "-n", switch, "link", "add", "br0", "type", "bridge")
        await _run(ip, "-n", switch, "link", "set", "br0", "up")
        for host in range(1, self._hosts + 1):
            name, port = self.namespace(host), f"v{host}"
            await _run(ip, "netns", "add", name)
            await _run(
                ip, "link", "add", port, "netns", switch, "type", "veth",
                "peer", "name", "eth0", "netns", name,
            )  # fmt: skip
            await _run(ip, "-n", switch, "link", "set", port, "master", "br0", "up")
            await _run(ip, "-n", name, "link", "set", "lo", "up")
            await _run(ip, "-n", name, "addr", "add", f"{self.address(host)}/24", "dev", "eth0")
            await _run(ip, "-n", name, "link", "set", "eth0", "up")

    async def remove(self) -> None:
        """Remove the namespaces."""
        names = [self._switch, *map(self.namespace, range(1, self._hosts + 1))]
        for name in names:
            with contextlib.suppress(RuntimeError):
                await _run(self._ip, "netns", "del", name)

    async def cut(
        self, sources: Iterable[int], targets: Iterable[int], *, udp_only: bool = False
    ) -> None:
        """Let nothing pass from `sources` to `targets`; one direction only."""
        here = ", ".join(f'"v{host}"' for host in sources)
        there = ", ".join(f'"v{host}"' for host in targets)
        what = "ip protocol udp " if udp_only else ""
        await self._rule(f"iifname {{ {here} }} oifname {{ {there} }} {what}counter drop")

    async def lose(self, percent: int) -> None:
        """Lose that share of all packets on the bridge."""
        await self._rule(f"ether type ip numgen random mod 100 < {percent} counter drop")

    async def heal(self) -> None:
        """Undo all cuts and losses."""
        with contextlib.suppress(RuntimeError):
            await _run(
                self._ip, "netns", "exec", self._switch, self._nft,
                "delete", "table", "bridge", "faults",
            )  # fmt: skip

    async def _rule(self, rule: str) -> None:
        script = (
            "table bridge faults {\n"
            "  chain forward { type filter hook forward priority 0; policy accept; }\n"
            "}\n"
            f"add rule bridge faults forward {rule}\n"
        )
        await _run(self._ip, "netns", "exec", self._switch, self._nft, "-f", "-", stdin=script)


@contextlib.asynccontextmanager
async def lab(hosts: int) -> AsyncIterator[Lab]:
    """Build a lab and remove it; skipped, or under CI failed, where one may not."""
    built = Lab(hosts)
    try:
        await built.build()
    except RuntimeError as error:
        await built.remove()
        unavailable(f"no network namespaces here (root is needed): {error}")
    try:
        yield built
    finally:
        await built.remove()


__all__: Sequence[str] = ["NETWORK", "Lab", "lab"]
