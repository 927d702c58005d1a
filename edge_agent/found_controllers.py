"""Which controllers an agent may dial: those that are configured, and those that gossip."""

from collections.abc import AsyncGenerator, Mapping

from services.membership.change_watch import WatchEvictedError
from services.membership.member import Member
from services.membership.shell import GossipShell


async def found_controllers(
    configured: tuple[str, ...], gossip: GossipShell | None
) -> AsyncGenerator[tuple[str, ...], None]:
    """Yield the addresses, best first, at the beginning and whenever they may have changed.

    Args:
        configured: addresses that are known beforehand; they come first.
        gossip: the agent's own member; None for an agent that does not gossip.
    """
    yield configured
    while gossip is not None:
        async with gossip.watch() as changes:
            found = {member.name: _grpc(member) for member in gossip.members()}
            found = {name: address for name, address in found.items() if address}
            yield _each_once(configured, found)
            try:
                async for change in changes:
                    member = change.member
                    address = _grpc(member) if member.reachable else ""
                    if address == found.get(member.name, ""):
                        continue
                    found.pop(member.name, None)
                    if address:
                        found[member.name] = address
                    yield _each_once(configured, found)
            except WatchEvictedError:
                continue  # so many changes at once: read them all again
            return


def _grpc(member: Member) -> str:
    """Where a controller is dialled; empty for a member that is none."""
    try:
        tags = member.tags
    except ValueError:
        return ""  # the meta of another program
    return tags.get("grpc", "") if tags.get("role") == "controller" else ""


def _each_once(configured: tuple[str, ...], found: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*configured, *found.values())))
