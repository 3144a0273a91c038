# syntax=docker/dockerfile:1
# Images: `api` (no torch), `worker` (torch for CPUs), `worker-gpu` (torch with CUDA); `flower` to watch Celery.
#   docker build --target api -t coppice-api .
#   docker build --target worker --build-arg TORCH_INDEX=URL -t coppice-worker .     # URL: the index of PyTorch's CPU builds
# What is installed is locked, and every file's hash known before: deploy/requirements, by `make lock`. A release names the base
# image by its digest (.github/workflows/release.yml): --build-arg PYTHON_IMAGE=python@sha256:...

ARG PYTHON_VERSION=3.13
ARG PYTHON_IMAGE=python:${PYTHON_VERSION}-slim-bookworm
FROM ${PYTHON_IMAGE} AS base
ENV PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PATH=/opt/venv/bin:$PATH
# The folders exist with their owner before volumes are mounted there: a new named volume takes both over.
RUN useradd --uid 10001 --no-create-home --home-dir /data --shell /usr/sbin/nologin coppice \
    && install --directory --owner=coppice --group=coppice /data /data/artifacts /data/scratch /data/huggingface

FROM base AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
RUN python -m venv /opt/venv
# Dependencies first, so that a change of code does not install them again.
COPY deploy/requirements deploy/requirements

# What builds our own two distributions: from wheels whose hashes are known, too.
FROM build AS build-dists
COPY pyproject.toml README.md CHANGELOG.md ./
COPY deploy/server deploy/server
COPY app app
COPY coppice coppice
COPY migrations migrations
COPY pruning_core pruning_core
COPY worker worker
RUN pip install --no-deps --require-hashes --requirement deploy/requirements/build.txt \
    && pip wheel --no-build-isolation --no-deps --wheel-dir /dists . ./deploy/server

FROM build AS build-api
RUN pip install --no-deps --require-hashes --requirement deploy/requirements/api.txt && pip check
RUN --mount=from=build-dists,source=/dists,target=/dists pip install --no-deps --no-index /dists/*.whl

FROM build AS build-worker
# Empty: torch of the default index, whose wheels may carry CUDA. Name the index of PyTorch's CPU builds for a smaller image.
ARG TORCH_INDEX=
RUN if [ -n "$TORCH_INDEX" ]; then \
        pip install --extra-index-url "$TORCH_INDEX" --no-deps --require-hashes --requirement deploy/requirements/worker-cpu.txt; \
    else pip install --no-deps --require-hashes --requirement deploy/requirements/worker.txt; fi \
    && pip check
RUN --mount=from=build-dists,source=/dists,target=/dists pip install --no-deps --no-index /dists/*.whl

FROM build AS build-worker-gpu
RUN pip install --no-deps --require-hashes --requirement deploy/requirements/worker.txt && pip check
RUN --mount=from=build-dists,source=/dists,target=/dists pip install --no-deps --no-index /dists/*.whl

# A monitor of Celery has no code of ours.
FROM build AS build-flower
RUN pip install --no-deps --require-hashes --requirement deploy/requirements/flower.txt && pip check

FROM base AS runtime
ENV COPPICE_DATA_DIR=/data
WORKDIR /data
USER coppice

# Jobs' processes are confined by bubblewrap where the host lets containers make namespaces, else by Landlock (docs/guides/security.md).
FROM base AS runtime-worker
RUN apt-get update && apt-get install --yes --no-install-recommends bubblewrap && rm -rf /var/lib/apt/lists/*
ENV COPPICE_DATA_DIR=/data
WORKDIR /data
USER coppice

FROM runtime-worker AS worker
COPY --from=build-worker /opt/venv /opt/venv
ENV HF_HOME=/data/huggingface
CMD ["coppice", "worker"]

FROM runtime-worker AS worker-gpu
COPY --from=build-worker-gpu /opt/venv /opt/venv
ENV HF_HOME=/data/huggingface
CMD ["coppice", "worker"]

FROM runtime AS flower
COPY --from=build-flower /opt/venv /opt/venv

# The last stage is what `docker build .` makes.
FROM runtime AS api
COPY --from=build-api /opt/venv /opt/venv
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/readyz', timeout=4)"]
CMD ["coppice", "api", "--host", "0.0.0.0", "--port", "8000"]
