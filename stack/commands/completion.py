"""``millrace completion``: what makes a shell complete commands, options and jobs."""

import click
from click.shell_completion import get_completion_class

from stack.commands.exits import USAGE, end


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion for SHELL.

    \b
    bash  eval "$(millrace completion bash)"      in ~/.bashrc
    zsh   eval "$(millrace completion zsh)"       in ~/.zshrc
    fish  millrace completion fish | source       in ~/.config/fish/config.fish
    """
    kind = get_completion_class(shell)
    if kind is None:
        end(USAGE, f"no completion for {shell}")
    script = kind(click.get_current_context().find_root().command, {}, "millrace", "_MILLRACE_COMPLETE")
    click.echo(script.source_template % script.source_vars())
