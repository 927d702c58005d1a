"""Whether an agent may be sent a desired state: is it of this cluster, and which agent has its name?

A snapshot of desired state ends what it does not name, so it must come from a controller that knows
all that the agent knows. A store that is empty, or an older copy, knows less. So each store has a
random cluster id and lists its starts: a *term*, which counts them, a random id, because a restored
copy counts up to the same term again, and how many commits that start made. An agent journals what
it followed last, `(cluster, term, id, commit)`, and says it at Hello. The store knows all that the
agent was told if, and only if, it lists that start with at least so many commits. Any other agent is
quarantined: nothing is wanted of it, nothing is believed of it, and a person decides.

Example: a copy is made at commit 70 of term 3; commit 71 gives a board a job; the disk dies. The
copy starts as term 4, and the board says `(c, 3, x, 71)`: 71 > 70, so it is left alone.

A name is no identity either: two boards from one memory card have one name. A process of an agent
has an `agent_id`, its state folder an `instance_id`. The agent that has the name keeps it while it is heard;
another process gets it at once when the session before is closed and the state folder is the same
(an agent that was restarted), after a short silence when that session only seems open, and after
the lease when the state folder is another one. Fencing tokens are after M. Kleppmann, "How to do
distributed locking" (2016); terms after D. Ongaro and J. Ousterhout, "In Search of an
Understandable Consensus Algorithm" (2014), section 5.1.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from control.core.rows import StartRow
from control.core.state import NodeRecord
from shoal.model import Followed
from shoal.session.messages import Hello

REMEDY = (
    "it keeps all that it has as it is; start this controller with the store that it followed, or "
    "let it give up what it has: shoal nodes adopt"
)


class Starts:
    """The starts that a store lists; the last one is the present one, whose commits go on.

    Args:
        cluster_id: Id of the store.
        starts: By term.
    """

    def __init__(self, cluster_id: str, starts: Sequence[StartRow]) -> None:
        self.cluster_id = cluster_id
        self._present = starts[-1]
        self._by_term = {start.term: start for start in starts}

    def welcome(self) -> Followed:
        """What an agent that opens a session now will follow."""
        return Followed(self.cluster_id, self._present.term, self._present.id)

    def against(self, node: str, followed: Followed | None) -> str:
        """Why an agent that followed this may not be told anything; empty if it may."""
        if followed is None:
            return ""
        if followed.cluster_id != self.cluster_id:
            return (
                f"the agent of node {node} follows cluster {followed.cluster_id}, and this is "
                f"cluster {self.cluster_id}, which knows nothing of it: {REMEDY} {node}"
            )
        known = self._by_term.get(followed.term)
        if known is None or known.id != followed.start_id:
            return (
                f"the agent of node {node} followed start {followed.term} ({followed.start_id}) of "
                f"the controller, which this store does not list: it is an older copy; "
                f"{REMEDY} {node}"
            )
        if known is not self._present and followed.commit > known.commits:
            return (
                f"the agent of node {node} was told of commit {followed.commit} of start "
                f"{followed.term} of the controller, and this store ends that start with "
                f"commit {known.commits}: it is an older copy; {REMEDY} {node}"
            )
        return ""


class NameClaim(enum.Enum):
    """Whether an agent may have the name of a node."""

    FREE = "free"
    TAKEN = "taken"
    UNCLEAR = "unclear"
    """Its session before is still open: the next heartbeat will show whether its agent lives."""


def claim(node: NodeRecord, hello: Hello, *, leased: bool) -> NameClaim:
    """Judge an agent's claim to a node's name; `leased` says whether the node's lease holds."""
    if not node.agent_id or hello.agent_id == node.agent_id:
        return NameClaim.FREE
    if node.session_id:
        return NameClaim.UNCLEAR if same_instance(node, hello) else NameClaim.TAKEN
    return NameClaim.TAKEN if leased and not same_instance(node, hello) else NameClaim.FREE


def same_instance(node: NodeRecord, hello: Hello) -> bool:
    """Whether an agent has the state folder of the one that has the name, as far as they say."""
    return (
        not hello.instance_id
        or not node.instance_id
        or hello.instance_id == node.instance_id
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Rival:
    """An agent whose claim to a node's name was refused; `at` is monotonic, of its last Hello."""

    agent_id: str
    address: str
    copied: bool
    at: float

    def conflict(self, node: NodeRecord) -> str:
        """One sentence for both: which agent has the name, which one wants it, and what to do."""
        remedy = (
            "its state folder is a copy of the other's: give it a --name and a --state of its own, and a join token "
            "of its own where nodes have identities (shoal token create); if the copy is a stranger's, shoal nodes "
            f"revoke {node.name} shuts both out, and yours joins again"
            if self.copied
            else "give one of them another --name"
        )
        return (
            f"two agents call themselves {node.name}: {node.agent_id} at {node.address} has the "
            f"name, and {self.agent_id} at {self.address} is quarantined; {remedy}"
        )
