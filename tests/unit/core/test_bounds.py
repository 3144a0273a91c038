"""Files of strangers, judged without reading a weight: whatever they say, the answer is quick and says what is wrong."""

from __future__ import annotations

import itertools
import json
import shutil
import time
from pathlib import Path

import pytest

from pruning_core.checks.request import check_local_inputs
from pruning_core.errors import DatasetInvalid, ModelUnreadable, PruningError
from pruning_core.files.bounded_json import JsonRefused, parse_json
from pruning_core.files.checkpoint import read_checkpoint
from pruning_core.files.parquet_footer import FooterTooLarge, read_footer
from pruning_core.files.safetensors_header import MOST_HEADER_BYTES, read_header
from tests import tiny
from tests.contract.hostile import flat, many_digits, safetensors, tensor


@pytest.fixture
def model(tiny_bert: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_bert, tmp_path / "model")


def text(entry: str) -> bytes:
    return safetensors(f'{{"w":{entry}}}'.encode(), bytes(4))


HEADERS = {
    "digits": (many_digits(3000), "a number of more than 64 digits"),
    "digits of one axis": (many_digits(1, 4300), "a number of more than 64 digits"),
    "more digits than Python takes": (many_digits(1, 5000), "a number of more than 64 digits"),
    "float beyond range": (text('{"dtype":"F32","shape":[1e999],"data_offsets":[0,4]}'), "a number that is out of range"),
    "infinity": (text('{"dtype":"F32","shape":[Infinity],"data_offsets":[0,4]}'), "holds Infinity, which is no number"),
    "NaN": (text('{"dtype":"F32","shape":[NaN],"data_offsets":[0,4]}'), "holds NaN, which is no number"),
    "float": (safetensors({"w": tensor([1.0], offsets=[0, 4])}, bytes(4)), "a list of at most 8 whole numbers"),
    "bool": (safetensors({"w": tensor([True], offsets=[0, 4])}, bytes(4)), "a list of at most 8 whole numbers"),
    "text": (safetensors({"w": tensor(["1"], offsets=[0, 4])}, bytes(4)), "a list of at most 8 whole numbers"),
    "null": (safetensors({"w": tensor(None, offsets=[0, 4])}, bytes(4)), "a list of at most 8 whole numbers"),
    "object": (safetensors({"w": tensor({"0": 1}, offsets=[0, 4])}, bytes(4)), "a list of at most 8 whole numbers"),
    "negative": (safetensors({"w": tensor([-1, -1], offsets=[0, 4])}, bytes(4)), "each from 0 to 2"),
    "rank": (safetensors({"w": tensor([1] * 9, offsets=[0, 4])}, bytes(4)), "a list of at most 8 whole numbers"),
    "axis": (safetensors({"w": tensor([2**41], offsets=[0, 4])}, bytes(4)), "each from 0 to 2"),
    "product": (safetensors({"w": tensor([2**40] * 8, "F8_E4M3", [0, 4])}, bytes(4)), "other bytes than its shape needs"),
    "offsets of text": (safetensors({"w": tensor([1], offsets=["0", "4"])}, bytes(4)), "two whole numbers"),
    "offsets of floats": (safetensors({"w": tensor([1], offsets=[0.0, 4.0])}, bytes(4)), "two whole numbers"),
    "three offsets": (safetensors({"w": tensor([1], offsets=[0, 4, 4])}, bytes(4)), "two whole numbers"),
    "backwards": (safetensors({"w": tensor([1], offsets=[4, 0])}, bytes(4)), "the smaller one first"),
    "before the file": (safetensors({"w": tensor([2], offsets=[-4, 4])}, bytes(4)), "the smaller one first"),
    "overlap": (safetensors({"v": tensor([1], offsets=[0, 4]), "w": tensor([2], offsets=[0, 8])}, bytes(8)), "overlap"),
    "hole": (safetensors({"v": tensor([1], offsets=[0, 4]), "w": tensor([1], offsets=[8, 12])}, bytes(12)), "bytes to nobody"),
    "beyond the end": (safetensors({"w": tensor([2], offsets=[0, 8])}, bytes(4)), "other bytes than its header says"),
    "before the end": (safetensors({"w": tensor([1], offsets=[0, 4])}, bytes(8)), "other bytes than its header says"),
    "type of a number": (safetensors({"w": tensor([1], 7, [0, 4])}, bytes(4)), "gives w no type"),  # type: ignore[arg-type]
    "long type": (safetensors({"w": tensor([1], "F" * 5000, [0, 4])}, bytes(4)), "gives w no type"),
    "long name": (flat(1, ["w" * 513]), "more than 512 letters"),
    "twice": (safetensors(b'{"w":{"dtype":"F32"},"w":{"dtype":"F16"}}'), "a key twice"),
    "twice within": (text('{"dtype":"F32","shape":[1],"shape":[2],"data_offsets":[0,4]}'), "a key twice"),
    "deep": (safetensors(b"[" * 100_000), "nested too deeply"),
    "deep objects": (safetensors(b'{"a":' * 100_000), "nested too deeply"),
    "list": (safetensors([]), "no JSON object"),
    "entry of a list": (safetensors({"w": []}), "no JSON object"),
    "UTF-16": (safetensors('{"w":1}'.encode("utf-16")), "not readable JSON"),
    "long header": (safetensors(b"{}" + b" " * (17 * 2**20)), "a header of more than"),
    "many tensors": (safetensors({str(index): 0 for index in range(200_001)}), "more than 200000 tensors"),
    "no length": (b"\0\0", "corrupt or truncated"),
    "length beyond the file": ((2**62).to_bytes(8, "little") + b"{}", "corrupt or truncated"),
}


@pytest.mark.parametrize("name", HEADERS)
def test_headers_out_of_bounds_are_refused(model: Path, name: str) -> None:
    content, says = HEADERS[name]
    (model / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelUnreadable, match=says) as refused:
        read_checkpoint(model)
    assert len(refused.value.message) < 400, "no echo of the input"
    assert str(model) not in refused.value.message


def test_a_header_beyond_the_bound_is_not_read(model: Path) -> None:
    """What is read and parsed has at most `MOST_HEADER_BYTES`, whatever a file says of itself; of this one, 64 GB."""
    with (model / "model.safetensors").open("wb") as file:
        file.write((2**36 - 8).to_bytes(8, "little"))
        file.truncate(2**36)
    with pytest.raises(ModelUnreadable, match=f"a header of more than {MOST_HEADER_BYTES} bytes"):
        read_checkpoint(model)


def test_what_safetensors_writes_is_within_bounds(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    kinds = (torch.float32, torch.bfloat16, torch.int64, torch.bool, torch.float8_e4m3fn, torch.uint16, torch.complex64)
    tensors = {str(kind): torch.zeros(3, 2, dtype=kind) for kind in kinds}
    tensors |= {"empty": torch.zeros(0, 7), "scalar": torch.zeros(()), "deep": torch.zeros(1, 1, 1, 1, 1, 1, 1, 2)}
    path = tmp_path / "model.safetensors"
    save_file(tensors, path, metadata={"format": "pt", "note": "x" * 10_000})
    assert {one.name: one.shape for one in read_header(path)} == {name: tuple(own.shape) for name, own in tensors.items()}


@pytest.mark.long
def test_a_header_of_a_hundred_thousand_tensors_is_read(model: Path) -> None:
    (model / "model.safetensors").write_bytes(flat(100_000))
    assert read_checkpoint(model).parameters == 100_000


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (b'{"a":' * 100_000, "config.json is nested too deeply"),
        (b'{"hidden_size": ' + b"9" * 5000 + b"}", "a number of more than 64 digits"),
        (b'{"hidden_size": 1e999}', "a number that is out of range"),
        (b'{"a": 1, "a": 2}', "a key twice"),
        (b'{"a": "' + b"x" * (17 * 2**20) + b'"}', "config.json has more than"),
        (b"\xff\xfe{}", "config.json is not readable JSON"),
        (b'"text"', "must be a JSON object"),
        (b"1", "must be a JSON object"),
    ],
)
def test_configurations_out_of_bounds_are_refused(model: Path, config: bytes, says: str) -> None:
    (model / "config.json").write_bytes(config)
    with pytest.raises(ModelUnreadable, match=says):
        read_checkpoint(model)


@pytest.mark.parametrize("value", ["true", "1e300", "12.0", '"12"', "[12]", "{}", "Infinity", "NaN", "-1", "0", "9" * 60])
@pytest.mark.parametrize("field", ["num_attention_heads", "hidden_size", "num_hidden_layers", "vocab_size", "num_labels"])
def test_counts_that_are_no_counts_break_nothing(model: Path, tiny_sst2: Path, field: str, value: str) -> None:
    path = model / "config.json"
    config = json.loads(path.read_text()) | {field: "VALUE"}
    path.write_text(json.dumps(config).replace('"VALUE"', value))
    try:
        check_local_inputs(tiny.tiny_spec(model, tiny_sst2))
    except PruningError as error:
        found = error.message
    else:
        found = ""
    assert len(found) < 1000, "no echo of the input"


def _index(places: object) -> bytes:
    return json.dumps({"weight_map": places}).encode()


@pytest.mark.parametrize(
    ("index", "says"),
    [
        (b"[" * 100_000, "nested too deeply"),
        (b"[]", "no weight_map"),
        (_index({}), "no weight_map"),
        (_index([]), "no weight_map"),
        (_index({"a": 1}), "something else than files"),
        (_index({"a": ["x.safetensors"]}), "something else than files"),
        (_index({str(index): f"{index}.safetensors" for index in range(1001)}), "or 1000 files"),
        (_index({"a": "a\0b"}), "must lie in the model's folder"),
        (_index({"a": "/etc/passwd"}), "must lie in the model's folder"),
        (_index({"a": ".."}), "must lie in the model's folder"),
        (_index({"a": "../x"}), "must lie in the model's folder"),
        (_index({"a": "x" * 5000}), "must lie in the model's folder"),
        (b'{"weight_map": {"a": "x", "a": "y"}}', "a key twice"),
    ],
)
def test_shard_indexes_out_of_bounds_are_refused(model: Path, index: bytes, says: str) -> None:
    (model / "model.safetensors").unlink()
    (model / "model.safetensors.index.json").write_bytes(index)
    with pytest.raises(ModelUnreadable, match=says) as refused:
        read_checkpoint(model)
    assert len(refused.value.message) < 2500


def test_json_of_tokenizers_and_of_state_space_models_is_taken() -> None:
    said = parse_json(b'{"model_max_length": 1000000000000000019884624838656, "time_step_limit": [0.0, Infinity], "e": 1e-05}')
    assert said == {"model_max_length": 1000000000000000019884624838656, "time_step_limit": [0.0, float("inf")], "e": 1e-05}
    with pytest.raises(JsonRefused, match="not readable"):
        parse_json(b'{"a": 1')


def _parquet(footer: bytes) -> bytes:
    return b"PAR1" + footer + len(footer).to_bytes(4, "little") + b"PAR1"


@pytest.mark.parametrize(
    "footer",
    [
        b"\x19\xfc" + b"\xff\xff\x3f" + bytes(1_000_000),  # a list of a million structures of one byte
        b"\x19\xf3" + b"\xff\xff\x3f" + bytes(1_000_000),  # a list of a million bytes
        b"\x1c" * 1_000_000,  # structures within structures
        b"\x19\x19" * 500_000,
        b"\x16\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\0",
        bytes(range(256)) * 100,
    ],
)
def test_parquet_footers_of_attackers_end_soon(tmp_path: Path, footer: bytes) -> None:
    path = tmp_path / "train.parquet"
    path.write_bytes(_parquet(footer))
    began = time.process_time()
    with pytest.raises((ValueError, FooterTooLarge)):
        read_footer(path)
    assert time.process_time() - began < 3


def test_a_message_names_some_columns_of_a_million(tiny_bert: Path, tmp_path: Path) -> None:
    header = ",".join(f"c{index}" for index in range(100_000))
    for split in ("train", "validation"):
        (tmp_path / f"{split}.csv").write_text(f"{header}\n{',' * 99_999}\n")
    with pytest.raises(DatasetInvalid, match="has no column 'sentence'; it has c0, c1") as refused:
        check_local_inputs(tiny.tiny_spec(tiny_bert, tmp_path))
    assert len(refused.value.message) < 2000


def test_a_folder_of_many_images_is_looked_at_in_part(tmp_path: Path) -> None:
    from pruning_core.checks.reader import check_image_folder

    for name, number in itertools.product(("a", "b"), range(700)):
        path = tmp_path / name / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"\x89PNG\r\n\x1a\n")
    check_image_folder(tmp_path, ["a", "b"])
    (tmp_path / "a" / "0.png").write_bytes(b"no")
    with pytest.raises(DatasetInvalid, match=r"0\.png"):
        check_image_folder(tmp_path, ["a", "b"])
