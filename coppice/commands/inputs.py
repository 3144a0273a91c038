"""The options that say what a job prunes: the model, the task and its data."""

from __future__ import annotations

from typing import Annotated

import typer

Model = Annotated[
    str | None, typer.Option(help="Hub id (org/name, org/name@revision), or a folder with config.json and model.safetensors.")
]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of the Hub id of --model.")]
Task = Annotated[
    str | None,
    typer.Option(
        help="GLUE task, e.g. glue/sst2; or a type of task such as question-answering: then --data is your own, and --text, "
        "--image and --label name its columns."
    ),
]
Text = Annotated[
    list[str] | None,
    typer.Option(help="Column of texts, where --task is a type; twice for pairs, or for question and context."),
]
Image = Annotated[str | None, typer.Option(help="Column of images, instead of --text.")]
Label = Annotated[str | None, typer.Option(help="Column of labels: classes, scores, tags, answers or target texts.")]
Metric = Annotated[str | None, typer.Option(help="Metric, where --task is a type; by default the type's usual one.")]
Prefix = Annotated[str | None, typer.Option(help="Prefix of every text, as T5 expects it: 'summarize: '.")]
Data = Annotated[
    str | None,
    typer.Option(
        help="Folder with train and validation as Parquet, Arrow, JSON or CSV, or one such file; or a Hub id, org/name or "
        "org/name@revision."
    ),
]
TrainSplit = Annotated[str | None, typer.Option(help="Split of the data to calibrate and train on (default train).")]
ValidationSplit = Annotated[str | None, typer.Option(help="Split of the data to validate on (default validation).")]
ValidationShare = Annotated[
    float | None,
    typer.Option(help="Share of the training rows to hold out instead of a validation split; 0.1 where there is none."),
]
DataRevision = Annotated[str | None, typer.Option(help="Branch, tag or commit of the data, where it is of the Hub.")]
