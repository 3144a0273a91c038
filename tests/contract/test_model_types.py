"""Of all types of models that transformers has, each is pruned rightly or refused by its files alone, and none crashes."""

from __future__ import annotations

import pytest

from tests.model_types import fate, pairs

# A few of each fate on every run; all of them by `make test-matrix`.
QUICK = {"bert", "mbart", "diffllama", "bart", "deberta", "openai-gpt", "olmo2", "swin"}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("model_type", "loaded"),
    [pytest.param(*pair, id=" ".join(pair), marks=() if pair[0] in QUICK else pytest.mark.matrix) for pair in sorted(pairs())],
)
def test_a_type_of_model_works_or_is_refused_by_its_files(model_type, loaded, tmp_path):
    found = fate(model_type, loaded, tmp_path)
    if found.startswith("not made"):
        pytest.skip(found)
