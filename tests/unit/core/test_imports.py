"""What importing the core costs, and what it can do without."""

import subprocess
import sys

import pytest

_WITHOUT = """
import sys
sys.modules.update(dict.fromkeys({absent!r}))  # None there: as if not installed
import pruning_core.run.pipeline
print("imported")
"""
_OURS_AND_OPTIONAL = {
    *("app", "worker", "coppice", "migrations"),
    *("jaxtyping", "pyarrow", "datasets", "fastapi", "sqlalchemy", "celery", "structlog", "tenacity"),
}


def _python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.long
def test_the_pipeline_imports_with_torch_and_transformers_alone():
    done = _python(_WITHOUT.format(absent=_OURS_AND_OPTIONAL))
    assert done.stdout.strip() == "imported", done.stderr[-2000:]


def test_metrics_and_readers_are_loaded_only_when_used():
    done = _python(
        "import sys, pruning_core.measure.quality, pruning_core.data.read;"
        " print('pyarrow' in sys.modules, 'datasets' in sys.modules)"
    )
    assert done.stdout.split() == ["False", "False"], done.stderr[-2000:]


def test_spec_report_errors_and_inputs_load_no_torch():
    code = (
        "import sys, pruning_core.spec.prune, pruning_core.report.report, pruning_core.errors, pruning_core.checks.request;"
        "print([m for m in ('torch', 'transformers', 'numpy') if m in sys.modules])"
    )
    assert _python(code).stdout.strip() == "[]"
