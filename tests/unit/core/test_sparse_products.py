"""Sparse products with torch's own kernels: what fits, what is refused, what the report says, and models that run them."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F  # noqa: N812
from transformers import AutoModelForSequenceClassification

from pruning_core.errors import PruningError
from pruning_core.evidence.context import generator
from pruning_core.measure import sparse_products
from pruning_core.measure.sparse_products import FormRefused, block_side, is_two_of_four, measure_products, run_sparse_, to_form
from pruning_core.report.products import FormReport, ProductGroup
from pruning_core.report.report import Report
from pruning_core.run.pipeline import run
from tests import tiny
from tests.guides import block

pytestmark = pytest.mark.filterwarnings("ignore:Sparse:UserWarning")


def random(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def in_blocks(d, k, side, every):
    """Weights of which one square block in so many stays."""
    kept = (torch.arange(d // side * (k // side)) % every == 0).view(d // side, k // side)
    return random(d, k) * kept.repeat_interleave(side, 0).repeat_interleave(side, 1)


def scattered(d, k, every):
    return random(d, k) * (torch.arange(d * k) % every == 0).view(d, k)


@pytest.mark.parametrize(("weight", "form"), [(scattered(48, 40, 5), "csr"), (in_blocks(64, 96, 32, 5), "bsr")])
def test_a_sparse_product_is_the_dense_one(weight, form):
    sparse, side = to_form(weight, form)
    assert side == (32 if form == "bsr" else None)
    inputs, bias = random(3, 7, weight.shape[1]), random(weight.shape[0])
    torch.testing.assert_close(F.linear(inputs, sparse, bias), F.linear(inputs, weight, bias))


def test_rows_come_out_as_rows_whatever_goes_in():
    """Compressed rows give columns, which the next sparse product would be slow on."""
    weight, inputs = scattered(48, 40, 5), random(2, 40, 7).transpose(1, 2)
    found = sparse_products.product(inputs, to_form(weight, "csr")[0], None)
    assert found.is_contiguous()
    torch.testing.assert_close(found, F.linear(inputs, weight))


@pytest.mark.parametrize(
    ("weight", "side"),
    [
        (in_blocks(128, 128, 64, 4), 64),
        (in_blocks(128, 128, 16, 5), 16),
        (scattered(128, 128, 5), None),
        (in_blocks(60, 60, 20, 4), None),
        (random(64, 64), None),
    ],
)
def test_blocks_are_used_where_they_divide_the_matrix_and_are_zero_often_enough(weight, side):
    assert block_side(weight) == side


def test_two_of_four_is_told_from_the_weights():
    weight = random(4, 16) * (torch.arange(16) % 4 < 2)
    assert is_two_of_four(weight)
    assert not is_two_of_four(weight.roll(1, 1) + weight)
    assert not is_two_of_four(weight[:, :14])


@pytest.mark.parametrize(
    ("weight", "form", "says"),
    [
        (random(16, 16), "csr", "more than 50% of the weights are not zero"),
        (scattered(60, 60, 9), "bsr", "no square blocks"),
        (random(32, 64) * (torch.arange(64) % 4 < 2), "2:4", "compute capability 8.0"),
    ],
)
def test_forms_that_do_not_fit_are_refused_with_the_reason(weight, form, says):
    with pytest.raises(FormRefused, match=says):
        to_form(weight, form)


def test_a_product_that_is_not_the_dense_one_is_refused(monkeypatch):
    """A kernel that loses weights is caught, whatever its speed."""
    weight = scattered(32, 32, 4)
    monkeypatch.setattr(sparse_products, "to_form", lambda own, _form: ((own * (own > 0)).to_sparse_csr(), None))
    with pytest.raises(FormRefused, match="differs from the dense one by"):
        sparse_products.proven_form(weight, None, random(8, 32), "csr")


@pytest.mark.skipif(
    not (torch.cuda.is_available() and torch.version.hip is None and torch.cuda.get_device_capability() >= (8, 0)),
    reason="2:4 products need an NVIDIA GPU of compute capability 8.0 or later; there is none here",
)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_two_of_four_products_on_a_gpu(dtype):
    weight = (random(128, 128) * (torch.arange(128) % 4 < 2)).to("cuda", dtype)
    sparse_products.proven_form(weight, None, random(8, 128).to(weight), "2:4")


@pytest.fixture(scope="module")
def bundle(tiny_bert, tiny_sst2, tmp_path_factory):
    """A bundle with nine tenths of the weights zero, anywhere."""
    out = tmp_path_factory.mktemp("sparse") / "bundle"
    method = {"name": "admm-pattern", "pattern": "unstructured"}
    target = {"metric": "sparsity", "sparsity": 0.9}
    return out, run(tiny.tiny_spec(tiny_bert, tiny_sst2, method=method, target=target), out, device="cpu")


def with_fastest(report, form):
    """The report as it would be had one form been fastest everywhere, or the dense product."""
    products = report.pattern.products
    groups = tuple(group.model_copy(update={"fastest": form, "forms": of_form(group, form)}) for group in products.groups)
    return with_groups(report, groups)


def of_form(group, form):
    return group.forms if form == "dense" else (FormReport(form=form, ms=group.dense / 2),)


def with_groups(report, groups):
    products = report.pattern.products.model_copy(update={"groups": groups})
    return report.model_copy(update={"pattern": report.pattern.model_copy(update={"products": products})})


def load(out, **options):
    return AutoModelForSequenceClassification.from_pretrained(out, dtype="float32", **options).eval()


@pytest.mark.long
def test_every_matrix_is_in_the_report_with_both_times(bundle):
    out, report = bundle
    products = report.pattern.products
    named = [name for group in products.groups for name in group.matrices]
    assert sorted(named) == sorted(matrix.name for matrix in report.pattern.matrices)
    latency = report.latency_ms
    assert (products.device, products.dtype, products.batch, products.length) == (
        "cpu",
        "float32",
        latency.batch,
        latency.length,
    )
    for group in products.groups:
        assert group.dense > 0
        forms = {form.form: form for form in group.forms}
        assert forms["csr"].ms > 0
        assert forms["2:4"].refused
        assert forms["bsr"].refused
        assert (group.fastest == "csr") == (forms["csr"].ms < 0.95 * group.dense)
    assert products.said in report.warnings
    assert products.said in (out / "README.md").read_text()


def test_reports_of_before_still_parse(bundle):
    _, report = bundle
    old = report.model_dump(mode="json")
    del old["pattern"]["products"]
    read = Report.model_validate(old)
    assert read.pattern.products is None
    assert run_sparse_(torch.nn.Module(), read).said == "nothing changed: the report has no measured sparse products"


def test_the_sentence_says_what_was_measured(bundle):
    _, report = bundle
    group = ProductGroup(outputs=4, inputs=4, matrices=("a", "b"), nonzeros=0.1, dense=2.0, forms=(), fastest="dense")
    slow, fast = FormReport(form="csr", ms=5.0), FormReport(form="csr", ms=1.0)
    refused = FormReport(form="bsr", refused="no blocks")

    def said(*groups):
        return with_groups(report, groups).pattern.products.said

    assert said(group).startswith(
        "all matrices run dense: no sparse form of torch fits them on cpu (batch 2, length 16, 1 thread"
    )
    assert "the best sparse product (csr) is 0.40x as fast" in said(group.model_copy(update={"forms": (slow, refused)}))
    mixed = said(group, group.model_copy(update={"forms": (fast,), "fastest": "csr"}))
    assert mixed.startswith("2 of 4 matrices multiply faster in sparse form (csr) on cpu")
    assert "1.33x as fast" in mixed


def test_a_model_runs_sparse_where_the_report_says_so_and_gives_the_same(bundle):
    out, report = bundle
    dense, model = load(out), load(out)
    forced = with_fastest(report, "csr")
    first, *others = forced.pattern.products.groups
    forced = with_groups(forced, (first, *(own.model_copy(update={"fastest": "dense"}) for own in others)))
    applied = run_sparse_(model, forced)
    assert set(applied.forms) == set(first.matrices)
    assert applied.said == f"{len(first.matrices)} of {len(report.pattern.matrices)} matrices run sparse, as measured on cpu"
    sparse = {name.removesuffix(".weight") for name, own in model.named_parameters() if own.layout == torch.sparse_csr}
    assert sparse == set(first.matrices)
    inputs = {"input_ids": torch.randint(5, 40, (3, 12), generator=torch.Generator().manual_seed(0))}
    for inference in (True, False):
        with torch.inference_mode(inference):
            torch.testing.assert_close(model(**inputs).logits, dense(**inputs).logits, atol=1e-5, rtol=1e-4)


def test_where_nothing_is_faster_nothing_changes(bundle):
    out, report = bundle
    model = load(out)
    applied = run_sparse_(model, with_fastest(report, "dense"))
    assert not applied.forms
    assert applied.said.startswith("nothing changed: all matrices run dense")
    assert all(own.layout == torch.strided for own in model.parameters())


def test_what_does_not_fit_after_all_stays_dense_and_is_named(bundle):
    out, report = bundle
    model = load(out)
    applied = run_sparse_(model, with_fastest(report, "bsr"))
    assert not applied.forms
    assert "left dense: " in applied.said
    assert all(own.layout == torch.strided for own in model.parameters())


def test_another_type_or_another_model_is_no_match(bundle, tmp_path):
    out, report = bundle
    forced = with_fastest(report, "csr")
    applied = run_sparse_(load(out).half(), forced)
    assert "measured on cpu in float32, and this model runs on cpu in float16" in applied.said
    with pytest.raises(PruningError, match="this is not the report's model: it has no matrix bert"):
        run_sparse_(tiny.build_model("roberta"), forced)


def test_matrices_stored_input_major_are_measured_and_run(tmp_path, bundle):
    """GPT-2's."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(n_embd=32, n_layer=1, n_head=2, n_positions=32, vocab_size=64, bos_token_id=0, eos_token_id=0)
    model = GPT2LMHeadModel(config).eval()
    for name, own in model.named_parameters():
        if name.endswith("weight") and ".h." in name and own.dim() == 2:
            own.data.mul_((torch.arange(own.numel()) % 7 == 0).view_as(own))
    latency = bundle[1].latency_ms
    products = measure_products(model, latency, "float32", generator(0, "products"))
    report = bundle[1].model_copy(update={"pattern": bundle[1].pattern.model_copy(update={"products": products})})
    tokens = {"input_ids": torch.arange(12).view(1, 12)}
    with torch.inference_mode():
        before = model(**tokens).logits
    applied = run_sparse_(model, with_fastest(report, "csr"))
    with torch.inference_mode():
        torch.testing.assert_close(model(**tokens).logits, before, atol=1e-5, rtol=1e-4)
    assert len(applied.forms) == sum(len(group.matrices) for group in products.groups) > 0


@pytest.mark.parametrize("guide", ["patterns.md", "blocks.md"])
def test_the_snippet_of_the_guides_runs(guide, bundle, monkeypatch, capsys):
    out, report = bundle
    monkeypatch.chdir(out.parent)
    exec(compile(block(guide, "python", "sparse"), guide, "exec"), {})
    products = report.pattern.products
    assert capsys.readouterr().out.startswith(f"{products.sparse} of" if products.sparse else "nothing changed")
