# syntax=docker/dockerfile:1
# Images: `api` (no torch), `worker` (torch for CPUs), `worker-gpu` (torch with CUDA); `flower` to watch Celery.
#   docker build --target api -t coppice-api .
#   docker build --target worker --build-arg TORCH_INDEX=URL -t coppice-worker .     # URL: the index of the torch build to take

ARG PYTHON_VERSION=3.13
FROM python:${PYTHON_VERSION}-slim-bookworm AS base
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
COPY pyproject.toml constraints.txt README.md ./
COPY deploy/server deploy/server
# Dependencies first, with empty packages, so that a change of code does not install them again.
RUN mkdir app coppice migrations pruning_core worker

FROM build AS build-api
RUN pip install --constraint constraints.txt . './deploy/server[redis,postgres,s3]' \
    && pip uninstall --yes coppice-prune coppice-server
COPY app app
COPY coppice coppice
COPY migrations migrations
COPY pruning_core pruning_core
COPY worker worker
RUN pip install --no-deps . ./deploy/server

FROM build AS build-worker
# Empty: the default index. Its wheels may carry CUDA; name the index of PyTorch's CPU builds for a smaller image.
ARG TORCH_INDEX=
RUN pip install --constraint constraints.txt ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch
RUN pip install --constraint constraints.txt . './deploy/server[worker,redis,postgres,s3]' \
    && pip uninstall --yes coppice-prune coppice-server
COPY app app
COPY coppice coppice
COPY migrations migrations
COPY pruning_core pruning_core
COPY worker worker
RUN pip install --no-deps . ./deploy/server

FROM build AS build-worker-gpu
# Empty: the default index; another one chooses another CUDA version.
ARG TORCH_INDEX=
RUN pip install --constraint constraints.txt ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch
RUN pip install --constraint constraints.txt . './deploy/server[worker,redis,postgres,s3]' \
    && pip uninstall --yes coppice-prune coppice-server
COPY app app
COPY coppice coppice
COPY migrations migrations
COPY pruning_core pruning_core
COPY worker worker
RUN pip install --no-deps . ./deploy/server

# A monitor of Celery has no code of ours.
FROM build AS build-flower
RUN pip install --constraint constraints.txt celery flower redis

FROM base AS runtime
ENV COPPICE_DATA_DIR=/data
WORKDIR /data
USER coppice

FROM runtime AS worker
COPY --from=build-worker /opt/venv /opt/venv
ENV HF_HOME=/data/huggingface
CMD ["coppice", "worker"]

FROM runtime AS worker-gpu
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
