"""`get`: a credential handed over once, in the form its tools read."""

from __future__ import annotations

import os
import shlex
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from broker.cli import (
    authorities,
    borrowing,
    children,
    completing,
    formats,
    keypairs,
    own_files,
    remembering,
    ssh_files,
)
from broker.cli.borrowing import Handed, Wanted
from broker.cli.command import Cli, verb
from broker.cli.commands.nouns import Action, Dataset, Kind, Lifetime, Slice
from broker.cli.faults import Code, Fault
from broker.cli.formats import Format
from broker.cli.output import Column
from broker.cli.words import safe

_AGENT_SECONDS = 10
_OF_DATABASES = ("pgpass", "pg-service", "my-cnf")


def _complete_format(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    kind = ctx.params.get("kind")
    fitting = [one for one in formats.FORMATS.values() if not isinstance(kind, str) or one.fits(kind)]
    return [(one.name, completing.plain(one.about)) for one in fitting if one.name.startswith(incomplete)]


def mount(app: typer.Typer) -> None:
    """Add this command."""
    verb(app, "get")(get)


def get(
    cli: Cli,
    dataset: Dataset,
    kind: Kind,
    slice_: Slice = None,
    lifetime: Lifetime = None,
    action: Action = "read",
    format_: Annotated[
        str | None,
        typer.Option("--format", help=f"{', '.join(formats.FORMATS)}.", autocompletion=_complete_format),
    ] = None,
    out: Annotated[
        str | None, typer.Option(help="A new file, or folder, of mode 0600; never over one that is not of its making.")
    ] = None,
    public_key: Annotated[
        Path | None, typer.Option(help="A public key, or request for a certificate, of your own: ssh and x509.")
    ] = None,
    field: Annotated[str | None, typer.Option(help="Print this one value only.")] = None,
) -> None:
    """Hand a credential over, once; with --format as psql, AWS's tools, OpenSSH or a shell read it."""
    if format_ is None and cli.as_json and field is None:
        format_ = formats.JSON
    chosen = formats.named(format_, kind) if format_ is not None else None
    if chosen is not None and chosen.name == formats.CREDENTIAL_PROCESS:
        cli.unattended()
    brought = keypairs.read(public_key) if public_key is not None else None
    wanted = Wanted(dataset, slice_, kind, lifetime, action, brought)
    _check(wanted, chosen, out, field)
    if chosen is not None and chosen.name == formats.CREDENTIAL_PROCESS and out is None:
        _remembered(cli, wanted, chosen)
        return
    handed = borrowing.issue(cli, wanted)
    try:
        _hand_over(cli, handed, chosen, out, field)
    except (Fault, OSError, KeyboardInterrupt):
        # Nobody got it, so nobody shall have it.
        borrowing.end(cli, handed.lease_id)
        raise
    if chosen is not None and chosen.name in _OF_DATABASES and handed.values.get("relation"):
        # These say how to log in only; there, other slices' names stand beside it.
        cli.out.remark(f"It reads: {safe(handed.values['relation'])}")
    cli.out.remark(borrowing.ending(handed.lease))
    cli.out.remark(f"End it sooner: guestkey lease revoke {handed.lease_id}")


def _check(wanted: Wanted, chosen: Format | None, out: str | None, field: str | None) -> None:
    """Whatever can be wrong with the wish itself, before anything is issued."""
    if field is not None and (chosen is not None or out is not None):
        raise Fault(Code.USAGE, "--field prints one value as it is.", next_step="Leave --format and --out out.")
    if out is not None and chosen is None:
        raise Fault(Code.USAGE, "--out needs to know what to write.", next_step=_formats_for(wanted))
    _check_key(wanted, chosen, field)
    if chosen is None:
        return
    if chosen.name == formats.AGENT:
        _check_agent(out)
    elif chosen.folder and out is None:
        raise Fault(Code.USAGE, f"The format {chosen.name} is several files.", next_step="Add --out FOLDER.")
    elif out is not None:
        check = own_files.check_folder if _is_folder(chosen, out) else own_files.check_file
        check(Path(out))


def _check_key(wanted: Wanted, chosen: Format | None, field: str | None) -> None:
    """A certificate is of use only to who holds its key: either brought, or written where tools find it."""
    kind = str(wanted.kind)
    if not keypairs.needed(kind):
        if wanted.public_key is not None:
            raise Fault(Code.USAGE, f"Kind {kind} needs no key of yours.", next_step="Leave --public-key out.")
        return
    if wanted.public_key is not None and chosen is not None and chosen.name in (formats.AGENT, "ssh-files"):
        raise Fault(
            Code.USAGE,
            f"The format {chosen.name} makes the key itself.",
            next_step="Leave --public-key out; or print the certificate for yours: --field certificate",
        )
    if wanted.public_key is None and (field is not None or chosen is None):
        raise Fault(
            Code.USAGE,
            f"A credential of kind {kind} is a certificate for a key, and no key was named.",
            next_step=f"{_formats_for(wanted)} Or name your own: --public-key FILE",
        )


def _check_agent(out: str | None) -> None:
    if out is not None:
        raise Fault(Code.USAGE, "The agent keeps it in memory: nothing is written.", next_step="Leave --out out.")
    children.find("ssh-add", "OpenSSH's client")
    if not os.environ.get("SSH_AUTH_SOCK"):
        raise Fault(
            Code.USAGE,
            "No ssh-agent is running here.",
            why="SSH_AUTH_SOCK is not set.",
            next_step='Start one: eval "$(ssh-agent)"; or use --format ssh-files --out FOLDER',
        )


def _formats_for(wanted: Wanted) -> str:
    fitting = [name for name, one in formats.FORMATS.items() if one.fits(str(wanted.kind))]
    return f"Add --format {' or '.join(fitting)}."


def _is_folder(chosen: Format, out: str) -> bool:
    return chosen.folder or (chosen.name == "pem" and (out.endswith(("/", os.sep)) or Path(out).is_dir()))


def _hand_over(cli: Cli, handed: Handed, chosen: Format | None, out: str | None, field: str | None) -> None:
    if field is not None:
        if field not in handed.values:
            known = ", ".join(sorted(handed.values))
            raise Fault(Code.USAGE, f"There is no value called {field!r}.", next_step=f"Use one of: {known}.")
        cli.out.value(str(handed.values[field]))
    elif chosen is not None and chosen.name == formats.AGENT:
        _to_agent(cli, handed)
    elif chosen is not None and chosen.name != formats.JSON:
        _write(cli, handed, chosen, out)
    elif out is not None:
        own_files.write_file(Path(out), cli.out.document_text(handed.document) + "\n")
    elif chosen is not None:
        cli.out.document(handed.document)
    else:
        shown = [name for name in handed.values if name != authorities.CARRIED]
        cli.out.facts([Column(name, name) for name in shown], handed.values)


def _write(cli: Cli, handed: Handed, chosen: Format, out: str | None) -> None:
    if chosen.files is None:
        raise ValueError(f"{chosen.name} is no text")
    files = chosen.files(handed, Path(out or "."))
    if out is None:
        cli.out.value(formats.text_of(chosen, files, marked=False).removesuffix("\n"))
        return
    if _is_folder(chosen, out):
        own_files.write_folder(Path(out), files)
        cli.out.remark(f"Written to {safe(out)}: {', '.join(sorted(files))}.")
    else:
        own_files.write_file(Path(out), formats.text_of(chosen, files, marked=True))
        cli.out.remark(f"Written to {safe(out)}.")
    # Of certificates, only where all that the command needs lies there.
    if chosen.name in _USED and (chosen.name != "pem" or ("key.pem" in files and Path(out).is_dir())):
        blanks = {"out": shlex.quote(safe(out.rstrip("/"))), "dataset": safe(handed.dataset)}
        at = f"{handed.values.get('host')}:{handed.values.get('port')}"
        cli.out.remark(_USED[chosen.name].format(**blanks, at=shlex.quote(safe(at))))


_USED = {
    "pg-service": "Use it: PGSERVICEFILE={out}/pg_service.conf psql service={dataset}",
    "my-cnf": "Use it: mariadb --defaults-file={out}",
    "ssh-files": "Use it: sftp -F {out}/config " + ssh_files.HOST,
    "pem": "Use it: curl --cert {out}/cert.pem --key {out}/key.pem https://{at}/",
}


def _to_agent(cli: Cli, handed: Handed) -> None:
    """Give key and certificate to the agent, which forgets them when the lease ends."""
    host, port, user = ssh_files.address(handed.values)
    seconds = handed.seconds_left(datetime.now(UTC))
    with own_files.passing() as folder:
        files = ssh_files.files(handed.values, folder)
        for name in (ssh_files.KEY, ssh_files.CERTIFICATE):
            own_files.put_private(folder / name, files[name])
        command = ["ssh-add", "-q", "-t", str(max(seconds, 1)), str(folder / ssh_files.KEY)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_AGENT_SECONDS, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise _agent_refused(type(error).__name__) from error
    if done.returncode != 0:
        raise _agent_refused(done.stderr.strip().replace(str(folder), "…"))
    cli.out.remark(f"In the agent for {seconds} s. The host's key, for your known_hosts:")
    cli.out.remark(f"  {safe(files[ssh_files.KNOWN_HOSTS].strip())}")
    command_line = f"sftp -P {port} {user}@{host}"
    if cli.as_json:
        cli.out.document({"lease": handed.lease, "command": command_line})
    else:
        cli.out.value(command_line)


def _agent_refused(why: str) -> Fault:
    return Fault(
        Code.FAULT, "The ssh-agent did not take the key.", why=safe(why), next_step="Does it answer? Try: ssh-add -l"
    )


def _remembered(cli: Cli, wanted: Wanted, chosen: Format) -> None:
    """What AWS's tools ask for at every call near its end: the same again, while it lives."""
    with remembering.slot(cli, wanted) as file:
        handed = remembering.kept(cli, file, wanted)
        fresh = handed is None
        if handed is None:
            handed = borrowing.issue(cli, wanted)
        try:
            _write(cli, handed, chosen, None)
            if fresh:
                remembering.keep(file, handed)
        except (Fault, OSError, KeyboardInterrupt):
            if fresh:
                borrowing.end(cli, handed.lease_id)
            raise
