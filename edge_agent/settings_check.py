"""Whether what an operator says of an agent is so, before the agent is started with it."""

import os
import socket
from collections.abc import Iterator
from typing import Final

from edge_agent.config import AgentConfig
from edge_agent.joining import TOKEN_VARIABLE
from edge_agent.node_identity import known_identity
from services.runtime.address import host_port
from services.runtime.process import StartRefusedError
from services.runtime.secret_option import SecretFileError, first_line
from shoal.join_token import JoinTokenError, parse_token

_ANSWER_SECONDS: Final = 3.0


def wrong_settings(config: AgentConfig) -> Iterator[str]:
    """Return what is wrong, each a sentence with its remedy; waits for addresses that do not answer."""
    if not config.controllers and not config.seeds:
        yield (
            "there is neither --controller nor --join, so the agent finds no controller: "
            "name one with --controller HOST:PORT"
        )
    for address in config.controllers:
        if why := _silent(address):
            yield (
                f"nothing answers at {address} ({why}): start the controller, open its port, or name "
                "another address with --controller"
            )
    if config.insecure:
        return
    if config.token_file is not None:
        try:
            parse_token(first_line(config.token_file))
        except (SecretFileError, JoinTokenError) as error:
            yield f"--token-file {config.token_file}: {error}"
        return
    try:
        joined = known_identity(config).current() is not None
    except (OSError, StartRefusedError) as error:
        yield str(error)
        return
    if not joined and not os.environ.get(TOKEN_VARIABLE):
        yield (
            "this node has not joined a cluster yet and has no token: make one at the controller with "
            "`shoal token create --role node`, and name its file with --token-file"
        )


def _silent(address: str) -> str:
    """Why nothing answers at an address; empty if something does."""
    try:
        socket.create_connection(host_port(address), _ANSWER_SECONDS).close()
    except OSError as error:
        return error.strerror or str(error)
    return ""
