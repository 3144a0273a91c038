"""Specs and reports that people have on their disks mean what they meant."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.upgrade.generation import Generation, differences, every_generation
from tests.upgrade.product import PruneSpec, Report, render_page, show


@every_generation
def test_a_spec_means_what_it_meant(old: Generation) -> None:
    specs = old.specs()
    assert {meant["method"]["name"] for _sent, meant in specs.values()} >= {
        *("fisher-cg", "magnitude", "random", "admm-pattern", "block-lasso")
    }
    for name, (sent, meant) in specs.items():
        now = PruneSpec.model_validate(sent)
        assert differences(now.model_dump(mode="json"), meant, name) == []
        assert PruneSpec.model_validate(meant) == now, name


@every_generation
def test_a_report_is_read_and_shown(old: Generation, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reported = [own for own in old.checkpoints(tmp_path) if (tmp_path / "bundles" / own["path"] / "report.json").exists()]
    assert reported
    for checkpoint in reported:
        text = (tmp_path / "bundles" / checkpoint["path"] / "report.json").read_text()
        report = Report.model_validate_json(text)
        assert differences(report.model_dump(mode="json"), json.loads(text), checkpoint["path"]) == []
        page = render_page(PruneSpec.model_validate(checkpoint["spec"]), report)
        for point in (report, *report.frontier):
            assert f"{point.quality.pruned:.4f}" in page, checkpoint["path"]
        show(report)
        assert f"{report.quality.pruned:.4f}" in capsys.readouterr().out, checkpoint["path"]
