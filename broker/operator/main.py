"""The command line of the server: `serve`, `worker`, `migrate`, `bootstrap`, `recover`, `policy`."""

from __future__ import annotations

from typing import Annotated

import typer

from broker import migrations
from broker.operator import configuring, policy
from broker.operator.configuring import plainly

app = typer.Typer(
    help="Commands that run on the server.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
)
app.add_typer(policy.app, name="policy")


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8200,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Processes on this machine.")] = 1,
) -> None:
    """Run the web application: portal, API and authorization server."""
    with plainly():
        from broker.operator.serve import serve as run

        run(host, port, workers)


@app.command()
def worker(
    metrics_port: Annotated[int | None, typer.Option(min=1, max=65535, help="Serve the worker's metrics here.")] = None,
    metrics_host: Annotated[str, typer.Option(help="Address of the metrics.")] = "127.0.0.1",
) -> None:
    """Run the worker that ends leases, sweeps backends, decides again and registers slices."""
    with plainly():
        from broker.operator.worker import work

        work(metrics_host, metrics_port)


@app.command()
def migrate() -> None:
    """Bring the records' tables up to this version; twice is fine."""
    with plainly():
        migrations.upgrade(str(configuring.load_owner().owner_database_url.get_secret_value()))
        typer.echo("The records are up to date.")
