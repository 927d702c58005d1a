"""Secrets of jobs in the control machine: what is refused, what waits, what is kept and told."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from control.core import events
from control.core.answers import Refusal, RefusalCode
from control.core.call_note import CallNote
from control.core.effects import Taken
from control.core.job_secrets import SECRETS_MAX
from control.core.machine_config import MachineConfig
from control.core.rows import SEAL_BYTES, SecretRow
from shoal.model import JobState
from shoal.names import JobRef
from shoal.secret import NAMESPACE_SECRETS_MAX, SecretForm, SecretUse
from shoal.spec import Job, Pipeline
from tests.unit.control.desk import Desk
from tests.unit.control.world import BEGAN, hello

KEY = "0011223344556677"
SEALED = b"sealed value, which only a key opens"
HAVING = MachineConfig(secret_keys=lambda: frozenset({KEY}))
SPEC = Pipeline("p", (Job("a", ("x",), secrets=(SecretUse("TOKEN", "lab-token"),)),))


def row(name: str = "lab-token", version: int = 1, namespace: str = "default") -> SecretRow:
    return SecretRow(namespace, name, version, KEY, SEALED, True, BEGAN, BEGAN, "operator/local")


def set_secret(desk: Desk, secret: SecretRow, note: CallNote | None = None) -> object:
    return desk.post(lambda call: events.SetSecret(call, secret, note=note))


def remove(desk: Desk, name: str = "lab-token") -> object:
    return desk.post(lambda call: events.RemoveSecret(call, "default", name))


def test_a_job_whose_secret_is_not_set_is_refused_with_the_remedy() -> None:
    desk = Desk(HAVING)
    answer = desk.try_submit(SPEC)
    assert isinstance(answer, Refusal)
    assert answer.code is RefusalCode.FAILED_PRECONDITION
    assert answer.reason == "MISSING_SECRET"
    assert "jobs.a.secrets: secret lab-token is not set in namespace default" in answer.message
    assert "shoal secret set lab-token" in answer.metadata["jobs.a.secrets"]
    set_secret(desk, row(namespace="other"))
    assert isinstance(desk.try_submit(SPEC), Refusal), "a secret is its namespace's"
    assert set_secret(desk, row()) is None
    assert isinstance(desk.try_submit(SPEC), Taken)


def test_a_job_waits_for_a_secret_that_was_removed_and_begins_once_it_is_set() -> None:
    desk = Desk(HAVING)
    set_secret(desk, row())
    ref = desk.submit(SPEC)
    assert remove(desk) is None
    desk.dial_all("n1")
    job = desk.job(ref, "a")
    assert job.state is JobState.QUEUED
    assert job.waiting_for.startswith("secret lab-token is not set in namespace default")
    (verdict,) = desk.machine.explain(JobRef("default", ref.pipeline, "a"))
    assert not verdict.feasible
    assert "shoal secret set lab-token" in verdict.sentence
    set_secret(desk, row())
    assert desk.job(ref, "a").state is JobState.ASSIGNED
    assert remove(desk) is None
    assert desk.job(ref, "a").state is JobState.ASSIGNED, "what has begun keeps what it got"


def test_a_node_whose_agent_is_too_old_gets_no_job_with_a_secret() -> None:
    desk = Desk(HAVING)
    set_secret(desk, row())
    ref = desk.submit(SPEC)
    desk.dial(replace(hello("old"), features=frozenset()))
    assert desk.job(ref, "a").state is JobState.QUEUED
    assert "cannot do secrets" in desk.job(ref, "a").waiting_for


def test_without_tls_no_secret_is_given() -> None:
    set_before = Desk(HAVING)
    set_secret(set_before, row())
    ref = set_before.submit(SPEC)
    set_before.config = replace(HAVING, secrets_refused="secrets travel over TLS alone")
    set_before.start()
    set_before.dial_all("n1")
    assert set_before.job(ref, "a").state is JobState.QUEUED
    assert set_before.job(ref, "a").waiting_for == "secrets travel over TLS alone"
    answer = set_before.try_submit(SPEC)
    assert isinstance(answer, Refusal)
    assert answer.reason == "INSECURE"


def test_secrets_outlast_a_restart_and_need_their_key() -> None:
    desk = Desk(HAVING)
    set_secret(desk, row())
    ref = desk.submit(SPEC)
    assert desk.start().secrets.get("default", "lab-token") == row()
    desk.config = MachineConfig()
    machine = desk.start()
    assert not machine.secrets.readable(row())
    desk.dial_all("n1")
    assert f"sealed under key {KEY}" in desk.job(ref, "a").waiting_for
    assert "shoal secret set lab-token" in desk.job(ref, "a").waiting_for
    set_secret(desk, row(version=2))
    assert desk.job(ref, "a").state is JobState.ASSIGNED


def test_of_two_that_set_a_secret_at_once_one_is_told() -> None:
    desk = Desk(HAVING)
    assert set_secret(desk, row()) is None
    second = set_secret(desk, row())
    assert isinstance(second, Refusal)
    assert (second.code, second.reason) == (RefusalCode.ABORTED, "SET_TWICE")
    assert set_secret(desk, row(version=2)) is None
    kept = desk.machine.secrets.get("default", "lab-token")
    assert kept is not None
    assert kept.version == 2


def test_a_secret_that_is_not_there_cannot_be_removed() -> None:
    desk = Desk(HAVING)
    answer = remove(desk, "other")
    assert isinstance(answer, Refusal)
    assert answer.code is RefusalCode.NOT_FOUND
    set_secret(desk, row())
    remove(desk)
    assert desk.start().secrets.all() == []


def test_a_variable_takes_text_and_a_file_takes_anything() -> None:
    desk = Desk(HAVING)
    set_secret(desk, replace(row(), text=False))
    answer = desk.try_submit(SPEC)
    assert isinstance(answer, Refusal)
    assert "{name: lab-token, as: file}" in answer.message
    use = SecretUse("TOKEN", "lab-token", SecretForm.FILE)
    desk.submit(Pipeline("p", (Job("a", ("x",), secrets=(use,)),)))


def test_all_secrets_of_a_job_fit_into_a_message() -> None:
    desk = Desk(HAVING)
    names = [f"s{n}" for n in range(5)]
    for name in names:
        set_secret(desk, replace(row(name), sealed=bytes(16_384 + SEAL_BYTES)))

    def spec(count: int) -> Pipeline:
        uses = tuple(SecretUse(name.upper(), name) for name in names[:count])
        return Pipeline("p", (Job("a", ("x",), secrets=uses),))

    desk.submit(spec(4))
    answer = desk.try_submit(spec(5))
    assert isinstance(answer, Refusal)
    assert "longer than 65536 bytes together" in answer.message


def test_a_reseal_leaves_alone_what_was_set_or_removed_meanwhile() -> None:
    desk = Desk(HAVING)
    for name in ("kept", "newer", "gone"):
        set_secret(desk, row(name))
    resealed = tuple(
        replace(row(name), key_id="new", sealed=b"resealed") for name in ("kept", "newer", "gone")
    )
    set_secret(desk, row("newer", 2))
    remove(desk, "gone")
    desk.post(lambda call: events.ResealSecrets(call, resealed))
    found = {one.name: (one.version, one.key_id) for one in desk.start().secrets.all()}
    assert found == {"kept": (1, "new"), "newer": (2, KEY)}


def test_a_scale_needs_the_secret_too() -> None:
    desk = Desk(HAVING)
    set_secret(desk, row())
    ref = desk.submit(SPEC)
    desk.dial_all("n1")
    remove(desk)
    answer = desk.post(lambda call: events.Scale(call, ref, "a", 2))
    assert isinstance(answer, Refusal)


@pytest.mark.parametrize("most", [NAMESPACE_SECRETS_MAX, SECRETS_MAX])
def test_there_are_only_so_many(most: int) -> None:
    desk = Desk(HAVING)
    spread = SECRETS_MAX // NAMESPACE_SECRETS_MAX if most == SECRETS_MAX else 1
    rows = [row(f"s{n}", namespace=f"n{n % spread}") for n in range(most)]
    desk.machine.secrets._rows.update({one.key: one for one in rows})
    answer = set_secret(desk, row("more", namespace="n0" if spread == 1 else "fresh"))
    assert isinstance(answer, Refusal)
    assert answer.reason == "TOO_MANY"
    assert set_secret(desk, row("s0", 2, "n0")) is None, "a known one may still be replaced"


def test_what_is_done_to_a_secret_is_told_without_the_value() -> None:
    desk = Desk(HAVING)
    note = CallNote("submitter/lab/ann", "", "SecretsService.SetSecret", "10.0.0.7")
    set_secret(desk, row(), note)
    (told,) = [json.loads(one.data) for one in desk.outbox() if one.type == "shoal.caller.called"]
    assert told["method"] == "SecretsService.SetSecret"
    assert (told["namespace"], told["name"]) == ("default", "secrets/lab-token")
    assert SEALED.decode() not in repr(row())
