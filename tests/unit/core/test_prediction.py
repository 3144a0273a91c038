"""What is told of a job before it runs grows with what it does."""

from __future__ import annotations

from pruning_core.prediction import predict
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
