"""Every architecture: what is found at submit is what the worker finds, cutting equals masking, files load and answer alike."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import MethodType

import pytest
import torch
import transformers

from pruning_core.arch.adapter import adapt, clone
from pruning_core.arch.cut import slice_
from pruning_core.arch.masks import Mask
from pruning_core.arch.structure import groups_of
from pruning_core.arch.verify import verify
from pruning_core.artifacts.bundle import write_checkpoint
from pruning_core.checks.heads import LOADED_BY
from pruning_core.errors import UnsupportedArchitecture
from pruning_core.files.checkpoint import read_checkpoint
from pruning_core.models.load import load_task_model
from pruning_core.spec.prune import ArtifactSpec
from pruning_core.spec.tasks import KINDS
from pruning_core.tasks.base import TaskModel
from pruning_core.tasks.registry import family_of
from tests.families import ARCHITECTURES, REFUSED, SUPPORTED
from tests.oracles import masked

every = pytest.mark.parametrize("architecture", SUPPORTED, ids=lambda own: own.name)


def some_units(groups, seed=0):
    generator = torch.Generator().manual_seed(seed)
    kept = []
    for group in groups:
        flags = torch.rand(group.size, generator=generator) > 0.5
        flags[torch.randint(group.size, (group.floor,), generator=generator)] = True
        kept.append(flags)
    kept[1][groups[1].floor :] = False  # an FFN that vanishes as far as it can
    for group, flags in zip(groups, kept, strict=True):
        flags[: group.least] = True if int(flags.sum()) < group.least else flags[: group.least]
    return Mask(tuple(kept))


def all_but(groups, left_out):
    """Keep the units of each group that a function of their numbers leaves in; all where more of them must stay."""
    kept = [torch.arange(group.size) for group in groups]
    return Mask(
        tuple(
            flags | True if int(flags.sum()) < group.least else flags
            for group, own in zip(groups, kept, strict=True)
            for flags in [~left_out(own)]
        )
    )


def run(model, architecture):
    with torch.no_grad():
        return model(**architecture.inputs())[0]


@every
def test_header_describes_the_same_units_as_the_modules(architecture, tmp_path):
    model = architecture.build()
    facts = read_checkpoint(architecture.write(tmp_path))
    assert groups_of(facts) == adapt(model).groups
    kept = {name: own for name, own in model.state_dict().items() if name not in (model._keys_to_ignore_on_save or ())}
    assert facts.parameters == sum({own.data_ptr(): own.numel() for own in kept.values()}.values())


@every
def test_halves_compute_what_the_model_computes(architecture):
    verify(adapt(architecture.build()), architecture.inputs())


@every
@pytest.mark.parametrize("seed", range(2))
def test_cutting_equals_masking(architecture, seed):
    model = architecture.build()
    adapter = adapt(model)
    mask, student = some_units(adapter.groups, seed), clone(model)
    slice_(student, mask)
    with masked(adapter, tuple(flags.float() for flags in mask.kept)):
        by_masks = run(model, architecture)
    torch.testing.assert_close(run(student, architecture), by_masks, rtol=1e-5, atol=1e-5)
    assert (run(model, architecture) - by_masks).abs().max() > 1e-3, "the mask must matter for this test to mean something"
    assert [group.size for group in adapt(student).groups] == mask.counts()


@every
@pytest.mark.parametrize("paged", [False, True])
def test_what_is_tied_is_stored_and_counted_once(architecture, paged, tmp_path):
    task = next(
        (task for task in ("text-generation", "summarization", "fill-mask") if _can(architecture, task)), architecture.task
    )
    model = architecture.write_for(task, tmp_path / "dense")
    scratch = tmp_path / "pages"
    scratch.mkdir()
    if paged and any(group.passed for group in adapt(architecture.build()).groups):
        with pytest.raises(UnsupportedArchitecture, match=r"use memory\.weights resident"):
            load_task_model(model, task, torch.device("cpu"), pages=scratch)
        return
    dense = load_task_model(model, task, torch.device("cpu"), pages=scratch if paged else None)
    assert dense.parameter_count() == read_checkpoint(model).parameters
    student = clone(dense.model)
    slice_(student, some_units(adapt(student).groups))
    out = tmp_path / "out"
    out.mkdir()
    write_checkpoint(out, dense, adapt(dense.model), student, ArtifactSpec(dtype="bfloat16"))
    assert read_checkpoint(out).parameters == dense.with_model(student).parameter_count()
    loaded = load_task_model(out, task, torch.device("cpu"))
    assert loaded.parameter_count() == read_checkpoint(out).parameters


def _can(architecture, task):
    return KINDS[task].loads_as in LOADED_BY.get(architecture.build_config().model_type, ())


@every
def test_a_cut_model_can_be_cut_again(architecture):
    model = architecture.build()
    adapter = adapt(model)
    once, twice = clone(model), clone(model)
    first = all_but(adapter.groups, lambda unit: unit % 4 == 1)
    slice_(once, first)
    second = all_but(adapt(once).groups, lambda unit: unit == 1)
    both = [flags.nonzero().flatten()[again] for flags, again in zip(first.kept, second.kept, strict=True)]
    slice_(once, second)
    slice_(twice, Mask(tuple(torch.isin(torch.arange(g.size), own) for g, own in zip(adapter.groups, both, strict=True))))
    torch.testing.assert_close(run(once, architecture), run(twice, architecture), rtol=1e-5, atol=1e-5)


def written(model, student, folder):
    """Write a cut model as a bundle has it; there are no files of the dense one to copy."""
    source = TaskModel(model, None, "text-classification", family_of("text-classification"), folder / "dense", "float32")
    write_checkpoint(folder, source, adapt(model), student, ArtifactSpec())
    return folder


@every
def test_files_with_widths_of_their_own_load_by_from_pretrained_and_answer_alike(architecture, tmp_path):
    model = architecture.build()
    student = clone(model)
    slice_(student, some_units(adapt(model).groups))
    auto = getattr(transformers, KINDS[architecture.task].loads_as)
    loaded = auto.from_pretrained(written(model, student, tmp_path))
    torch.testing.assert_close(run(loaded, architecture), run(student, architecture), rtol=1e-5, atol=1e-5)
    assert sum(p.numel() for p in loaded.parameters()) == sum(p.numel() for p in student.parameters())
    base = transformers.AutoModel.from_pretrained(tmp_path)  # a bundle of a task model loads as its bare base too
    assert [group.size for group in adapt(base).groups] == [group.size for group in adapt(student).groups]


@every
def test_a_class_that_is_used_by_name_answers_alike(architecture, tmp_path):
    model = architecture.build()
    student = clone(model)
    slice_(student, some_units(adapt(model).groups))
    loaded = type(model).from_pretrained(written(model, student, tmp_path))
    torch.testing.assert_close(run(loaded, architecture), run(student, architecture), rtol=1e-5, atol=1e-5)


_BY_NAME = """
import json, sys, transformers
sys.modules["pruning_core"] = None
for folder, name in json.loads(sys.argv[1]).items():
    try:
        getattr(transformers, name).from_pretrained(folder)
    except Exception as error:
        print("found", folder, type(error).__name__)
    else:
        print("found", folder, "loaded")
"""


@pytest.mark.slow
@pytest.mark.long
def test_without_coppice_a_class_that_is_used_by_name_refuses_the_widths(tmp_path):
    names = {}
    for architecture in SUPPORTED:
        model = architecture.build()
        student = clone(model)
        slice_(student, some_units(adapt(model).groups))
        folder = tmp_path / architecture.name
        folder.mkdir()
        names[str(written(model, student, folder))] = type(model).__name__
    command = [sys.executable, "-I", "-c", _BY_NAME, json.dumps(names)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = [line.split() for line in done.stdout.splitlines() if line.startswith("found ")]
    found = {Path(folder).name: error for _, folder, error in lines}
    # Their configurations have no one name for the FFN width of all layers: the sizes of the weights do not match.
    unsaid = {own.name for own in SUPPORTED if own.translates} | {"dinov2", "albert", "qwen2-moe", "qwen3-moe"}
    wanted = {own.name: "RuntimeError" if own.name in unsaid else "AmbiguousGlobalPerLayerAttributeError" for own in SUPPORTED}
    assert found == wanted


@pytest.mark.parametrize("architecture", [own for own in SUPPORTED if own.generates], ids=lambda own: own.name)
def test_a_cut_decoder_generates_with_its_cache_what_it_generates_without(architecture, tmp_path):
    model = architecture.build(head="generation")
    student = clone(model)
    mask = some_units(adapt(model).groups)
    slice_(student, mask)
    auto = transformers.AutoModelForSeq2SeqLM if architecture.translates else transformers.AutoModelForCausalLM
    loaded = auto.from_pretrained(written(model, student, tmp_path))
    ids = {"input_ids": torch.tensor([[7, 8, 9], [10, 11, 12]]), "attention_mask": torch.ones(2, 3, dtype=torch.long)}
    options = {"max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False}
    cached, alone = (loaded.generate(**ids, use_cache=flag, **options) for flag in (True, False))
    assert cached.tolist() == alone.tolist()
    with masked(adapt(model), tuple(flags.float() for flags in mask.kept)):
        assert model.generate(**ids, **options).tolist() == cached.tolist()


@pytest.mark.parametrize("architecture", REFUSED, ids=lambda own: own.name)
def test_what_cannot_be_pruned_is_refused_with_the_reason(architecture, tmp_path):
    with pytest.raises(UnsupportedArchitecture, match=architecture.refused):
        adapt(architecture.build())
    with pytest.raises(UnsupportedArchitecture, match=rf"{architecture.refused}.*are supported"):
        groups_of(read_checkpoint(architecture.write(tmp_path)))


def test_a_look_alike_that_computes_something_else_is_refused():
    architecture = ARCHITECTURES["modernbert"]
    model = architecture.build()
    mlp = model.model.layers[1].mlp
    forward = mlp.forward
    model.model.layers[1].mlp.forward = lambda hidden: forward(hidden) + hidden
    with pytest.raises(UnsupportedArchitecture, match="computes something else"):
        verify(adapt(model), architecture.inputs())


def test_units_that_are_laid_out_otherwise_are_refused():
    architecture = ARCHITECTURES["modernbert"]
    model = architecture.build()
    mlp = model.model.layers[1].mlp

    def by_twos(self, hidden):  # gate and up of a neuron side by side instead of one half after the other
        gate, up = self.Wi(hidden).unflatten(-1, (-1, 2)).unbind(-1)
        return self.Wo(self.act(gate) * up)

    mlp.forward = MethodType(by_twos, mlp)
    with pytest.raises(UnsupportedArchitecture, match="computes something else"):
        verify(adapt(model), architecture.inputs())
