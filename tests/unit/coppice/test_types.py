"""The client's types are what the service answers: they may leave fields out, and may not invent any."""

from __future__ import annotations

import pytest
from pydantic import BaseModel

from app.jobs import schemas as jobs
from app.jobs.states import TERMINAL
from app.keys import schemas as keys
from app.uploads import schemas as uploads
from coppice import types
from pruning_core.checks import prediction
from pruning_core.report import report

PAIRS: list[tuple[type[BaseModel], type[BaseModel]]] = [
    (types.Job, jobs.JobView),
    (types.JobProgress, jobs.ProgressView),
    (types.JobFailure, jobs.ErrorView),
    (types.Artifact, jobs.ArtifactView),
    (types.JobEvent, jobs.EventView),
    (types.JobPrediction, jobs.PlanView),
    (types.IntPair, report.IntPair),
    (types.Predicted, prediction.Prediction),
    (types.Upload, uploads.UploadView),
    (types.ApiKey, keys.KeyView),
    (types.NewApiKey, keys.KeyCreated),
]


@pytest.mark.parametrize(("seen", "sent"), PAIRS, ids=lambda model: model.__name__)
def test_every_field_is_one_of_the_service_s(seen: type[BaseModel], sent: type[BaseModel]) -> None:
    assert set(seen.model_fields) <= set(sent.model_fields)
    mine, theirs = (model.model_json_schema(mode="serialization") for model in (seen, sent))
    for name in seen.model_fields:
        told = [theirs["properties"][name], *theirs["properties"][name].get("anyOf", ())]
        kinds = {item.get("type") for item in told} - {None}
        wanted = [mine["properties"][name], *mine["properties"][name].get("anyOf", ())]
        for item in wanted:
            known = item.get("type") in kinds or "$ref" in item or any("$ref" in other for other in told)
            assert known or item.get("type") is None, (name, item, told)


def test_the_ends_of_a_job_are_the_service_s() -> None:
    assert set(map(str, TERMINAL)) == types.TERMINAL
