"""``coppice mlflow-log``: log a finished job to MLflow."""

from __future__ import annotations

from typing import Annotated

import typer

from coppice import console
from coppice.client import DEFAULT_URL, Client
from coppice.commands import options
from coppice.commands.which import Url
from coppice.console import ExitCode, explained, fail
from coppice.installation import DISTRIBUTION, require


def mlflow_log(
    job_id: str,
    tracking_uri: Annotated[
        str | None, typer.Option(envvar="MLFLOW_TRACKING_URI", show_envvar=True, help="MLflow's server or store.")
    ] = None,
    experiment: Annotated[
        str,
        typer.Option(envvar="MLFLOW_EXPERIMENT_NAME", show_envvar=True, help="Name of the experiment; made if there is none."),
    ] = "coppice",
    run_name: Annotated[str | None, typer.Option(help="Name of the run; default: the job's id.")] = None,
    bundle: Annotated[bool, typer.Option(help="Log the bundle's files, too, not only numbers and the report.")] = True,
    url: Url = DEFAULT_URL,
    key: options.ApiKey = None,
) -> None:
    """Log a succeeded job to MLflow: parameters, metrics, report and bundle. The run's id is printed, alone on stdout.

    A job that was logged before is not logged again. Example: coppice mlflow-log job_... --tracking-uri http://mlflow:5000
    """
    require("mlflow", f"{DISTRIBUTION}[mlflow]")
    from mlflow.exceptions import MlflowException

    from coppice.mlflow_log import log_job

    try:
        with explained(), Client(url, api_key=key) as client:
            run_id = log_job(
                client, job_id, tracking_uri=tracking_uri, experiment=experiment, run_name=run_name, with_bundle=bundle
            )
    except MlflowException as error:
        fail(f"MLflow: {str(error).splitlines()[0]}", ExitCode.UNREACHABLE)
    console.err.print(f"{job_id} is in the experiment {experiment}", highlight=False, markup=False)
    typer.echo(run_id)
