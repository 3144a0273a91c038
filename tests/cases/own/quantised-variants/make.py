"""See README.md."""

import shutil
from pathlib import Path

from tiny import configure, decoder, jsonl

jsonl()
decoder(Path("work/base"))
for method in ("fp8", "hqq", "quanto", "aqlm"):
    configure(shutil.copytree("work/base", Path("work") / method), quantization_config={"quant_method": method})
