"""Mistakes with tokens, logins, identities and authorities."""

from tests.integration.sdk.mistakes.mistake import Mistake

_ROWS = (
    ("token create", 2, "--role", "Missing option", "submitter"),
    ("token create --role nod", 2, "--role", "'nod'", "is not one of 'node'"),
    ("token create --role controller", 2, "--role", "'controller'", "is not one of 'node'"),
    ("token create --role node --namespace lab", 2, "--namespace", "lab", "leave"),
    ("token create --role node --name Cam", 1, "name", "'Cam'", "lower-case letters"),
    ("token create --role node --ttl 900d", 1, "token", "366 days", "at most"),
    ("token create --role node --ttl soon", 2, "--ttl", "'soon'", "90s"),
    ("token create --role node --uses 0", 2, "--uses", "0", "1<=x<=100000"),
    ("token revoke zebra", 1, "token", "'zebra'", "shoal token list"),
    ("token revok zebra", 2, "command", "'revok'", "did you mean 'revoke'?"),
    ("identities revoke bob", 2, "identity", "'bob'", "ROLE/NAME"),
    ("identities revoke lord/bob", 2, "identity", "'lord/bob'", "ROLE/NAME"),
    ("identities revoke viewer/zebra", 1, "certificate", "viewer/zebra", "shoal identities list"),
    ("nodes revoke zebra", 1, "certificate", "node/zebra", "shoal identities list"),
    ("authority use zz", 1, "fingerprint", "'zz'", "there are"),
    ("authority remove zz", 1, "fingerprint", "'zz'", "there are"),
    ("authority add --file nope.pem", 2, "--file", "'nope.pem'", "does not exist"),
    ("authority add --file good.yaml", 1, "good.yaml", "0 keys", "in PEM"),
    ("login", 2, "token", "--token-file", "SHOAL_TOKEN"),
    ("login --token-file nope", 1, "token", "nope", "No such file"),
    ("login --token-file good.yaml", 1, "token", "characters", "shoal token create"),
    ("login --controller nowhere --token-file good.yaml", 1, "address", "'nowhere'", "HOST:PORT"),
    ("whoami --identity nope", 1, "identity", "nope", "shoal login"),
    ("status --identity nope", 1, "identity", "nope", "leave --identity"),
)

ALL = tuple(Mistake(*row) for row in _ROWS)
"""All of them."""
