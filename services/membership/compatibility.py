"""Whether two sets of members speak the same protocol versions.

Only a push/pull exchange checks this; plain gossip does not, as upstream.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from services.membership.message import PushNodeState, SwimState, Versions


def incompatibility(remote: Sequence[PushNodeState], local: Iterable[Versions]) -> str | None:
    """Say in one sentence why the two cannot be merged, None if they can.

    The alive members of both sides span the windows `[max of minima, min of maxima]`; the current
    versions of all members, dead remote ones included, must lie within.

    Args:
        remote: The remote's records.
        local: What our own reachable members announce, each once.
    """
    known = set(local)
    alive = known | {
        node.versions
        for node in remote
        if node.versions is not None and node.state is SwimState.ALIVE
    }
    if not alive:
        return None
    low = max(versions.protocol_min for versions in alive)
    high = min(versions.protocol_max for versions in alive)
    delegate_low = max(versions.delegate_min for versions in alive)
    delegate_high = min(versions.delegate_max for versions in alive)
    announced = alive | {node.versions for node in remote if node.versions is not None}
    for versions in announced:
        if low <= versions.protocol <= high and (
            delegate_low <= versions.delegate <= delegate_high
        ):
            continue
        names = [node.name for node in remote if node.versions == versions]
        speaker = names[0] if names else "one of our own members"
        return (
            f"{speaker} speaks protocol {versions.protocol} and delegate protocol "
            f"{versions.delegate}; together we allow {low}..{high} and "
            f"{delegate_low}..{delegate_high}"
        )
    return None
