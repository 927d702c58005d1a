"""Keepers and stream workers that outlive an agent, and are not what the next one would start.

**Rule.** What runs is never ended for an upgrade or a changed setting. A keeper that keeps no program,
and a stream worker on which no attempt is, end and are started anew (`AttemptsMachine` decides when);
until then people are told what is old, and what to do if they cannot wait.

What a stream worker was started with is one line of words, its `made`: the version first, then its
settings. The keeper remembers it, and an earlier one that does not is outdated itself.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Outdated:
    """What is old; `sentence` says it for people, empty where nothing is."""

    keeper: bool
    stream_worker: bool
    sentence: str

    @classmethod
    def of(cls, version: str, keeper: str, wanted: str, made: str | None) -> "Outdated":
        """Compare what runs with what would be started.

        Args:
            version: of the agent.
            keeper: version of the keeper; empty where it does not say.
            wanted: with which words a stream worker would be started.
            made: with which one was; None where none was found yet.
        """
        old_keeper = keeper != version
        old_worker = made is not None and made != wanted
        said: list[str] = []
        if old_keeper:
            said.append(
                f"its keeper is of version {keeper or 'unknown'} and its agent of {version}"
            )
        if old_worker:
            runs = repr(made) if made else "settings that are not known"
            said.append(f"its stream worker runs with {runs} and not {wanted!r}")
        if not said:
            return cls(keeper=False, stream_worker=False, sentence="")
        what = "no attempt is there" if old_keeper else "nothing streams there"
        sentence = (
            f"{', and '.join(said)}: replaced once {what}; to have it sooner, `shoal drain` the node, "
            "or end it with `shoal agent --down`, which ends its jobs, and start it again"
        )
        return cls(old_keeper, old_worker, sentence)
