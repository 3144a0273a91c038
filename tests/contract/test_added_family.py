"""A family is one signature: DistilBERT's, which is taken out of the table, and added again here.

The guide `docs/guides/add-a-family.md` shows what stands between the marks.
"""

from __future__ import annotations

import pytest

from pruning_core.arch import adapter, families, structure
from pruning_core.arch.signatures import BlockSignature, SublayerSignature, UnitRows, qkv
from pruning_core.checks.request import check_local_inputs
from pruning_core.errors import PruningError
from pruning_core.run.pipeline import run
from pruning_core.support import capabilities
from tests import tiny

pytestmark = pytest.mark.usefixtures("proven_by_a_fork")

# --- the signature ------------------------------------------------------------------------------------------------------

ATTENTION = SublayerSignature(
    kind="head",
    module="attention",  # knows the size of a head
    inputs=qkv("attention.q_lin", "attention.k_lin", "attention.v_lin"),  # their rows belong to heads
    output="attention.out_lin",  # its columns do
    after="sa_layer_norm",  # the norm of the residual sum
)
FFN = SublayerSignature(
    kind="neuron",
    inputs=(UnitRows("ffn.lin1"),),
    activation="ffn.activation",
    output="ffn.lin2",
    after="output_layer_norm",
)
DISTILBERT = BlockSignature(family="distilbert", plain=True, sublayers=(ATTENTION, FFN))

# --- the tests ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def model(tmp_path):
    return tiny.write_model(tmp_path / "model", "distilbert")


def with_signatures(monkeypatch, signatures):
    for module in (adapter, structure, capabilities):
        monkeypatch.setattr(module, "SIGNATURES", signatures)


OTHERS = tuple(own for own in families.SIGNATURES if own.family != "distilbert")


def test_without_its_signature_it_is_refused_by_name(monkeypatch, model, tiny_sst2):
    with_signatures(monkeypatch, OTHERS)
    with pytest.raises(PruningError, match=r"(?i)distilbert"):
        check_local_inputs(tiny.tiny_spec(model, tiny_sst2))


def test_with_it_a_job_runs_from_the_request_to_the_proof(monkeypatch, model, tiny_sst2, tmp_path):
    with_signatures(monkeypatch, (*OTHERS, DISTILBERT))
    spec = tiny.tiny_spec(model, tiny_sst2)
    check_local_inputs(spec)
    report = run(spec, tmp_path / "out", device="cpu")
    assert report.target.met
    assert report.acceptance is not None
    assert report.acceptance.max_difference <= 1e-4
