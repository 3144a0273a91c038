"""The environment of a job's process, by an allow-list: no setting of the service is in it, and no secret."""

from __future__ import annotations

import os
from pathlib import Path

_NAMES = frozenset(
    {"PATH", "LANG", "LANGUAGE", "TZ", "PYTHONPATH", "LD_LIBRARY_PATH", "LD_PRELOAD", "ONEDNN_PRIMITIVE_CACHE_CAPACITY"}
)
# Threads, kernels and devices of the numerical libraries.
_FAMILIES = (
    "ATEN_",
    "CUBLAS_",
    "CUDA_",
    "CUDNN_",
    "DNNL_",
    "GOMP_",
    "GPU_",
    "HIP_",
    "HSA_",
    "KMP_",
    "LC_",
    "MALLOC_",
    "MKL_",
    "NUMEXPR_",
    "NVIDIA_",
    "OMP_",
    "ONEDNN_",
    "OPENBLAS_",
    "PYTORCH_",
    "ROCR_",
    "TORCH_",
)
# How a machine reaches the Hub, for the process that fetches from it.
_NETWORK = frozenset(
    {
        "HF_ENDPOINT",
        "HF_HUB_OFFLINE",
        "HF_HUB_DOWNLOAD_TIMEOUT",
        "HF_HUB_ETAG_TIMEOUT",
        "REQUESTS_CA_BUNDLE",
        "CURL_CA_BUNDLE",
        "SSL_CERT_DIR",
        "SSL_CERT_FILE",
        *(name for plain in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY") for name in (plain, plain.lower())),
    }
)


def environment_for(temporary: Path, *, network: bool = False) -> dict[str, str]:
    """Return the environment of a job's process.

    Args:
        temporary: Its folder for temporary files, which is its home, too.
        network: Whether it fetches from the Hub.
    """
    kept = {name: value for name, value in os.environ.items() if _is_kept(name) or (network and name in _NETWORK)}
    return kept | _places(temporary)


def _is_kept(name: str) -> bool:
    return name in _NAMES or name.startswith(_FAMILIES)


def _places(temporary: Path) -> dict[str, str]:
    """Name what libraries look up in the user's home, or in the list of users, which the process may not read."""
    home = str(temporary)
    return {
        "HOME": home,
        "USER": "coppice",
        "LOGNAME": "coppice",
        "TMPDIR": home,
        "XDG_CACHE_HOME": f"{home}/cache",
        "XDG_CONFIG_HOME": f"{home}/config",
        "MPLCONFIGDIR": f"{home}/matplotlib",
        "HF_HOME": f"{home}/huggingface",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "DO_NOT_TRACK": "1",
        "JOBLIB_MULTIPROCESSING": "0",  # its locks would stand in memory that all processes of the host share
        "PYTHONDONTWRITEBYTECODE": "1",
    }
