"""See README.md."""

from tiny import classifier, configure, jsonl

classifier()
configure(problem_type="multi_label_classification")
jsonl()
