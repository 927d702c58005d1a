"""What the tests of the agent have at hand."""

from tests.integration.agent.board import board

__all__ = ["board"]
