"""What is told of a job before it runs grows with what it does."""

from __future__ import annotations

from pruning_core.checks.prediction import predict
from tests import tiny


def seconds(model, data, **method):
    found = predict(tiny.tiny_spec(model, data, target=None, method={"name": "admm-pattern"} | method))
    assert found is not None
    return found.seconds


def test_training_and_iterations_are_in_the_time(tmp_path, tiny_sst2):
    wide = {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 4}
    model = tiny.write_model(tmp_path / "model", "bert", **wide)
    once = seconds(model, tiny_sst2)
    assert seconds(model, tiny_sst2, iterations=1000) > once
    trained = seconds(model, tiny_sst2, tier="trained")
    assert trained > 1.5 * once
    longer = seconds(model, tiny_sst2, tier="trained", training={"epochs": 20})
    fewer = seconds(model, tiny_sst2, tier="trained", training={"epochs": 20, "max_train_rows": 100})
    assert fewer < trained < longer


def test_paged_weights_are_not_counted_in_the_memory(tmp_path, tiny_sst2):
    model = tiny.write_model(tmp_path / "model", "bert", hidden_size=64, intermediate_size=512, num_hidden_layers=8)
    whole, paged = (predict(tiny.tiny_spec(model, tiny_sst2, memory={"weights": weights})) for weights in ("auto", "paged"))
    assert whole is not None
    assert paged is not None
    assert whole.memory_bytes - paged.memory_bytes > 3 * 4 * 6 * (4 * 64 * 64 + 2 * 64 * 512)
