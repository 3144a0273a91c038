#!/usr/bin/env bash
# A device with little room: the best model whose weight files fit, widths and storage types chosen together.
#   byte_budget.sh MODEL DATA BUDGET OUT      DATA: rows with "name", "docstring" and "score"; BUDGET: such as 20MB
set -euo pipefail
model=$1 data=$2 budget=$3 out=$4

coppice run --model "$model" --task sentence-similarity --data "$data" --text name --text docstring --label score \
  --bytes-at-most "$budget" --out "$out"

python - "$out" <<'PYTHON'
import sys
from pathlib import Path

held = sum(path.stat().st_size for path in Path(sys.argv[1]).glob("*.safetensors"))
print(f"{held:,} bytes of weight files")
PYTHON
