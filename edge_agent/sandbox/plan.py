"""What is done to a process between its fork and its program: a value that travels to where that happens.

The agent decides (it knows the node and the job), and the keeper or the guard carries it out in the child
(`edge_agent.sandbox.entry`). A plan that cannot be carried out whole starts nothing: a job never runs with
less than what its plan says.
"""

from dataclasses import dataclass
from typing import Final, NamedTuple

STATUS_WORD = "{status}"
"""Word of `wrap` that stands for the number of the descriptor of bubblewrap's `--json-status-fd`."""
SECCOMP_WORD = "{seccomp}"
"""Word of `wrap` that stands for the number of a descriptor from which bubblewrap reads `seccomp`."""


class FilesRule(NamedTuple):
    """What is allowed below a path by Landlock: reading and executing, and with `write` everything."""

    path: str
    write: bool = False


@dataclass(frozen=True, slots=True)
class SandboxPlan:
    """What is done, in this order; an empty plan does nothing.

    Attributes:
        join: files (`cgroup.procs`, `tasks`) that the process writes its number into, while it is the keeper's user.
        oom_score: what its `oom_score_adj` is raised to, -1000 to 1000.
        limits: resource limits, as (number of the limit, soft and hard value); -1 for none.
        uid: user that it becomes; -1 for the keeper's.
        gid: group that it becomes; -1 for the keeper's.
        groups: its further groups, those of devices that it may use; with `uid` -1 they are left as they are.
        no_new_privileges: no program that it executes gains rights (prctl(2), PR_SET_NO_NEW_PRIVS), it has no
            capabilities, and it ends with its starter.
        files: what Landlock allows; empty for no such rule. Such a process may not mount, so bubblewrap fails.
        own: what it allows beside that, of the attempt alone; only with `files`, which are the same for many.
        scoped: it reaches no abstract socket and signals no process but its own and those that it starts (Landlock).
        seccomp: classic BPF of seccomp(2), base64; empty for none. Where `wrap` holds SECCOMP_WORD, bubblewrap sets it.
        wrap: words before the program, those of bubblewrap, which gets its variables; empty where there is none.
        kill: folders of control groups whose processes are all killed when the leader has ended.
        attempts: folder of the folders of all attempts, whose owners' rights keep them from one another; empty where
            that is not so. A starter may serve such a plan together with others that differ in `own` alone, which lies
            below this folder: its programs are allowed all of it (`edge_agent.keeper.starters`).
    """

    join: tuple[str, ...] = ()
    oom_score: int = 0
    limits: tuple[tuple[int, int], ...] = ()
    uid: int = -1
    gid: int = -1
    groups: tuple[int, ...] = ()
    no_new_privileges: bool = False
    files: tuple[FilesRule, ...] = ()
    own: tuple[FilesRule, ...] = ()
    scoped: bool = False
    seccomp: str = ""
    wrap: tuple[str, ...] = ()
    kill: tuple[str, ...] = ()
    attempts: str = ""


NO_PLAN: Final = SandboxPlan()
"""Nothing is done."""
