#!/usr/bin/env bash
# An encoder for a pipeline: half of its work, shipped only if its quality holds, loaded by plain transformers.
#   encoder.sh MODEL DATA OUT      MODEL: a classifier; DATA: rows with "sentence" and "label"
set -euo pipefail
model=$1 data=$2 out=$3
request=(--model "$model" --task text-classification --data "$data" --text sentence --label label --macs-keep 0.5 --layout stock)

# From the files alone, in seconds: would the job be accepted, and what would it bring?
coppice check "${request[@]}"

# With the floor, a bundle that keeps less than 97 % of the accuracy is a failed job, and exit code 1 stops the pipeline.
coppice run "${request[@]}" --quality-floor "${FLOOR:-0.97}" --out "$out"

# No import of Coppice: layout stock is what any pipeline loads.
python - "$out" <<'PYTHON'
import sys
from transformers import pipeline

classify = pipeline("text-classification", model=sys.argv[1])
print(classify("a good and moving film"))
PYTHON
