"""`guestkey policy check|test|diff` on files alone: no server, no network, nothing is put in force."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from broker.access.rulebook import shipped
from broker.policies import Rules, RulesInvalid, run_table

app = typer.Typer(help="Check and test rules in files.", no_args_is_help=True)
Folder = Annotated[Path, typer.Argument(help="The folder that holds rules.csv, networks.csv and tests.csv.")]


@app.command()
def check(folder: Folder = Path("policies")) -> None:
    """Check every line of the rules; exit code 1 names each wrong one."""
    rules = _load(folder)
    typer.echo(f"{len(rules.rules)} rules are valid.")


@app.command()
def test(folder: Folder = Path("policies")) -> None:
    """Run the table of tests against the rules; exit code 1 names each that failed."""
    rules = _load(folder)
    try:
        outcomes = run_table(rules, _read(folder / "tests.csv"))
    except ValueError as error:
        raise _wrong(f"tests.csv: {error}") from error
    failed = [outcome for outcome in outcomes if not outcome.passed]
    for outcome in failed:
        typer.echo(
            f"tests.csv line {outcome.line} ({outcome.name}): expected {outcome.expected}, got {outcome.actual}",
            err=True,
        )
    typer.echo(f"{len(outcomes) - len(failed)} of {len(outcomes)} policy tests passed.")
    if failed or not outcomes:
        raise typer.Exit(1)


@app.command()
def diff(
    before: Annotated[Path, typer.Argument(help="A folder of rules.")],
    after: Annotated[Path, typer.Argument(help="Another one.")],
) -> None:
    """The rules only one of two folders has; order and comments do not count."""
    removed, added = _load(before).diff(_load(after))
    for rule in removed:
        typer.echo(f"- {rule}")
    for rule in added:
        typer.echo(f"+ {rule}")


def _load(folder: Path) -> Rules:
    grammar = folder / "access.conf"
    text = _read(grammar) if grammar.exists() else shipped()[0]
    try:
        return Rules.parse(text, _read(folder / "rules.csv"), _read(folder / "networks.csv"), 0)
    except RulesInvalid as error:
        for problem in error.errors:
            typer.echo(str(problem), err=True)
        raise _wrong("The rules were refused as a whole.") from error


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _wrong(f"{file} cannot be read.") from error


def _wrong(sentence: str) -> typer.Exit:
    typer.echo(sentence, err=True)
    return typer.Exit(1)
