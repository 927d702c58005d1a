"""`shoal completion`: what lets a shell complete commands, options, names and files."""

import click
from click.shell_completion import get_completion_class

_INSTALLED = {
    "bash": "echo 'eval \"$(shoal completion bash)\"' >> ~/.bashrc",
    "zsh": "echo 'eval \"$(shoal completion zsh)\"' >> ~/.zshrc",
    "fish": "shoal completion fish > ~/.config/fish/completions/shoal.fish",
}


@click.command()
@click.argument("shell", type=click.Choice([*_INSTALLED]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    r"""Print what lets a shell complete the commands and options of `shoal`, and names.

    Pipelines, jobs, ports and nodes are those of the controller that a command would talk to; it has a
    second to answer, and nothing is completed if it does not.

    \b
        eval "$(shoal completion bash)"     in this shell
        echo 'eval "$(shoal completion bash)"' >> ~/.bashrc
        echo 'eval "$(shoal completion zsh)"' >> ~/.zshrc
        shoal completion fish > ~/.config/fish/completions/shoal.fish
    """
    found = get_completion_class(shell)
    if found is None:
        raise click.ClickException(f"this version of click completes nothing for {shell}")
    click.echo(found(context.find_root().command, {}, "shoal", "_SHOAL_COMPLETE").source())
    click.echo(f"# to have it in every {shell}: {_INSTALLED[shell]}")
