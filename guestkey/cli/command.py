"""What every command shares: the options `--json`, `--plain` and `--url`, the API, the errors and exit codes."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import cached_property
from typing import Annotated, Any

import typer

from guestkey.cli import config, keyrings, stepup, tokens
from guestkey.cli.api import Api
from guestkey.cli.faults import Code, Fault, of_any
from guestkey.cli.output import Output
from guestkey.cli.problems import next_command

_OPTIONS: dict[str, tuple[Any, Any]] = {
    "as_json": (
        Annotated[bool, typer.Option("--json", help="One versioned JSON document; never asks anything.")],
        False,
    ),
    "plain": (Annotated[bool, typer.Option("--plain", help="No colour, no asking, no line written over.")], False),
    "url": (Annotated[str | None, typer.Option("--url", help="The installation's address [GUESTKEY_URL].")], None),
}


class Cli:
    """One run of one command."""

    def __init__(self, command: str, *, as_json: bool = False, plain: bool = False, url: str | None = None) -> None:
        self.as_json = as_json
        self.plain = plain
        self._wanted_url = url
        self._open = ExitStack()
        self.out = Output(command, as_json=as_json, plain=plain)
        if plain:
            os.environ["NO_COLOR"] = "1"

    @property
    def wanted_url(self) -> str | None:
        """The address given with `--url`, if it was."""
        return self._wanted_url

    @cached_property
    def url(self) -> str:
        """The installation's address."""
        return config.installation_url(self._wanted_url)

    @cached_property
    def api(self) -> Api:
        """The API as the person who signed in here.

        Raises:
            Fault: nobody did.
        """
        token = tokens.load(self.url)
        if token is None:
            raise Fault(Code.SIGN_IN, f"You are not signed in to {self.url}.", next_step="guestkey login")
        if keyrings.was_silent():
            self.out.remark(f"{keyrings.SILENT.capitalize()}; to go without it: export {keyrings.VARIABLE}=file")
        api = self.api_as(token)
        if self.can_ask:
            api.confirm = lambda fault: stepup.ask(self.api_as(token), self.out, fault)
        return api

    def api_as(self, token: str | None, url: str | None = None) -> Api:
        """The API with this token or none; closed when the command ends."""
        api = Api(url or self.url, token)
        self._open.callback(api.close)
        return api

    def unattended(self) -> None:
        """A program runs this: nobody is asked, and an error is one line. To be said before anything is sent."""
        self.plain = self.out.terse = True

    def close(self) -> None:
        """Give every connection back."""
        self._open.close()

    @property
    def can_ask(self) -> bool:
        """Whether a person sits at this terminal and may be asked."""
        return not (self.as_json or self.plain) and sys.stdin.isatty() and sys.stderr.isatty()


Body = Callable[..., int | None]
# The groups of commands there are, by noun.
Groups = dict[str, typer.Typer]


def verb(
    group: typer.Typer, name: str, *, of: str = "", own_code: Code | None = None, **settings: Any
) -> Callable[[Body], Body]:
    """Register a function as a command. It gets a `Cli` first, then its own arguments; it may return an exit code.

    Args:
        of: the noun, for the name in JSON documents.
        own_code: the exit code of every fault of ours, where the command passes a child's exit code on.
    """
    full_name = f"{of} {name}".strip()

    def register(body: Body) -> Body:
        def run(**given: Any) -> None:
            options = {key: given.pop(key) for key in _OPTIONS}
            cli = Cli(full_name, **options)
            try:
                code = _attempt(cli, body, given, full_name, own_code)
            finally:
                cli.close()
            raise typer.Exit(int(code))

        describe(run, body, _OPTIONS)
        group.command(name, **settings)(run)
        return body

    return register


def _attempt(cli: Cli, body: Body, given: dict[str, Any], full_name: str, own_code: Code | None) -> int:
    """Run a command; returns its exit code, whatever happens in it."""
    try:
        return body(cli, **given) or Code.DONE
    except BrokenPipeError:
        # Whoever read our output has gone; nobody is left to be told.
        raise
    except KeyboardInterrupt as stopped:
        # Whoever leaves is told what goes on without them, if something does.
        if cli.as_json:
            cli.out.fault(Fault(Code.INTERRUPTED, "Interrupted.", next_step=str(stopped)))
        cli.out.remark(f"Interrupted. {stopped}".rstrip())
        return Code.INTERRUPTED
    except Exception as error:  # noqa: BLE001  nobody shall read a traceback for an error message
        fault = of_any(error)
        fault.command = fault.command or next_command(fault.problem, full_name, given)
        cli.out.fault(fault, about=str(given.get("dataset") or ""), typed=_typed(body))
        return own_code or fault.code


def _typed(body: Body) -> dict[str, str]:
    """How each parameter of a command is typed, by the name that the API knows it by."""
    found = {}
    for name, parameter in inspect.signature(body, eval_str=True).parameters.items():
        for info in getattr(parameter.annotation, "__metadata__", ()):
            option = isinstance(info, typer.models.OptionInfo)
            plain = name.strip("_")
            # Inside Annotated, Typer keeps the first name where a default would stand.
            names = [text for text in (info.default, *(info.param_decls or ())) if isinstance(text, str)]
            shown = next((text for text in names if text.startswith("--")), f"--{plain}")
            found[plain] = shown.replace("_", "-") if option else (info.metavar or plain.upper())
    return found


def describe(run: Callable[..., None], body: Callable[..., Any], shared: Mapping[str, tuple[Any, Any]]) -> None:
    """Give the registered function the signature Typer reads: the body's own parameters but the first, and shared ones.

    Args:
        shared: annotation and default by name.
    """
    own = list(inspect.signature(body, eval_str=True).parameters.values())[1:]
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        for name, (annotation, default) in shared.items()
    ]
    parameters = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own] + added
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    run.__doc__ = body.__doc__
    run.__name__ = body.__name__
