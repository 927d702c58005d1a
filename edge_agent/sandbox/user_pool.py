"""Which users of jobs an agent has, and what each of them is at: a pure machine, without files and without a clock.

**Rule.** A user is in one place at a time:

    unclaimed → ahead → (reserved →) taken → ended → being cleaned → unclaimed
                                               ↑            ↓ some of its processes cannot be ended
                                               └────────── stuck

- *ahead*: claimed from the machine for attempts to come, many at a time, so that an attempt makes no file for itself.
- *reserved*: a folder was given to it for an attempt to come. Only what is not needed soon is reserved: at most a
  sixty-fourth of all, and of those ahead so many are left as are claimed at a time.
- *ended*: nothing of its attempt is to run any more, and what the attempt left is not looked for yet.
- *being cleaned*: what it left is looked for. **A look counts only for users that had ended before it began**, so
  `begin` fixes which these are, and no other user is let go by it.

**When.** A look costs the same for one user as for many. So it is due once a second while there are ended users, and at
once when more than a sixty-fourth of all users wait for it: then others would soon find none. Users of which
processes are left are tried again with a look that is for others, and by themselves once a minute.

**How many ahead.** Four times as many as were taken since the last look, at least `_BLOCK`, and at most a sixty-fourth
of all; more are claimed once fewer than half of that are left, as a claim looks at all processes of the machine. Where
no attempt took one for a minute, all but `_BLOCK` go back: other agents of the machine need users, too.

Example: of 65,536 users 200 are taken in a second. Each look is for 200 of them, and every third one
claims 600. Of 4 users none is ahead, and each end is looked after at once.
"""

from collections import deque
from collections.abc import Collection, Iterable, Mapping
from typing import Final

_PART: Final = 64
_BLOCK: Final = 16
_PAUSE_SECONDS: Final = 1.0
_AGAIN_SECONDS: Final = 60.0
_IDLE_SECONDS: Final = 60.0


class UserPool:
    """The users that one agent has.

    Args:
        count: how many users there are for all agents of the machine.
    """

    def __init__(self, count: int) -> None:
        self._most = count // _PART
        self._block = max(1, min(_BLOCK, self._most))
        self._ahead: deque[int] = deque()
        self._reserved: set[int] = set()
        self._taken: dict[str, int] = {}
        self._ended: set[int] = set()
        self._stuck: set[int] = set()
        self._cleaned_at = float("-inf")
        self._taken_at = float("-inf")
        self._lately = 0

    @property
    def taken(self) -> Mapping[str, int]:
        """The users of attempts, by attempt."""
        return self._taken

    @property
    def ended(self) -> Collection[int]:
        """Those that have ended, and are not looked after yet."""
        return self._ended

    def adopt(self, attempt: str, uid: int) -> None:
        """An attempt has a user from before."""
        self._taken[attempt] = uid

    def add(self, uids: Iterable[int]) -> None:
        """Users were claimed, and have no processes."""
        self._ahead.extend(uids)

    def take(self, attempt: str, now: float) -> int | None:
        """Give an attempt a user, the same each time; None where none is ahead.

        Args:
            attempt: its name.
            now: seconds on a clock that only grows, as below.
        """
        known = self._taken.get(attempt)
        if known is not None or not self._ahead:
            return known
        self._lately += 1
        self._taken_at = now
        uid = self._taken[attempt] = self._ahead.popleft()
        return uid

    def reserve(self) -> int | None:
        """Keep a user from those ahead for one attempt to come; None where none can be spared."""
        if len(self._ahead) <= self._block or len(self._reserved) >= self._most:
            return None
        uid = self._ahead.popleft()
        self._reserved.add(uid)
        return uid

    def grant(self, attempt: str, uid: int, now: float) -> None:
        """Give an attempt the user that was reserved for it."""
        self._reserved.remove(uid)
        self._lately += 1
        self._taken_at = now
        self._taken[attempt] = uid

    def restore(self, uid: int) -> None:
        """Let any attempt have a user that was reserved, and that nothing ran as."""
        self._reserved.remove(uid)
        self._ahead.append(uid)

    def end(self, attempt: str) -> None:
        """Nothing of an attempt is to run any more."""
        uid = self._taken.pop(attempt, None)
        if uid is not None:
            self._ended.add(uid)

    def end_user(self, uid: int) -> None:
        """A user that was claimed before this agent began may have left something."""
        self._ended.add(uid)

    def due(self, now: float) -> bool:
        """Whether what users left is to be looked for, users claimed ahead, or some given back."""
        if self.crowded:
            return True
        if now < self._cleaned_at + _PAUSE_SECONDS:
            return False
        again = bool(self._stuck) and now >= self._cleaned_at + _AGAIN_SECONDS
        return bool(self._ended) or again or self.short(now) > 0 or self.surplus(now) > 0

    def begin(self, now: float) -> frozenset[int]:
        """Say for which users a look that begins now is; `stuck` and `failed` say which are not done."""
        self._cleaned_at = now
        self._lately = 0
        begun = frozenset(self._ended | self._stuck)
        self._ended.clear()
        self._stuck.clear()
        return begun

    def stuck(self, uids: Collection[int]) -> None:
        """Processes of these users are left after a look."""
        self._stuck |= set(uids)

    def failed(self, uids: Collection[int]) -> None:
        """The look for these users did not come to its end."""
        self._ended |= set(uids)

    def short(self, now: float) -> int:
        """How many more users are to be claimed ahead at the time `now`."""
        idle = now >= self._taken_at + _IDLE_SECONDS
        wanted = 0 if idle else min(self._most, max(self._block, 4 * self._lately))
        ahead = len(self._ahead)
        return wanted - ahead if 2 * ahead < wanted else 0

    def surplus(self, now: float) -> int:
        """How many users ahead are to be given back."""
        idle = now >= self._taken_at + _IDLE_SECONDS
        return max(0, len(self._ahead) - self._block) if idle else 0

    @property
    def block(self) -> int:
        """How many users are claimed at a time where an attempt waits for one: more, the faster they are taken."""
        return max(self._block, min(self._most, self._lately))

    @property
    def crowded(self) -> bool:
        """Whether so many have ended that others would soon find none."""
        return len(self._ended) > self._most

    def give_back(self, many: int) -> list[int]:
        """Take so many users from those ahead, the ones that came last."""
        return [self._ahead.pop() for _ in range(min(many, len(self._ahead)))]
