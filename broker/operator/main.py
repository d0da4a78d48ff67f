"""The command line of the server: `serve`, `worker`, `migrate`, `bootstrap`, `recover`, `close` and more."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from broker import migrations
from broker.base.errors import Invalid
from broker.operator import connect_backend, console
from broker.operator.console import AsJson, reporting

app = typer.Typer(
    help="Commands that run on the server.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_show_locals=False,
)
app.add_typer(connect_backend.app, name="connect-backend")


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8200,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Processes on this machine.")] = 1,
    tls_cert: Annotated[
        Path | None, typer.Option(help="Certificate chain in PEM; reloaded when the file changes.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its key in PEM, readable by this user only.")] = None,
) -> None:
    """Run the web application: portal, API and authorization server.

    Without TLS it listens on this machine only, unless GUESTKEY_TRUSTED_PROXIES names the proxy that terminates it.
    """
    with reporting("serve"):
        from broker.operator.serve import CertificateFiles
        from broker.operator.serve import serve as run

        if (tls_cert is None) != (tls_key is None):
            raise Invalid("TLS needs both a certificate and its key.", advice="Give --tls-cert and --tls-key.")
        run(host, port, workers, CertificateFiles(tls_cert, tls_key) if tls_cert and tls_key else None)


@app.command()
def worker(
    metrics_port: Annotated[int | None, typer.Option(min=1, max=65535, help="Serve the worker's metrics here.")] = None,
    metrics_host: Annotated[str, typer.Option(help="Address of the metrics.")] = "127.0.0.1",
) -> None:
    """Run the worker that ends leases, sweeps backends, rechecks access and registers slices."""
    with reporting("worker"):
        from broker.operator.serve import work

        work(metrics_host, metrics_port)


@app.command()
def migrate(as_json: AsJson = False) -> None:
    """Migrate the database to this version; safe to repeat."""
    with reporting("migrate", as_json=as_json) as out:
        migrations.upgrade(str(console.load_owner().owner_database_url.get_secret_value()))
        out.result(["The database is up to date."], {"up_to_date": True})


@app.command()
def bootstrap(
    issuer: Annotated[str, typer.Option(help="The organisation's OIDC issuer.")],
    client_id: Annotated[str, typer.Option(help="This installation's client id there.")],
    client_secret_file: Annotated[Path | None, typer.Option(help="File that holds the client secret.")] = None,
    name: Annotated[str, typer.Option(help="What the source is called on the sign-in page.")] = "Organisation",
    claim: Annotated[list[str] | None, typer.Option(help="A claim every sign-in must carry: NAME=VALUE.")] = None,
    unchecked: Annotated[
        bool, typer.Option("--unchecked", help="Do not test the provider, because it is not running yet.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Set up the installation, once: rules, the organisation's sign-in source, and invitation links for two admins.

    The source is tried first, as `guestkey source check` does: a source through which no one can sign in is refused.
    """
    with reporting("bootstrap", as_json=as_json) as out:
        from broker.operator.bootstrap import bootstrap_and_print, required_claims
        from broker.registry.source_proposals import NewSource

        secret = client_secret_file.read_text().strip() if client_secret_file else None
        first = NewSource(name, issuer, client_id, secret, required_claims(claim or []))
        bootstrap_and_print(out, first, unchecked=unchecked)


@app.command()
def recover(
    source: Annotated[str | None, typer.Option(help="Id of the organisation's source to sign in through.")] = None,
    as_json: AsJson = False,
) -> None:
    """Emergency recovery: make one admin for one hour. Recorded as an event; all admins are notified."""
    with reporting("recover", as_json=as_json) as out:
        from broker.operator.bootstrap import recover_and_print

        recover_and_print(out, source)


@app.command("end-everything")
def end_everything(
    reason: Annotated[str, typer.Option(help="The reason; recorded in the audit log.")] = "ended by the operator",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: AsJson = False,
    installation: Annotated[
        str | None, typer.Option(help="The installation's tag, if the records cannot be read.", metavar="TAG")
    ] = None,
    login: Annotated[
        list[str] | None,
        typer.Option(help="A log-in to use if OpenBao is not responding: NAME=FILE.", metavar="NAME=FILE"),
    ] = None,
    seconds: Annotated[float, typer.Option(min=1, max=3600, help="How long to keep trying.")] = 120.0,
) -> None:
    """Emergency end, whether the broker is up or down: close, end every credential at its backend, report on each.

    Exit code 9 where a backend did not confirm an end, 8 where none answered; run it again, or start the worker,
    which never gives up.
    """
    with reporting("end-everything", as_json=as_json) as out:
        from broker.operator import emergency

        emergency.end_everything(out, reason, yes=yes, installation=installation, logins=login or [], seconds=seconds)


@app.command()
def close(
    reason: Annotated[str, typer.Option(help="Why; kept, and shown to admins.")],
    restored: Annotated[
        bool, typer.Option("--restored", help="Also hold every grant until an admin confirms it.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Close the installation, after a restore for one: nothing is issued until an admin opens it in the portal."""
    with reporting("close", as_json=as_json) as out:
        from broker.operator import emergency

        emergency.close(out, reason, hold_grants=restored)
