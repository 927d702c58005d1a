"""K16: no secret of an address stands in what somebody may read."""

import json
import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.runtime.log import JsonFormatter, TextFormatter, fields
from shoal import spec
from shoal.checks.problem import Problem
from shoal.cli.document import to_document
from shoal.errors import ShoalError
from shoal.model import Reason, ReasonCode
from shoal.redaction import redacted


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://user:s3cr3t@host/x.whl", "http://user:***@host/x.whl"),
        ("say 'mqtts://u:s3cr3t@h:8883' now", "say 'mqtts://u:***@h:8883' now"),
        ("http://user:s3cr3t@h, http://u:s3cr3t@h.", "http://user:***@h, http://u:***@h."),
        ("git+https://s3cr3t@host/x.git@main", "git+https://***@host/x.git@main"),
        ("https://s3cr3ts3cr3ts3cr3ts3cr3t:x-oauth-basic@host/", "https://***:***@host/"),
        ("http://user:s3c:r3t@host", "http://user:***@host"),
        ("http://user:s3cr@t@host", "http://user:***@host"),
        ("http://:s3cr3t@host", "http://:***@host"),
        ("http://user:s3/cr?3t@host/x", "http://user:***@host/x"),
        ("http://host:8080/a@b", "http://host:8080/a@b"),
        ("http://user:s3cr3t@host:8080/a@b", "http://user:***@host:8080/a@b"),
        ("git+ssh://git@host/x.git", "git+ssh://git@host/x.git"),
        ("ssh://git:s3cr3t@host", "ssh://git:***@host"),
        ("https://host/a@b", "https://host/a@b"),
        ("mail to user@host", "mail to user@host"),
        (
            "/k?X-Amz-Credential=s3cr3t%2F1&X-Amz-Date=7&X-Amz-Signature=s3cr3t&part=2",
            "/k?X-Amz-Credential=***&X-Amz-Date=7&X-Amz-Signature=***&part=2",
        ),
        ("https://b/k?sv=1&sig=s3cr3t%3D", "https://b/k?sv=1&sig=***"),
        ("https://b/k?access_token=s3cr3t#sha256=00", "https://b/k?access_token=***#sha256=00"),
        ("{'u': 'https://b/k?AWSAccessKeyId=s3cr3t'}", "{'u': 'https://b/k?AWSAccessKeyId=***'}"),
        ("> Authorization: Basic s3cr3t\n", "> Authorization: Basic ***\n"),
        ("exit status 1: a == b & c = d", "exit status 1: a == b & c = d"),
        ("", ""),
    ],
)
def test_k16_secrets_of_addresses_are_hidden(text: str, shown: str) -> None:
    assert redacted(text) == shown
    assert redacted(shown) == shown
    assert Reason(ReasonCode.INSTALL, 0, text).message == shown
    assert Problem((), text).message == shown
    assert str(ShoalError("X", text)) == shown


WORDS = st.text(
    st.characters(codec="utf-8", exclude_characters="\"<>\\/?#@&;'", exclude_categories=["Z", "C"]),
    max_size=12,
)
HOSTS = st.sampled_from(["h", "a.example:80", "[::1]", "10.0.0.1"])


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(["http", "https", "mqtt", "git+https", "postgresql", "s3"]), WORDS, HOSTS, WORDS,
    st.sampled_from(["X-Amz-Signature", "X-Amz-Security-Token", "sig", "access_token", "password"]),
)  # fmt: skip
def test_k16_whatever_the_words_around_it(
    scheme: str, before: str, host: str, after: str, name: str
) -> None:
    """300 addresses with secrets, in text with fields, in a log of either form."""
    address = f"{scheme}://{before}:s3cr3t@{host}/x{after}?a=1&{name}=s3cr3t&b=2"
    text = f"{before} {address} {after}"
    said = redacted(text)
    assert "s3cr3t" not in said
    assert host in said
    assert redacted(said) == said
    record = logging.LogRecord("n", logging.INFO, "", 1, "tried %s", (text,), None)
    record.__dict__.update(fields(url=address, urls=[address]))
    for line in (TextFormatter("p").format(record), JsonFormatter("p").format(record)):
        assert "s3cr3t" not in line
    assert json.loads(line)["fields"]["urls"][0].startswith(scheme)


@pytest.mark.parametrize(
    "text",
    ["://" * 50_000, "http://" + "a" * 200_000, "?key" * 50_000, "authorization" * 9_000,
     "http://a:" + "@" * 100_000, "://a:" * 40_000 + "@"],
)  # fmt: skip
def test_a_long_text_costs_no_more_than_its_length(text: str) -> None:
    assert redacted(text)


def test_k16_a_specification_is_shown_without_passwords() -> None:
    url = "http://user:s3cr3t@host/x.whl"
    job = spec.Job("a", ("x", url), environment=spec.Environment(steps=(spec.UrlStep(url),)))
    shown = json.dumps(to_document({"spec": spec.Pipeline("p", (job,))}))
    assert "s3cr3t" not in shown
    assert shown.count("user:***@host") == 2
