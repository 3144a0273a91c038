"""A check that torch works on the device of the settings. It loads torch, so it is a process of its own.

``python -m worker.probe [DEVICE]``
"""

from __future__ import annotations

import sys

from pydantic import BaseModel


class TorchProbe(BaseModel):
    """The findings, printed as one line of JSON."""

    torch: str
    device: str = ""
    name: str = ""
    memory_free_bytes: int | None = None
    memory_bytes: int | None = None
    error: str = ""


def main(arguments: list[str]) -> None:
    """Multiply once on the device, and print the findings."""
    import torch

    from pruning_core.errors import PruningError
    from pruning_core.machine.environment import choose_device

    found = TorchProbe(torch=torch.__version__)
    try:
        device = choose_device(arguments[0] if arguments else None)
        found.device = str(device)
        ones = torch.ones(64, 64, device=device)
        assert float((ones @ ones).sum()) == 64**3, "a product came out wrong"
        if device.type == "cuda":
            found.name = torch.cuda.get_device_name(device)
            found.memory_free_bytes, found.memory_bytes = torch.cuda.mem_get_info(device)
    except (PruningError, RuntimeError, AssertionError) as error:
        found.error = str(error).splitlines()[0]
    sys.stdout.write(found.model_dump_json() + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
