# One image for every component. For GPUs: --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu126
ARG BASE_IMAGE=python:3.11-slim-bookworm
FROM ${BASE_IMAGE}

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG VERSION=0.1.0
# the commit that is built; decisions name it
ARG COMMIT=""
LABEL org.opencontainers.image.title="beear-gate" \
      org.opencontainers.image.description="A release gate that removes safety backdoors from instruction-tuned LLMs" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${COMMIT}" \
      org.opencontainers.image.licenses="Apache-2.0"

WORKDIR /opt/beear
# a layer of its own: the dependencies change less often than the code
COPY requirements.lock ./
RUN python3 -m pip install --no-cache-dir --extra-index-url "${TORCH_INDEX}" -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY beear_core ./beear_core
COPY components ./components
COPY pipelines ./pipelines
# built with the locked hatchling, so nothing else is fetched
RUN python3 -m pip install --no-cache-dir --no-deps --no-build-isolation .

# Any uid of group 0 can run it; everything that is written goes below /tmp.
ENV BEEAR_COMMIT=${COMMIT} \
    HOME=/tmp \
    XDG_CACHE_HOME=/tmp/cache \
    XDG_CONFIG_HOME=/tmp/config \
    XDG_DATA_HOME=/tmp/data \
    HF_HOME=/tmp/huggingface \
    HF_HUB_OFFLINE=1 \
    MLFLOW_DISABLE_TELEMETRY=true \
    PYTHONUNBUFFERED=1
USER 1001:0
WORKDIR /tmp
