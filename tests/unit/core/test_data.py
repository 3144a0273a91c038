import json

import pytest
import torch

from pruning_core.data.labels import with_classes
from pruning_core.data.read import read_rows
from pruning_core.data.rows import Rows
from pruning_core.errors import DatasetInvalid
from pruning_core.evidence.calibration import draw, tokenise
from pruning_core.models.load import load_task_model
from pruning_core.spec.prune import PruneSpec
from tests import tiny


def _task(folder, **changes):
    task = {
        "type": "text-classification",
        "dataset": str(folder),
        "columns": {"text": ["a", "b"], "label": "y"},
        "metric": "accuracy",
    }
    return PruneSpec.model_validate({"model": "m", "task": task | changes, "sparsity": 0.5}).task


def _write_csv(path, rows):
    path.write_text("a,b,y\n" + "".join(f"{a},{b},{y}\n" for a, b, y in rows))


def _write_jsonl(path, rows):
    path.write_text("".join(json.dumps({"a": a, "b": b, "y": y}) + "\n" for a, b, y in rows))


def _write_parquet(path, rows):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table(dict(zip(("a", "b", "y"), zip(*rows, strict=True), strict=True))), path)


@pytest.mark.parametrize(("suffix", "write"), [("csv", _write_csv), ("jsonl", _write_jsonl), ("parquet", _write_parquet)])
def test_formats_read_alike(tmp_path, suffix, write):
    for split in ("train", "validation"):
        write(tmp_path / f"{split}.{suffix}", [("one", "two", 1), ("three", "four", 0), ("hidden", "test", -1)])
    rows = with_classes(_task(tmp_path), read_rows(_task(tmp_path), "train"), ("no", "yes"))
    assert rows == Rows((("one", "two"), ("three", "four")), (1, 0), ("no", "yes"), left_out=1)


def test_rows_without_text_are_left_out(tmp_path):
    for split in ("train", "validation"):
        _write_jsonl(tmp_path / f"{split}.jsonl", [("one", None, 1), ("three", "four", 0)])
    assert len(read_rows(_task(tmp_path), "train")) == 1


@pytest.mark.parametrize(
    ("rows", "changes", "says"),
    [
        ([("a", None, 1)], {}, "no usable row"),
        ([("a", "b", 1)], {"columns": {"text": ["a", "c"], "label": "y"}}, "no column 'c'; it has a, b, y"),
        ([("a", "b", 1)], {"columns": {"text": ["a"], "label": "label"}}, "no column 'label'"),
        ([("a", "b", ["yes"])], {}, "holds lists or objects; a text-classification task needs class indices or names"),
    ],
)
def test_unusable_data_says_why(tmp_path, rows, changes, says):
    _write_jsonl(tmp_path / "train.jsonl", rows)
    with pytest.raises(DatasetInvalid, match=says):
        read_rows(_task(tmp_path, **changes), "train")


@pytest.mark.parametrize("name", ["train.parquet", "train.jsonl"])
def test_corrupt_files_are_named(tmp_path, name):
    (tmp_path / name).write_bytes(b"PAR1 not really {")
    with pytest.raises(DatasetInvalid, match=f"{name} cannot be read"):
        read_rows(_task(tmp_path), "train")


def test_an_empty_file_is_refused(tmp_path):
    (tmp_path / "train.csv").write_text("a,b,y\n")
    with pytest.raises(DatasetInvalid, match="no usable row"):
        read_rows(_task(tmp_path), "train")


@pytest.mark.parametrize(
    ("changes", "labels", "classes", "says"),
    [
        ({}, (0.0, 2.0), 2, "label 2 is no class of the model, which has 2"),
        ({}, (0.0, 0.5), 2, "label 0.5 is no class"),
        ({}, (0.0,), 1, "two outputs or more"),
        ({"type": "regression", "metric": "spearman"}, (0.5,), 2, "one output, this one has 2"),
    ],
)
def test_labels_must_fit_the_models_head(changes, labels, classes, says):
    rows = Rows((("text",),) * len(labels), labels)
    with pytest.raises(DatasetInvalid, match=says):
        with_classes(_task("d", **changes), rows, tuple(map(str, range(classes))))


@pytest.fixture
def model(tiny_bert):
    return load_task_model(tiny_bert, "text-classification", torch.device("cpu"))


def _rows(count=50):
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 20, (count,), generator=generator).tolist()
    return Rows(tuple((" ".join(tiny.WORDS[:n]),) for n in lengths), tuple(float(i % 2) for i in range(count)))


def test_batches_hold_every_sample_once_within_the_token_budget(model):
    tokens = tokenise(model, _rows(), max_length=16, batch_tokens=64)
    rows = torch.cat([batch.rows for batch in tokens.batches])
    assert sorted(rows.tolist()) == list(range(50))
    assert all(batch.inputs["input_ids"].numel() <= 64 for batch in tokens.batches)
    assert tokens.tokens == sum(int(batch.real.sum()) for batch in tokens.batches)
    assert max(batch.inputs["input_ids"].shape[1] for batch in tokens.batches) == 16
    for batch in tokens.batches:
        assert torch.equal(batch.labels, batch.rows % 2)


def test_buckets_waste_little_padding(model):
    tokens = tokenise(model, _rows(200), max_length=32, batch_tokens=256)
    padded = sum(batch.inputs["input_ids"].numel() for batch in tokens.batches)
    assert padded < 1.1 * tokens.tokens


def test_fingerprint_depends_on_the_tokens_alone(model):
    def fingerprint(rows, batch_tokens=64):
        return tokenise(model, rows, max_length=16, batch_tokens=batch_tokens).fingerprint

    rows = _rows()
    changed = Rows((("word1 word2",), *rows.texts[1:]), rows.labels)
    assert fingerprint(rows) == fingerprint(rows, 1024)
    assert fingerprint(rows) != fingerprint(changed)


def test_draw_is_seeded_and_without_replacement():
    rows = _rows()
    first, again, other = (draw(rows, 20, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert len(draw(rows, 500, torch.Generator())) == 50
