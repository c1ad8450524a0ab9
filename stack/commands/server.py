"""What the commands share: the server they speak to, and a job as an argument."""

from collections.abc import Callable
from functools import partial, wraps
from itertools import islice
from typing import TYPE_CHECKING, Concatenate, ParamSpec

import click
from click.shell_completion import CompletionItem

from stack.commands.exits import EPILOG, told
from stack.terminal.text import harmless, language

if TYPE_CHECKING:
    from millrace.client import Client

P = ParamSpec("P")
PATIENCE = 3.0  # seconds a command tries to get through to a server
OFFERED = 20  # jobs, where the shell completes one


def _remember(context: click.Context, _: click.Parameter, url: str) -> None:
    context.meta["millrace.url"] = url


def on_server(name: str | None = None) -> Callable[[Callable[Concatenate["Client", P], None]], click.Command]:
    """A command whose first argument is the client of the server the user names."""

    def decorate(function: Callable[Concatenate["Client", P], None]) -> click.Command:
        @wraps(function)
        def run(*given: P.args, **options: P.kwargs) -> None:
            with told():
                from millrace.client import Client

                url = click.get_current_context().meta["millrace.url"]
                with Client(url, language=language(), patience=PATIENCE) as client:
                    function(client, *given, **options)

        url = click.option(
            "--url",
            envvar="MILLRACE_URL",
            show_envvar=True,
            default="http://127.0.0.1:8000",
            show_default=True,
            expose_value=False,
            is_eager=True,
            callback=_remember,
            help="The server's address.",
        )
        return click.command(name, epilog=EPILOG)(url(run))

    return decorate


def _offer(context: click.Context, _: click.Parameter, begun: str) -> list[CompletionItem]:
    """The newest jobs. Whoever presses the tabulator wants no error message."""
    try:
        from millrace.client import Client

        with Client(context.meta.get("millrace.url"), patience=0) as client:
            return [
                CompletionItem(str(job.id), help=f"{job.status} {harmless(job.title)}")
                for job in islice(client.jobs(), OFFERED)
                if str(job.id).startswith(begun)
            ]
    except Exception:
        return []


job_argument = click.argument("job", metavar="JOB", type=click.UUID, shell_complete=_offer)
jobs_argument = partial(click.argument, "jobs", metavar="JOB...", nargs=-1, type=click.UUID, shell_complete=_offer)
json_option = click.option("--json", "as_json", is_flag=True, help="For programs.")
