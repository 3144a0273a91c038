"""Exit codes, checks and targets on the command line: each is said, and each that there is can be given."""

from __future__ import annotations

import dataclasses
from typing import get_args

from coppice.commands.checks import ADVICE, Look
from coppice.commands.options import JobOptions
from coppice.console import EXIT_CODES, ExitCode
from pruning_core.spec.method import METHODS
from pruning_core.spec.targets import TARGET_METRICS


def test_the_help_tells_every_exit_code() -> None:
    assert EXIT_CODES == (
        "Exit codes: 0 success, 1 the job failed or was cancelled, 2 bad input or a refused request, 3 the service cannot be "
        "reached, 4 a condition of --fail-if holds, 70 a fault of Coppice's own."
    )
    assert all(f"{code:d} {code.meaning}" in EXIT_CODES for code in ExitCode)


def test_every_look_of_the_doctor_has_advice() -> None:
    assert set(ADVICE) == set(get_args(Look))
    assert all(ADVICE.values())


def test_every_metric_of_a_target_has_its_option() -> None:
    options = {field.name.removesuffix("_keep").removesuffix("_at_most") for field in dataclasses.fields(JobOptions)}
    assert set(TARGET_METRICS) <= options


def test_an_option_of_one_method_means_that_one() -> None:
    for option, value, method in (
        ("pattern", "2:4", "admm-pattern"),
        ("tier", "one-shot", "admm-pattern"),
        ("block", "8x8", "block-lasso"),
        ("segment", "row", "block-lasso"),
        ("preset", "paper", "fisher-cg"),
        ("drop_attention", True, "fisher-cg"),
    ):
        engines = {"engines": ["vllm"], "layout": "serve"} if option == "drop_attention" else {}
        given = {"pattern": "2:4"} if option == "tier" else {}
        sparsity = [0.5] if method in ("block-lasso", "fisher-cg") else None
        spec = JobOptions(
            model="org/name", task="glue/sst2", sparsity=sparsity, **given, **engines, **{option: value}
        ).to_spec()
        assert spec.method.name == method
        assert method in METHODS
