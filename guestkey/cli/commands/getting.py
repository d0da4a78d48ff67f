"""`get`: a credential, handed over once, in the form its tools read."""

from __future__ import annotations

import os
import re
import shlex
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from broker.kinds.client import Credential, Format, Loader
from guestkey.cli import authorities, completing, credential_cache, formats, keypairs, own_files, temporary_credential
from guestkey.cli.clients import client_of
from guestkey.cli.command import Cli, verb
from guestkey.cli.commands.nouns import Action, Dataset, Kind, Lifetime, Slice
from guestkey.cli.faults import Code, Fault
from guestkey.cli.output import Column
from guestkey.cli.wanted import Wanted
from guestkey.cli.words import maybe_seconds_of, safe


def _complete_format(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    kind = ctx.params.get("kind")
    fitting = formats.fitting(kind) if isinstance(kind, str) else formats.FORMATS.values()
    return [(one.name, completing.plain(one.about)) for one in fitting if one.name.startswith(incomplete)]


# A file that a command names in the folder written to.
_NAMED = re.compile(r"\{out\}/([\w.-]+)")


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
        str | None,
        typer.Option(help="A new file or folder, of mode 0600; only files written by this command are replaced."),
    ] = None,
    public_key: Annotated[
        Path | None,
        typer.Option(help="A public key, or request for a certificate, of your own, for a kind that needs one."),
    ] = None,
    field: Annotated[str | None, typer.Option(help="Print only this value.")] = None,
) -> None:
    """Get a credential, once; --format writes it for psql, AWS tools, OpenSSH or a shell."""
    if format_ is None and cli.as_json and field is None:
        format_ = formats.JSON.name
    chosen = formats.named(format_, kind) if format_ is not None else None
    if chosen is not None and chosen.repeated:
        cli.unattended()
    brought = keypairs.read(public_key) if public_key is not None else None
    wanted = Wanted(dataset, kind, slice_, action, maybe_seconds_of(lifetime), brought)
    _check(wanted, chosen, out, field)
    if chosen is not None and chosen.repeated and out is None:
        _remembered(cli, wanted, chosen)
        return
    credential = temporary_credential.issue(cli, wanted)
    try:
        _hand_over(cli, credential, chosen, out, field)
    except (Fault, OSError, KeyboardInterrupt):
        # Nobody got it, so nobody shall have it.
        temporary_credential.end(cli, credential.lease_id)
        raise
    if chosen not in (None, formats.ENV, formats.JSON) and credential.values.get("relation"):
        # These say how to log in only; there, other slices' names stand beside it.
        cli.out.remark(f"It can read: {safe(credential.values['relation'])}")
    cli.out.remark(temporary_credential.ending(credential.lease))
    cli.out.remark(f"To end it earlier: guestkey lease revoke {credential.lease_id}")


def _check(wanted: Wanted, chosen: Format | None, out: str | None, field: str | None) -> None:
    """Whatever can be wrong with what is wanted, before anything is issued."""
    if field is not None and (chosen is not None or out is not None):
        raise Fault(Code.USAGE, "--field prints one value unchanged.", next_step="Remove --format and --out.")
    if out is not None and chosen is None:
        raise Fault(Code.USAGE, "--out needs a format.", next_step=_formats_for(wanted))
    _check_key(wanted, chosen, field)
    if chosen is None:
        return
    if chosen.loader is not None:
        if out is not None:
            raise Fault(Code.USAGE, "The agent keeps it in memory: nothing is written.", next_step="Remove --out.")
        chosen.loader.check()
    elif chosen.folder and out is None:
        raise Fault(Code.USAGE, f"The format {chosen.name} has several files.", next_step="Add --out FOLDER.")
    elif out is not None:
        check = own_files.check_folder if _is_folder(chosen, out) else own_files.check_file
        check(Path(out))


def _check_key(wanted: Wanted, chosen: Format | None, field: str | None) -> None:
    """A certificate is of use only to who holds its key: either brought, or written where tools find it."""
    kind = str(wanted.kind)
    if not client_of(kind).makes_key:
        if wanted.public_key is not None:
            raise Fault(Code.USAGE, f"Kind {kind} does not use a public key.", next_step="Remove --public-key.")
        return
    if wanted.public_key is not None and chosen is not None and chosen.own_key:
        raise Fault(
            Code.USAGE,
            f"The format {chosen.name} creates the key itself.",
            next_step="Remove --public-key, or print the certificate for your key: --field certificate",
        )
    if wanted.public_key is None and (field is not None or chosen is None):
        raise Fault(
            Code.USAGE,
            f"A credential of kind {kind} is a certificate for a key, and no key was named.",
            next_step=f"{_formats_for(wanted)} Or use your own key: --public-key FILE",
        )


def _formats_for(wanted: Wanted) -> str:
    return f"Add --format {' or '.join(one.name for one in formats.fitting(str(wanted.kind)))}."


def _is_folder(chosen: Format, out: str) -> bool:
    return chosen.folder or (chosen.may_folder and (out.endswith(("/", os.sep)) or Path(out).is_dir()))


def _hand_over(cli: Cli, credential: Credential, chosen: Format | None, out: str | None, field: str | None) -> None:
    if field is not None:
        if field not in credential.values:
            known = ", ".join(sorted(credential.values))
            raise Fault(Code.USAGE, f"There is no value called {field!r}.", next_step=f"Use one of: {known}.")
        cli.out.value(str(credential.values[field]))
    elif chosen is not None and chosen.loader is not None:
        _load(cli, credential, chosen, chosen.loader)
    elif chosen is not None and chosen is not formats.JSON:
        _write(cli, credential, chosen, out)
    elif out is not None:
        own_files.write_file(Path(out), cli.out.document_text(credential.document) + "\n")
    elif chosen is not None:
        cli.out.document(credential.document)
    else:
        shown = [name for name in credential.values if name != authorities.CARRIED]
        cli.out.facts([Column(name, name) for name in shown], credential.values)


def _write(cli: Cli, credential: Credential, chosen: Format, out: str | None) -> None:
    files = chosen.files(credential, Path(out or "."))
    if out is None:
        cli.out.value(formats.text_of(chosen, files, marked=False).removesuffix("\n"))
        return
    folder = _is_folder(chosen, out)
    if folder:
        own_files.write_folder(Path(out), files)
        cli.out.remark(f"Written to {safe(out)}: {', '.join(sorted(files))}.")
    else:
        own_files.write_file(Path(out), formats.text_of(chosen, files, marked=True))
        cli.out.remark(f"Written to {safe(out)}.")
    # Only where all that the command needs lies there: of certificates, not without their key.
    if chosen.use and all(folder and name in files for name in _NAMED.findall(chosen.use)):
        blanks = {"out": safe(out.rstrip("/")), "dataset": safe(credential.dataset)}
        blanks["address"] = safe(f"{credential.values.get('host')}:{credential.values.get('port')}")
        quoted = {name: shlex.quote(text) for name, text in blanks.items()} | {"dataset": blanks["dataset"]}
        cli.out.remark(f"Use it: {chosen.use.format(**quoted)}")


def _load(cli: Cli, credential: Credential, chosen: Format, loader: Loader) -> None:
    """Give the credential to a program that keeps it in memory."""
    seconds = credential.seconds_left(datetime.now(UTC))
    with own_files.passing() as folder:
        for name, text in chosen.files(credential, folder).items():
            own_files.put_private(folder / name, text)
        remarks, command = loader.load(credential, folder, seconds)
    for line in remarks:
        cli.out.remark(safe(line))
    if cli.as_json:
        cli.out.document({"lease": credential.lease, "command": command})
    else:
        cli.out.value(command)


def _remembered(cli: Cli, wanted: Wanted, chosen: Format) -> None:
    """What AWS's tools ask for at every call near its end: the same again, while it lives."""
    with credential_cache.slot(cli, wanted) as file:
        credential = credential_cache.kept(cli, file, wanted)
        fresh = credential is None
        if credential is None:
            credential = temporary_credential.issue(cli, wanted)
        try:
            _write(cli, credential, chosen, None)
            if fresh:
                credential_cache.keep(file, credential)
        except (Fault, OSError, KeyboardInterrupt):
            if fresh:
                temporary_credential.end(cli, credential.lease_id)
            raise
