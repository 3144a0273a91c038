"""The command line ``coppice``. Starting it loads neither torch nor a server; each command imports what it runs."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import typer

from coppice.commands import (
    audit,
    bulk,
    calibrations,
    check,
    derive,
    doctor,
    engines,
    example,
    expand,
    keys,
    login,
    naming,
    outlook,
    push,
    queue,
    remote,
    removal,
    reproduce,
    run,
    service,
    shares,
    tenants,
    tracking,
    verify,
)
from coppice.console import EXIT_CODES
from coppice.faults import no_traceback
from coppice.installation import DISTRIBUTION, warn_of_namesake

app = typer.Typer(
    name="coppice",
    help="Prune Transformer models: smaller, faster checkpoints, with proof.\n\n"
    "Without a server: coppice run. With one: coppice serve, then coppice prune.\n\n"
    "Completion of commands and options in your shell: coppice --install-completion.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command(epilog=EXIT_CODES)(run.run)
app.command(epilog=EXIT_CODES)(check.check)
app.command(epilog=EXIT_CODES)(remote.prune)
app.command(epilog=EXIT_CODES)(derive.derive)
app.command(epilog=EXIT_CODES)(outlook.outlook)
app.command(epilog=EXIT_CODES)(calibrations.calibrate)
# Each of these modules adds its commands.
assert naming.jobs is removal.jobs is bulk.jobs is remote.jobs
assert shares.queue is queue.queue
assert shares.tenants is tenants.tenants
app.command(epilog=EXIT_CODES)(login.login)
app.command(epilog=EXIT_CODES)(login.logout)
app.add_typer(remote.jobs, name="jobs", epilog=EXIT_CODES)
app.add_typer(calibrations.calibrations, name="calibrations", epilog=EXIT_CODES)
app.command(epilog=EXIT_CODES)(remote.report)
app.add_typer(keys.keys, name="keys", epilog=EXIT_CODES)
app.add_typer(queue.queue, name="queue", epilog=EXIT_CODES)
app.add_typer(audit.audit, name="audit", epilog=EXIT_CODES)
app.add_typer(tenants.tenants, name="tenants", epilog=EXIT_CODES)
app.command()(tracking.mlflow_log)
app.command()(expand.expand)
app.command()(engines.engines)
app.command()(verify.verify)
app.command()(reproduce.reproduce)
app.command(epilog=EXIT_CODES)(push.push)
app.command()(example.example)
app.command()(service.serve)
app.command()(service.api)
app.command()(service.worker)
app.command()(service.migrate)
app.command()(doctor.doctor)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"coppice {version(DISTRIBUTION)}")
        raise typer.Exit


@app.callback()
def options(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Hold the options that come before a command. The help text is the application's."""


def main() -> None:
    """Entry point of the ``coppice`` script."""
    warn_of_namesake()
    with no_traceback():
        app()


if __name__ == "__main__":
    main()
