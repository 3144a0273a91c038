"""Models whose files are bombs or lies: headers of safetensors, JSON, and configurations that reach for code."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from tests.attacks.attack import UPLOAD, Attack, Expected
from tests.attacks.payloads import model, tensor, weights, with_entries
from tests.attacks.target import Target
from tests.attacks.wire import Answer
from tests.hooks import FOREIGN, MODULES, REFUSED

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
_DEEP = b"[" * 1_000_000
_OBJECTS = b'{"a":' * 1_000_000
_WIDE = b"[" + b"0," * 30_000_000 + b"0]"
_BOMB = b'{"__metadata__":{},"a":{"dtype":"F32","shape":[' + b"[]," * 20_000_000 + b'[]],"data_offsets":[0,4]}}'
TAKEN = Expected(frozenset({200, 201}) | UPLOAD.statuses, UPLOAD.codes)


def _replace(target: Target, made: Mapping[str, bytes | None]) -> Answer:
    return target.upload("models", model(target.root / "model", made))


def _with(target: Target, _made: None, name: str, entries: Mapping[str, Any]) -> Answer:
    return target.upload("models", with_entries(target.root / "model", name, entries))


def replaced(
    name: str,
    make: Callable[[], Mapping[str, bytes | None]],
    *,
    row: str = "",
    short: bool = False,
    expected: Expected = UPLOAD,
) -> Attack:
    """Make the attack that sends an honest model with some files replaced."""
    return Attack(name, _replace, expected, make, row, short)


def header(name: str, make: Callable[[], bytes], *, row: str = "", short: bool = False) -> Attack:
    """Make the attack that sends an honest model with other weights."""
    return replaced(f"weights: {name}", lambda: {WEIGHTS: make()}, row=row, short=short)


def hook(name: str, where: str, entries: Mapping[str, Any], *, expected: Expected = UPLOAD, short: bool = False) -> Attack:
    """Make the attack that sends an honest model with a hook."""
    return Attack(f"hook: {name}", partial(_with, name=where, entries=entries), expected, row="M9", short=short)


def _digits(count: int, digits: int) -> str:
    return "[" + ",".join(["9" * digits] * count) + "]"


def _tensors(count: int) -> bytes:
    entry = b'{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
    return b"{" + b",".join(b'"%d":%b' % (index, entry) for index in range(count)) + b"}"


_HEADERS = [
    header("20,000 dimensions of 4,300 digits", lambda: tensor(_digits(20_000, 4300)), row="C2", short=True),
    header("a dimension of a million digits", lambda: tensor("[" + "9" * 1_000_000 + "]"), row="C2"),
    header("a thousand dimensions of 4,300 digits", lambda: tensor(_digits(1000, 4300)), row="C2"),
    header("a million dimensions of one", lambda: tensor("[" + "1," * 1_000_000 + "1]"), row="C2"),
    header("dimensions 1e999", lambda: tensor("[1e999]"), row="L12", short=True),
    header("dimensions that are infinite", lambda: tensor("[Infinity]"), row="L12"),
    header("dimensions that are no number", lambda: tensor("[NaN]")),
    header("dimensions with a fraction", lambda: tensor("[1.5]")),
    header("dimensions of text", lambda: tensor('["1"]')),
    header("dimensions true", lambda: tensor("[true]")),
    header("a negative dimension", lambda: tensor("[-1,-1]")),
    header(
        "a product above 2^64 with a zero", lambda: tensor("[18446744073709551615,18446744073709551615,0]", offsets="[0,0]")
    ),
    header(
        "offsets that overlap",
        lambda: weights(
            b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
            b"\0" * 4,
        ),
    ),
    header("offsets that go backwards", lambda: tensor("[1]", offsets="[4,0]")),
    header("offsets below zero", lambda: tensor("[1]", offsets="[-4,0]")),
    header("offsets of floats", lambda: tensor("[1]", offsets="[0.0,4e0]")),
    header("offsets that are infinite", lambda: tensor("[1]", offsets="[0,1e999]")),
    header("a type that nobody knows", lambda: tensor("[1]", dtype="F1024")),
    header("a type of a megabyte", lambda: tensor("[1]", dtype="F" * 2**20)),
    header("a name of megabytes", lambda: tensor("[1]", name="a" * 2**24)),
    header("two million tensors", lambda: weights(_tensors(1_500_000), b"\0" * 4), row="H4"),
    header(
        "a key twice",
        lambda: weights(
            b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[9],"data_offsets":[0,4]}}',
            b"\0" * 4,
        ),
    ),
    header("a bomb of JSON", lambda: weights(_BOMB, b"\0" * 4), row="H4"),
    header("metadata of 64 MiB", lambda: weights(b'{"__metadata__":{"a":"' + b"x" * 2**26 + b'"}}'), row="H4"),
    header("metadata that is no text", lambda: weights(b'{"__metadata__":{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}}")),
    header("JSON too deep", lambda: weights(_DEEP), short=True),
    header("a list in place of an object", lambda: weights(b"[]")),
    header("a header that is no UTF-8", lambda: weights(b'{"\xff":1}')),
    header("a header of 2^63 bytes", lambda: weights(b"{}", length=2**63), short=True),
    header("a header of 2^64 - 1 bytes", lambda: weights(b"{}", length=2**64 - 1)),
    header("a header of no bytes", lambda: weights(b"")),
    header("a header of spaces", lambda: weights(b" " * 2**24)),
    header("a file of three bytes", lambda: b"\0\0\0"),
    header("data behind the end", lambda: tensor("[1]") + b"\0" * 4096),
    header("a pickle", lambda: b"\x80\x04cos\nsystem\n(S'true'\ntR.", short=True),
]
_DOCUMENTS = [
    *(
        replaced(
            f"{name}: {what}", lambda name=name, body=body: {name: body}, short=short, row="H4" if what == "too wide" else ""
        )
        for name in ("config.json", "tokenizer_config.json", "generation_config.json")
        for what, body, short in (
            ("too deep", _DEEP, name == "config.json"),
            ("objects too deep", _OBJECTS, False),
            ("too wide", _WIDE, False),
            ("no UTF-8", b'{"a": "\xff"}', False),
            ("a number of a million digits", b'{"a": ' + b"9" * 1_000_000 + b"}", False),
            ("no object", b"7", False),
        )
    ),
    replaced("tokenizer.json: too deep", lambda: {"tokenizer.json": _DEEP}, expected=TAKEN),
    replaced("tokenizer.json: too wide", lambda: {"tokenizer.json": _WIDE}, expected=TAKEN),
    replaced("special_tokens_map.json: too deep", lambda: {"special_tokens_map.json": _DEEP}),
    replaced("an index too deep", lambda: {WEIGHTS: None, INDEX: _DEEP}),
    replaced(
        "an index too wide",
        lambda: {
            WEIGHTS: None,
            INDEX: b'{"weight_map":{' + b",".join(b'"%d":"a.safetensors"' % index for index in range(2_000_000)) + b"}}",
        },
    ),
    replaced(
        "an index that leads out",
        lambda: {WEIGHTS: None, INDEX: json.dumps({"weight_map": {"a": "../../other/model.safetensors"}}).encode()},
        short=True,
    ),
    replaced("an index of absolute names", lambda: {WEIGHTS: None, INDEX: b'{"weight_map":{"a":"/etc/passwd"}}'}),
    replaced("an index of numbers", lambda: {WEIGHTS: None, INDEX: b'{"weight_map":{"a":[1]}}'}),
    replaced(
        "layers beyond counting", lambda: {"config.json": b'{"model_type":"bert","num_hidden_layers":1e308}'}, expected=TAKEN
    ),
    replaced("a model type that is a list", lambda: {"config.json": b'{"model_type":["bert"]}'}, row="M9"),
    replaced("a config of nothing", lambda: {"config.json": b""}, short=True),
]
_HOOKS = [
    *(
        hook(what, where, entries, short=what in ("attention kernel", "absolute vocabulary", "library of quantisation"))
        for what, (where, entries) in REFUSED.items()
    ),
    *(
        replaced(
            f"hook: {what}",
            lambda kind=kind, path=path: {
                "modules.json": json.dumps([{"idx": 0, "name": "0", "path": path, "type": kind}]).encode()
            },
            row="M9",
        )
        for what, (kind, path) in MODULES.items()
    ),
    hook("code of the model's, and no native class", "config.json", {"auto_map": FOREIGN, "model_type": "evil"}, short=True),
    hook(
        "code of the model's beside a native class",
        "config.json",
        {"auto_map": FOREIGN},
        expected=Expected(frozenset({200, 201})),
    ),
]
ATTACKS = [*_HEADERS, *_DOCUMENTS, *_HOOKS]
