"""``coppice reproduce``: real runs of a tiny model, made again by their own report."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner, Result

from coppice.cli import app
from coppice.reproduction import compared
from pruning_core.artifacts.bundle import write_manifest
from pruning_core.files.digests import sha256_of
from pruning_core.report.reproduction import SourceReport, command_for
from pruning_core.run.pipeline import run
from tests import tiny


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reproduce")
    tiny.write_model(folder / "model", "bert")
    tiny.write_dataset(folder / "data")
    return folder


@pytest.fixture
def bundle(place: Path, tmp_path: Path, proven_by_a_fork: None) -> Path:
    """Give a copy of a bundle, which is made once."""
    made = place / "bundle"
    if not made.exists():
        targets = [{"metric": "macs", "keep": keep} for keep in (0.5, 0.8)]
        spec = tiny.tiny_spec(place / "model", place / "data", target=None, targets=targets)
        run(spec, made, device="cpu", threads=1)
    return shutil.copytree(made, tmp_path / "bundle")


def reproduce(*arguments: object) -> Result:
    env = {"TERM": "dumb", "COLUMNS": "200"}
    return CliRunner().invoke(app, ["reproduce", *map(str, arguments)], env=env)


def change_report(bundle: Path, change) -> None:
    """Change what a bundle says of itself, and its manifest with it."""
    path = bundle / "report.json"
    report = json.loads(path.read_text())
    change(report)
    path.write_text(json.dumps(report))
    (bundle / "manifest.json").unlink()
    write_manifest(bundle)


@pytest.mark.long
def test_what_was_made_again_is_the_same_to_the_last_bit(bundle: Path, tmp_path: Path) -> None:
    done = reproduce(bundle, "--json", "--out", tmp_path / "again")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    files = {file["path"]: file for file in found["files"]}
    assert found["identical"]
    assert found["circumstances"] == found["other_files"] == []
    assert found["threads"] == 1
    assert set(files) == {"model.safetensors", "macs-0.8/model.safetensors"}
    for name, file in files.items():
        assert file["sha256"] == file["again"] == sha256_of(tmp_path / "again" / name)
    report = json.loads((bundle / "report.json").read_text())
    assert report["reproduction"]["model"]["sha256"]["model.safetensors"] == sha256_of(
        Path(report["model"]) / "model.safetensors"
    )


def test_a_checkpoint_of_several_leads_to_its_bundle(bundle: Path) -> None:
    assert "coppice reproduce .. --model /path/to/model --data /path/to/data" in (bundle / "macs-0.8" / "README.md").read_text()
    done = reproduce(bundle / "macs-0.8")
    assert done.exit_code == 2
    assert f"is one of several checkpoints of a bundle: give {bundle}" in done.stderr.replace("\n", "")


@pytest.mark.long
def test_another_seed_differs_and_the_tensors_are_named(bundle: Path) -> None:
    change_report(bundle, lambda report: report["reproduction"]["spec"].update(seed=7))
    done = reproduce(bundle)
    assert done.exit_code == 1, done.output
    assert "differs: model.safetensors, in " in done.stdout
    assert "bert.encoder.layer.0." in done.stdout
    assert done.stdout.rstrip().endswith("the weights differ")


@pytest.mark.long
def test_a_changed_model_is_refused_and_run_anyway(bundle: Path, place: Path, tmp_path: Path) -> None:
    model = shutil.copytree(place / "model", tmp_path / "model")
    weights = load_file(model / "model.safetensors")
    weights["classifier.bias"] += 0.125
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    refused = reproduce(bundle, "--model", model)
    assert refused.exit_code == 2
    assert "--model is another model than the bundle was made of: model.safetensors has the sha256" in refused.stderr
    assert "or --anyway" in refused.stderr
    done = reproduce(bundle, "--model", model, "--anyway", "--json")
    assert done.exit_code == 1
    found = json.loads(done.stdout)
    (bias,) = [own for own in found["files"][1]["tensors"] if own["name"] == "classifier.bias"]
    assert bias == {"name": "classifier.bias", "change": "values", "values": 2, "differing": 2, "largest": pytest.approx(0.125)}
    assert any("another model" in said for said in found["notes"])


def test_other_data_and_no_data_are_refused(bundle: Path, tmp_path: Path) -> None:
    other = tiny.write_dataset(tmp_path / "other", seed=1)
    refused = reproduce(bundle, "--data", other)
    assert refused.exit_code == 2
    assert "--data is other data than the bundle was made with: of its rows, train has the sha256" in refused.stderr
    missing = reproduce(bundle, "--data", tmp_path / "nowhere")
    assert missing.exit_code == 2
    assert "--data" in missing.stderr
    change_report(bundle, lambda report: report["reproduction"]["spec"]["task"].update(dataset=str(tmp_path / "gone")))
    gone = reproduce(bundle)
    assert gone.exit_code == 2
    assert f"give --data: the bundle was made of the data at {tmp_path / 'gone'}" in gone.stderr


@pytest.mark.long
def test_the_same_rows_in_another_format_are_the_same_data(bundle: Path, place: Path, tmp_path: Path) -> None:
    import pyarrow.csv
    import pyarrow.parquet as pq

    for split in ("train", "validation"):
        (tmp_path / "csv").mkdir(exist_ok=True)
        pyarrow.csv.write_csv(pq.read_table(place / "data" / f"{split}.parquet"), tmp_path / "csv" / f"{split}.csv")
    done = reproduce(bundle, "--data", tmp_path / "csv")
    assert done.exit_code == 0, done.output


def test_a_bundle_of_an_earlier_version_says_so(bundle: Path) -> None:
    change_report(bundle, lambda report: report.pop("reproduction"))
    done = reproduce(bundle)
    assert done.exit_code == 2
    assert "cannot be made again by its report: it was made by Coppice" in done.stderr


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda bundle: (bundle / "report.json").unlink(), "is no bundle: it has no report.json"),
        (lambda bundle: (bundle / "report.json").write_text("{"), "is damaged, or is of a later version"),
        (lambda bundle: (bundle / "model.safetensors").write_bytes(b"other"), "is not the bundle that was made"),
        (
            lambda bundle: change_report(bundle, lambda report: report["reproduction"]["spec"].update(seed="x")),
            "the report's spec: seed",
        ),
        (
            lambda bundle: change_report(bundle, lambda report: report["reproduction"]["spec"].update(model="model")),
            "give --model: the bundle was made of the model 'model', and its report has no path of it",
        ),
    ],
)
def test_a_damaged_bundle_is_refused_in_a_sentence(bundle: Path, spoil, said: str) -> None:
    spoil(bundle)
    done = reproduce(bundle)
    assert done.exit_code == 2
    assert said in done.stderr


@pytest.mark.long
def test_other_versions_and_threads_are_told(bundle: Path) -> None:
    change_report(bundle, lambda report: report["versions"].update(torch="1.0"))
    done = reproduce(bundle, "--threads", 2)
    assert "torch: 1.0 then, " in done.stdout
    assert "threads: 1 then, 2 now" in done.stdout
    assert "as the report says" not in done.stderr


@pytest.mark.long
def test_a_number_of_threads_that_no_machine_has_is_not_tried(bundle: Path) -> None:
    change_report(bundle, lambda report: report["reproduction"]["machine"].update(threads=10**9))
    done = reproduce(bundle, "--json")
    assert "the report says 1000000000 threads, which is out of reach" in done.stderr.replace("\n", " ")
    assert json.loads(done.stdout)["threads"] == os.cpu_count()


@pytest.mark.long
def test_a_floor_that_is_missed_is_compared_all_the_same(bundle: Path) -> None:
    change_report(
        bundle, lambda report: report["reproduction"]["spec"].update(quality_floor={"kind": "absolute", "value": 0.99})
    )
    done = reproduce(bundle, "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["identical"]
    assert any(said.startswith("the run now missed what was asked for") for said in found["notes"])


def test_a_name_that_is_no_name_is_not_put_into_a_command() -> None:
    odd, hub = SourceReport(kind="folder", name="```\n# rm", sha256={}), SourceReport(kind="hub", name="org/name", sha256={})
    plain = SourceReport(kind="folder", name="my data", sha256={})
    assert command_for(odd, plain) == "coppice reproduce . --model MODEL --data '/path/to/my data'"
    assert command_for(hub, hub) == "coppice reproduce ."


def test_tensors_are_compared_by_their_bits(tmp_path: Path) -> None:
    nan = float("nan")
    one = {"a": torch.tensor([1.0, nan, 0.0]), "b": torch.ones(2), "c": torch.ones(1), "e": torch.ones(2, dtype=torch.int8)}
    other = {"a": torch.tensor([1.5, nan, -0.0]), "b": torch.ones(3), "d": torch.ones(1), "e": torch.ones(2)}
    places = [tmp_path / name for name in ("one", "other")]
    for folder, tensors in zip(places, (one, other), strict=True):
        folder.mkdir()
        save_file(tensors, folder / "model.safetensors")
        (folder / "model.gguf").write_bytes(folder.name.encode())
    then, now = ({path.name: sha256_of(path) for path in folder.iterdir()} for folder in places)
    gguf, safetensors = compared(*places, then, now, lambda _stage, _fraction: None)
    assert (gguf.identical, gguf.of, gguf.tensors) == (False, 0, ())
    assert safetensors.of == 5
    assert {own.name: (own.change, own.differing, own.largest) for own in safetensors.tensors} == {
        "a": ("values", 2, 0.5),
        "b": ("shape", None, None),
        "c": ("missing", None, None),
        "d": ("new", None, None),
        "e": ("type", None, None),
    }
