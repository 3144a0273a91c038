"""Presets: a name for settings that go together."""

from __future__ import annotations

import json
from functools import reduce
from operator import getitem

import pytest
from pydantic import ValidationError

from app.jobs.digests import digest_of
from app.jobs.schemas import JobCreate
from pruning_core.run.pipeline import run
from pruning_core.spec.method import METHODS
from pruning_core.spec.prune import PruneSpec, RecoverySpec
from pruning_core.support.capabilities import methods
from tests import tiny
from tests.unit.core.test_page import _report, _spec  # a report and the spec it is of

BASE = {"model": "org/name", "task": "glue/sst2"}
TARGETS = {"fisher-cg": {"target": {"metric": "macs", "keep": 0.5}}, "block-lasso": {"sparsity": 0.5}, "admm-pattern": {}}
WITH_PAPER = ("fisher-cg", "admm-pattern", "block-lasso")


def spec_of(method="fisher-cg", *, beside=None, **fields):
    name = {"name": method, "preset": "paper", **(beside or {})}
    return PruneSpec.model_validate(BASE | TARGETS[method] | {"method": name} | fields)


def refused(**given):
    with pytest.raises(ValidationError) as caught:
        spec_of(**given)
    return {".".join(str(part) for part in error["loc"]): error["msg"] for error in caught.value.errors()}


def at(spec, path):
    for name in path.split("."):
        spec = getattr(spec, name)
    return spec


@pytest.mark.parametrize("method", WITH_PAPER)
def test_a_preset_sets_all_that_it_says_and_nothing_else(method):
    found, plain = spec_of(method), PruneSpec.model_validate(BASE | TARGETS[method] | {"method": method})
    settings = METHODS[method].presets["paper"].settings
    assert {path: at(found, path) for path in settings} == settings
    assert all(at(plain, path) != value for path, value in settings.items()), "a setting of the paper's that is the default"
    assert (found.preset, plain.preset) == ("paper", None)
    # Without the fields of the preset, both are the same request.
    dumps = [own.model_dump(mode="json") for own in (found, plain)]
    for path in settings:
        *parents, last = path.split(".")
        for dump in dumps:
            reduce(getitem, parents, dump).pop(last, None)  # defaults of some fields are left out
    assert dumps[0] == dumps[1]


@pytest.mark.parametrize("method", WITH_PAPER)
@pytest.mark.parametrize("how", [{}, {"exclude_defaults": True}, {"exclude_unset": True}], ids=["whole", "defaults", "unset"])
def test_the_spec_that_a_preset_makes_is_read_back_as_it_is(method, how):
    found = spec_of(method)
    dump = json.loads(found.model_dump_json(**how))
    assert "preset" not in dump["method"], "stored requests hold what it stands for"
    tagged = {"method": dump["method"] | {"name": method}, "target": found.target.model_dump(mode="json")}
    assert PruneSpec.model_validate(dump | tagged) == found


def test_what_is_said_beside_a_preset_must_agree():
    assert spec_of(beside={"labels": "use"}, recovery={"kind": "masks", "tolerance": 1e-3}).recovery.tolerance == 1e-3
    assert spec_of(recovery=RecoverySpec(tolerance=1e-3)).recovery == RecoverySpec(kind="masks", solver="cg", tolerance=1e-3)
    assert spec_of(calibration={"samples": 64}).calibration.samples == 64
    said = refused(beside={"labels": "ignore"}, recovery={"kind": "weights", "solver": "lsmr"})
    assert set(said) == {"method.labels", "recovery.kind", "recovery.solver"}
    assert said["recovery.kind"].startswith("preset paper sets recovery.kind to masks, got weights: leave recovery.kind out")
    assert set(refused(recovery=RecoverySpec(kind="none"))) == {"recovery.kind"}
    assert set(refused(method="admm-pattern", beside={"training": {"hidden": 1.0}})) == {"method.training.hidden"}


@pytest.mark.parametrize("method", WITH_PAPER)
def test_default_is_no_preset(method):
    plain = PruneSpec.model_validate(BASE | TARGETS[method] | {"method": method})
    assert spec_of(method, beside={"preset": "default"}) == plain
    assert spec_of(method, beside={"preset": None}) == plain


def test_an_unknown_preset_is_refused_with_those_there_are():
    said = refused(beside={"preset": "papers"})
    assert said == {"method.preset": "fisher-cg has no such preset; it has default, paper; did you mean paper?"}
    assert set(refused(beside={"preset": ["paper"]})) == {"method.preset"}
    with pytest.raises(ValidationError, match="random has no such preset; it has default"):
        PruneSpec.model_validate(BASE | TARGETS["fisher-cg"] | {"method": {"name": "random", "preset": "paper"}})


def test_parts_that_are_no_objects_are_told_by_their_own_validation():
    assert set(refused(recovery=3, calibration="many")) >= {"recovery", "calibration"}
    assert any(
        name.startswith("method.admm-pattern.training") for name in refused(method="admm-pattern", beside={"training": 7})
    )


def test_a_job_takes_a_preset_and_digests_stay():
    body = BASE | TARGETS["fisher-cg"] | {"method": {"name": "fisher-cg", "preset": "paper"}}
    assert JobCreate.model_validate(body).to_spec() == spec_of()
    assert digest_of(body) != digest_of(body | {"method": "fisher-cg"})
    # Taken before there were presets.
    assert digest_of(BASE | TARGETS["fisher-cg"]) == "bd2cbcde19dfe9cd3924ac6d7656967e321de9529cd59d1e4680af9caa95aa3e"


def test_the_methods_say_what_runs_by_default_and_what_a_preset_changes():
    told = {info.name: info for info in methods()}
    for name in WITH_PAPER:
        (preset,) = told[name].presets
        assert told[name].by_default
        assert preset.settings == METHODS[name].presets["paper"].settings
        declared = told[name].options["properties"]["preset"]
        assert (declared["enum"], declared["default"]) == (["default", "paper"], "default")
        assert all(path in declared["description"] for path in preset.settings)
    assert "preset" not in told["random"].options["properties"]


def test_card_and_page_name_the_preset():
    from pruning_core.artifacts.card import model_card
    from pruning_core.artifacts.page import render_page

    paper = _spec(method={"name": "fisher-cg", "preset": "paper"})
    assert "with the settings of preset `paper`" in model_card(paper, _report())
    assert "with the settings of its paper" in render_page(paper, _report())
    assert "preset" not in model_card(_spec(), _report())


@pytest.mark.slow
@pytest.mark.parametrize("method", WITH_PAPER)
@pytest.mark.long
def test_a_job_runs_by_its_paper_and_its_report_has_what_that_means(method, tiny_bert, tiny_sst2, tmp_path):
    chosen = {"name": method, "preset": "paper"}
    if method != "fisher-cg":
        chosen["training"] = {"epochs": 1, "max_train_rows": 64}
    target = {"fisher-cg": {}, "block-lasso": {"metric": "sparsity", "sparsity": 0.5}}.get(method)
    fields = {} if method == "fisher-cg" else {"target": target}
    report = run(tiny.tiny_spec(tiny_bert, tiny_sst2, method=chosen, **fields), tmp_path / "bundle", device="cpu")
    asked = report.reproduction.spec
    assert "preset" not in asked["method"]
    assert PruneSpec.model_validate(asked).preset == "paper"
    if method == "fisher-cg":
        assert report.recovery == "masks"
        assert {layer.ffn.solver for layer in report.layers} == {"cg"}
        assert report.seconds.by_stage["rearrange"] > 0
    else:
        assert report.training is not None
