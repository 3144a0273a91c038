"""What the matrix refuses is refused by files alone, and by the job in the same words."""

from __future__ import annotations

import pytest

from pruning_core.arch.adapter import adapt
from pruning_core.arch.alike import Build, check_alike
from pruning_core.arch.structure import groups_of, structure_of
from pruning_core.artifacts.stock import check_stock
from pruning_core.checks.heads import LOADED_BY, NOT_DONE
from pruning_core.errors import PruningError
from pruning_core.files.checkpoint import read_checkpoint
from pruning_core.spec.tasks import KINDS
from tests.families import SUPPORTED


def said_by(check):
    try:
        check()
    except PruningError as error:
        return error.message
    return None


@pytest.mark.parametrize("architecture", SUPPORTED, ids=lambda own: own.name)
def test_files_and_modules_say_the_same_of_the_stock_layout(architecture, tmp_path):
    model = architecture.build()
    facts = read_checkpoint(architecture.write(tmp_path))
    build = Build.of_files(facts.config, facts.shapes, structure_of(facts), groups_of(facts))
    for cuts in (True, False):
        by_modules = said_by(lambda cuts=cuts: check_stock(adapt(model), cuts=cuts))
        assert said_by(lambda cuts=cuts: check_alike(build, cuts=cuts)) == by_modules


def test_the_list_of_heads_is_that_of_transformers_but_for_what_is_said():
    from transformers.models.auto import modeling_auto

    names = {
        "AutoModelForSequenceClassification": modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
        "AutoModelForTokenClassification": modeling_auto.MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES,
        "AutoModelForQuestionAnswering": modeling_auto.MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES,
        "AutoModelForMaskedLM": modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES,
        "AutoModelForCausalLM": modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        "AutoModelForSeq2SeqLM": modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
        "AutoModelForImageClassification": modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,
        "AutoModel": modeling_auto.MODEL_MAPPING_NAMES,
    }
    assert {kind.loads_as for kind in KINDS.values()} == set(names)
    for model_type, listed in LOADED_BY.items():
        theirs = {name for name, types in names.items() if model_type in types}
        ours = {loaded for own, loaded in NOT_DONE if own == model_type}
        assert listed == theirs - ours, model_type
