"""See README.md."""

from tiny import classifier, jsonl, rename_weights

jsonl()
classifier()
rename_weights(lambda name: f"_orig_mod.module.{name}")
