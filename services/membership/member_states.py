"""The states of all members as this one believes them: the rules of SWIM and Lifeguard.

Every rule takes one claim (alive, suspect, dead), changes the table first and then appends the
effects. Sources: SWIM section 4.2 (incarnations, precedence), Lifeguard section IV (suspicion,
refutation), and memberlist's observed behaviour as noted in `docs/membership.md`.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from services.membership import effects
from services.membership.awareness import Awareness
from services.membership.broadcast import BroadcastQueue
from services.membership.departed_members import DepartedMembers
from services.membership.member import NO_VERSIONS, ChangeKind, Member, MemberChange
from services.membership.member_table import EMPTY_BASE, MemberTable, TableBase
from services.membership.message import (
    Address,
    Alive,
    Dead,
    PushNodeState,
    Rumour,
    Suspect,
    SwimState,
)
from services.membership.profile import Profile
from services.membership.refusal import DropReason
from services.membership.suspect_rate_limit import SuspectRateLimit
from services.membership.suspicion import Suspicion

_INCARNATION_MAX: Final = 0xFFFFFFFF
_TOLD_MAX: Final = 256
VOUCH_SEQUENCE: Final = 0
"""Sequence number of the last question to a suspect; probes start at 1."""


class MemberStates:
    """Records, running suspicions and queued rumours of one member.

    Args:
        profile: Identity and limits.
        now: When the machine starts, in seconds.
        base: Records to start from.
    """

    def __init__(self, profile: Profile, now: float, base: TableBase = EMPTY_BASE) -> None:
        self._profile = profile
        self._name = profile.name
        self._codec = profile.codec
        self.table = MemberTable(base)
        self.queue: BroadcastQueue[Rumour] = BroadcastQueue()
        self.awareness = Awareness(profile.preset.awareness_max)
        self.departed = DepartedMembers(profile.departed_max, profile.departed_seconds)
        self.newcomers: list[str] = []
        self.leaving = False
        self.revision = 0
        self._suspicions: dict[str, Suspicion] = {}
        self._expiries: list[tuple[float, int, str, Suspicion]] = []
        self._order = 0
        self._accusers = SuspectRateLimit(
            profile.accuser_burst, profile.preset.probe_interval_seconds
        )
        self._claims: dict[str, Alive] = {}
        self._told: dict[str, float] = {}
        self._self_refuted = float("-inf")
        self.table.put(
            Member(
                profile.name,
                profile.address.host,
                profile.address.port,
                profile.meta,
                profile.incarnation,
                SwimState.ALIVE,
                now,
                profile.versions,
            )
        )
        if base is EMPTY_BASE:
            self.announce()

    @property
    def me(self) -> Member:
        """This member's own record."""
        member = self.table.get(self._name)
        if member is None:
            raise LookupError(f"own record {self._name!r} is missing from the table")
        return member

    @property
    def suspected(self) -> int:
        """Count the suspicions that run."""
        return len(self._suspicions)

    # ---- claims ---------------------------------------------------------------------------------

    def alive(self, claim: Alive, now: float, out: list[effects.Effect]) -> None:
        """Take a claim that a member is alive."""
        versions = claim.versions
        if versions is not None and (
            versions.protocol_max == 0 or versions.protocol_min > versions.protocol_max
        ):
            out.append(
                effects.Dropped(DropReason.INCOMPATIBLE, f"{claim.node} announces {versions}")
            )
            return
        name = claim.node
        if name == self._name:
            self._alive_self(claim, now, out)
            return
        old = self.table.get(name)
        moved = old is not None and (old.address != claim.host or old.port != claim.port)
        if old is not None:
            if moved and not self._may_move(old, claim, now):
                self._conflict(old, claim, out)
                return
            if claim.incarnation <= old.incarnation and not (moved and not old.reachable):
                if not old.reachable:
                    self._tell(old, claim, now, out)
                return
        if not claim.host or not claim.port:
            out.append(
                effects.Dropped(
                    DropReason.MALFORMED, f"{name} claims to be alive without an address"
                )
            )
            return
        if old is None and len(self.table) >= self._profile.members_max:
            detail = f"{name} would be one more than {self._profile.members_max} members"
            out.append(effects.Dropped(DropReason.OVERLOADED, detail))
            return
        self._suspicions.pop(name, None)
        self._claims.pop(name, None)
        state = SwimState.ALIVE
        since = old.state_since if old is not None and old.state is state else now
        member = Member(
            name,
            claim.host,
            claim.port,
            claim.meta,
            # Moving to another address never lowers what is remembered of the name.
            claim.incarnation if old is None else max(claim.incarnation, old.incarnation),
            state,
            since,
            versions if versions is not None else old.versions if old else NO_VERSIONS,
        )
        self.table.put(member)
        self.departed.remove(name)
        if old is None:
            self.newcomers.append(name)
        self._pass_on(claim)
        if old is None or not old.reachable:
            self._changed(ChangeKind.JOINED, member, out)
        elif old.meta != member.meta:
            self._changed(ChangeKind.UPDATED, member, out)
        elif old.state is SwimState.SUSPECT:
            self._changed(ChangeKind.RECOVERED, member, out)

    def suspect(
        self, claim: Suspect, now: float, out: list[effects.Effect], source: Address | None = None
    ) -> None:
        """Take a claim that a member does not answer; `source` is the sender, None if it is our own."""
        name = claim.node
        old = self.table.get(name)
        if old is None:
            return
        if name == self._name and source is not None and not self.leaving:
            # The member that suspects us gets the answer from us, not only by rumour.
            if claim.incarnation >= old.incarnation:
                self.refute(claim.incarnation)
            out.append(effects.SendPacket(source, (self._own_claim(),)))
            return
        if claim.incarnation < old.incarnation:
            return
        suspicion = self._suspicions.get(name)
        if suspicion is None and old.state is not SwimState.ALIVE:
            return
        if name == self._name:
            if not self.leaving:
                self.refute(claim.incarnation)
            return
        if suspicion is not None and not suspicion.wants(claim.accuser):
            return  # a repeat, as rumours bring them
        if not self._admit(claim.accuser, now):
            detail = f"{claim.accuser} accuses too many, now {name}"
            out.append(effects.Dropped(DropReason.ACCUSER_LIMIT, detail))
            return
        if suspicion is not None:
            if suspicion.confirm(claim.accuser):
                self._schedule(name, suspicion)
                self._pass_on(claim)
            return
        preset = self._profile.preset
        members = len(self.table)
        least = preset.suspicion_min_seconds(members)
        lifeguard = self._profile.lifeguard
        suspicion = Suspicion(
            claim.accuser,
            claim.incarnation,
            now,
            wanted=preset.confirmations_wanted(members) if lifeguard else 0,
            least_seconds=least,
            most_seconds=preset.suspicion_max_seconds(members),
            members=members,
        )
        member = old.turned(SwimState.SUSPECT, claim.incarnation, now)
        self.table.put(member)
        self._suspicions[name] = suspicion
        self._schedule(name, suspicion)
        self._pass_on(claim)
        self._changed(ChangeKind.SUSPECTED, member, out)

    def dead(self, claim: Dead, now: float, out: list[effects.Effect]) -> None:
        """Take a claim that a member has failed, or its own word that it leaves."""
        name = claim.node
        old = self.table.get(name)
        if old is None or claim.incarnation < old.incarnation:
            return
        if name == self._name and not self.leaving:
            self.refute(claim.incarnation)
            return
        self._suspicions.pop(name, None)
        if not old.reachable:
            return
        left = claim.accuser == name
        state = SwimState.LEFT if left else SwimState.DEAD
        member = old.turned(state, claim.incarnation, now)
        self.table.put(member)
        self._pass_on(claim)
        self._changed(ChangeKind.LEFT if left else ChangeKind.DIED, member, out)
        waiting = self._claims.pop(name, None)
        if waiting is not None:
            self.alive(waiting, now, out)

    def vouch(self, name: str, now: float, out: list[effects.Effect]) -> None:
        """A suspect answered us ourselves: that outweighs hearsay, for us alone."""
        if self._suspicions.pop(name, None) is None:
            return
        old = self.table.get(name)
        if old is not None and old.state is SwimState.SUSPECT:
            member = old.turned(SwimState.ALIVE, old.incarnation, now)
            self.table.put(member)
            self._changed(ChangeKind.RECOVERED, member, out)

    def merge(self, nodes: Sequence[PushNodeState], now: float, out: list[effects.Effect]) -> None:
        """Take a remote's records; what it holds dead is only suspected, so it can refute."""
        for node in nodes:
            state = node.state
            if state is SwimState.ALIVE:
                old = self.table.get(node.name)
                if (
                    old is not None
                    and old.incarnation >= node.incarnation
                    and old.state is SwimState.ALIVE
                    and old.address == node.host
                    and old.port == node.port
                    and node.name != self._name
                ):
                    continue  # nothing new, the common case of an exchange
                claim = Alive(
                    node.incarnation, node.name, node.host, node.port, node.meta, node.versions
                )
                self.alive(claim, now, out)
            elif state is SwimState.LEFT:
                self.dead(Dead(node.incarnation, node.name, node.name), now, out)
            else:
                self.suspect(Suspect(node.incarnation, node.name, self._name), now, out)

    # ---- about oneself --------------------------------------------------------------------------

    def refute(self, accused: int) -> None:
        """Outbid what is said of this member, and count it against its own health."""
        me = self.me
        incarnation = min(max(me.incarnation, accused) + 1, _INCARNATION_MAX)
        self.table.put(me.turned(SwimState.ALIVE, incarnation, me.state_since))
        if self._profile.lifeguard:
            self.awareness.apply(1)
        self.announce()

    def announce(self) -> None:
        """Queue this member's own record."""
        self._pass_on(self._own_claim())

    def set_meta(self, meta: bytes, now: float, out: list[effects.Effect]) -> None:
        """Announce new meta under the next incarnation."""
        me = self.me
        member = replace(
            me,
            meta=meta,
            incarnation=min(me.incarnation + 1, _INCARNATION_MAX),
            state_since=me.state_since if me.state is SwimState.ALIVE else now,
        )
        self.table.put(member)
        self.announce()
        self._changed(ChangeKind.UPDATED, member, out)

    # ---- time -----------------------------------------------------------------------------------

    def deadline(self) -> float:
        """When a suspicion may end, infinity when none runs."""
        return self._expiries[0][0] if self._expiries else float("inf")

    def expire(self, now: float, out: list[effects.Effect]) -> None:
        """End the suspicions that are due."""
        expiries = self._expiries
        while expiries and expiries[0][0] <= now:
            _, _, name, suspicion = heapq.heappop(expiries)
            if self._suspicions.get(name) is not suspicion:
                continue
            if suspicion.deadline() > now:
                if suspicion.due() <= now:
                    suspicion.warned += 1
                    self._warn(name, suspicion, now, out)
                self._schedule(name, suspicion)
                continue
            self.dead(Dead(suspicion.incarnation, name, self._name), now, out)

    def postpone(self, seconds: float) -> None:
        """Shift all suspicions: this process slept and could receive no refutation."""
        for suspicion in self._suspicions.values():
            suspicion.postpone(seconds)

    def reap(self, now: float, out: list[effects.Effect]) -> None:
        """Forget members that have been dead or gone for longer than gossip to the dead lasts."""
        kept = self._profile.preset.gossip_to_the_dead_seconds
        for member in self.table.unreachable():
            if now - member.state_since > kept and member.name != self._name:
                self.forget(member, now, out)
        self.departed.expire(now)

    def forget(
        self, member: Member, now: float, out: list[effects.Effect], *, prune: bool = False
    ) -> None:
        """Move a record from the table to the departed members, or nowhere with `prune`."""
        self.table.drop(member.name)
        self._claims.pop(member.name, None)
        if not prune:
            self.departed.add(member, now)
        self._changed(ChangeKind.REAPED, member, out)

    def declare_left(
        self, name: str, now: float, out: list[effects.Effect], *, prune: bool
    ) -> None:
        """Turn a dead member into one that left, on the word of the layer above."""
        member = self.table.get(name)
        if member is None:
            if name in self.departed:
                for departed in [departed for departed in self.departed if departed.name == name]:
                    self.departed.remove(name)
                    if not prune:
                        gone = departed.turned(SwimState.LEFT, departed.incarnation, now)
                        self.departed.add(gone, now)
            return
        if member.state is SwimState.DEAD:
            member = member.turned(SwimState.LEFT, member.incarnation, now)
            self.table.put(member)
            self._changed(ChangeKind.LEFT, member, out)
        if prune and not member.reachable:
            self.forget(member, now, out, prune=True)

    def _own_claim(self) -> Alive:
        me = self.me
        return Alive(me.incarnation, me.name, me.address, me.port, me.meta, me.versions)

    # ---- inside ---------------------------------------------------------------------------------

    def _alive_self(self, claim: Alive, now: float, out: list[effects.Effect]) -> None:
        me = self.me
        if self.leaving or claim.incarnation < me.incarnation:
            return
        if claim.host != me.address or claim.port != me.port:
            # A former life of this name, or a second owner of it: outbid the first, and do not
            # let two owners outbid each other without end.
            self._conflict(me, claim, out)
            if now - self._self_refuted >= 5 * self._profile.preset.probe_interval_seconds:
                self._self_refuted = now
                self.refute(claim.incarnation)
            return
        same = claim.meta == me.meta and claim.versions in (None, me.versions)
        if claim.incarnation > me.incarnation or not same:
            self.refute(claim.incarnation)

    def _may_move(self, old: Member, claim: Alive, now: float) -> bool:
        """Whether a name may be taken over by another address."""
        if old.state is SwimState.LEFT:
            return True
        long_enough = now - old.state_since >= self._profile.reclaim_seconds
        newer = claim.incarnation >= old.incarnation
        return old.state is SwimState.DEAD and long_enough and newer

    def _conflict(self, old: Member, claim: Alive, out: list[effects.Effect]) -> None:
        """Report a second owner, and keep the claim for when the first turns out to be gone."""
        newer = claim.incarnation > old.incarnation and old.name != self._name
        if newer and len(self._claims) < _TOLD_MAX:
            self._claims[old.name] = claim
        claimed = Address(claim.host, claim.port)
        said = (
            f"two members call themselves {old.name}: {old.endpoint} has the name and keeps it, "
            f"{claimed} claims it; give one of them another name, or end the one that is there by mistake"
        )
        out.append(effects.Dropped(DropReason.CONFLICT, said))
        out.append(effects.NameConflict(old, claimed))

    def _tell(self, old: Member, claim: Alive, now: float, out: list[effects.Effect]) -> None:
        """Send a restarted member what is remembered of it, so that it can outbid that.

        Upstream stays silent here, and a mass restart at low incarnations is ignored for long
        (memberlist's pull request 345).
        """
        recently = now - self._profile.preset.probe_interval_seconds
        if self._told.get(claim.node, float("-inf")) > recently or not claim.port:
            return
        self._told.pop(claim.node, None)
        self._told[claim.node] = now
        if len(self._told) > _TOLD_MAX:
            del self._told[next(iter(self._told))]
        word = Suspect(old.incarnation, old.name, self._name)
        out.append(effects.SendPacket(Address(claim.host, claim.port), (word,)))

    def _admit(self, accuser: str, now: float) -> bool:
        return accuser == self._name or self._accusers.admit(accuser, now)

    def _warn(self, name: str, suspicion: Suspicion, now: float, out: list[effects.Effect]) -> None:
        """Send the suspicion to the accused, so that it can refute; the last time by stream."""
        member = self.table.get(name)
        if member is None or not self._profile.lifeguard:
            return
        if suspicion.last_warning:
            deadline = max(suspicion.deadline(), now)
            out.append(effects.DialPing(member.endpoint, name, VOUCH_SEQUENCE, deadline))
        else:
            word = Suspect(suspicion.incarnation, name, self._name)
            out.append(effects.SendPacket(member.endpoint, (word,)))

    def _schedule(self, name: str, suspicion: Suspicion) -> None:
        self._order += 1
        heapq.heappush(self._expiries, (suspicion.due(), self._order, name, suspicion))

    def _pass_on(self, rumour: Rumour) -> None:
        self.queue.put(rumour.node, rumour, self._codec.size(rumour))

    def _changed(self, kind: ChangeKind, member: Member, out: list[effects.Effect]) -> None:
        self.revision += 1
        out.append(effects.Changed(MemberChange(kind, member, self.revision)))
