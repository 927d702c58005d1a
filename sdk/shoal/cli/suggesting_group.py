"""A group of commands that knows what an unknown command may have meant."""

from collections.abc import Mapping
from types import MappingProxyType

import click

from shoal.suggestion import did_you_mean

_FOREIGN: Mapping[str, str] = MappingProxyType(
    {
        word: command
        for words, command in (
            ("ps list ls jobs pipelines show info inspect describe top watch", "status"),
            ("stop kill delete rm remove abort terminate", "cancel"),
            ("apply create deploy push enqueue", "submit"),
            ("start exec launch execute", "run"),
            ("check lint verify test", "validate"),
            ("init scaffold generate", "new"),
            ("log output tail", "logs"),
            ("download fetch pull", "get"),
            ("results files", "artifacts"),
            ("why", "explain"),
            ("hosts boards machines agents workers", "nodes"),
            ("cordon", "drain"),
            ("draw plot dot", "graph"),
            ("cluster local serve", "up"),
        )
        for word in words.split()
    }
)
"""Commands of other systems, and ours that do the same."""


class SuggestingGroup(click.Group):
    """Refuses an unknown command with the one that may have been meant."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or suggest the one that may have been meant."""
        name = args[0] if args else ""
        known = self.list_commands(ctx)
        if name and not name.startswith("-") and name not in known:
            same = _FOREIGN.get(name, "")
            remedy = f"write: {ctx.command_path} {same}" if same in known else ""
            ctx.fail(f"there is no command {name!r}; {remedy or did_you_mean(name, known, 99)}")
        return super().resolve_command(ctx, args)
