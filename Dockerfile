# Two images. `slim` takes models over, validates data, runs the gate, MLflow's server and the schedule; `full`, the
# default, has torch besides, to clean and to measure. Of both, the layers of what they share are the same.
#   docker build --target slim -t beear-gate:0.1.0-slim . && docker build -t beear-gate:0.1.0 .
# Every package is locked by its hashes. For GPUs: --build-arg TORCH_INDEX= takes PyPI's torch with CUDA, not the CPU build.
# Where a mirror is to be asked: --secret id=pip.conf,src=FILE, which stays out of the image.
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS base
# the root file system is read-only later: whatever is not compiled now is compiled anew by each process
RUN python3 -m compileall -q -j 0 -x '/(tests?|lib2to3|site-packages|dist-packages)/' \
      "$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')"

FROM base AS tools
WORKDIR /opt/beear
COPY locks/build.lock locks/
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf --mount=type=cache,target=/root/.cache/pip \
    python3 -m venv /opt/tools && python3 -m venv --without-pip venv \
 && /opt/tools/bin/pip install --no-deps --require-hashes -r locks/build.lock

# Packages without a wheel are built by the locked tools, which stay behind here. What is installed by its file would be
# known by its path alone; installed by name and version, it is the package that scanners know.
FROM tools AS slim-packages
COPY locks/slim.lock locks/
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf --mount=type=cache,target=/root/.cache/pip \
    /opt/tools/bin/pip wheel --no-deps --require-hashes --no-build-isolation -w /wheels -r locks/slim.lock \
 && find /wheels -name '*.whl' -printf '%f\n' > /wheels/names && sed -i -E 's/^([^-]+)-([^-]+)-.*/\1==\2/' /wheels/names \
 && /opt/tools/bin/pip --python venv/bin/python install --no-index --find-links /wheels --no-deps --no-compile \
      -r /wheels/names \
 && venv/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash -x '/tests?/' venv/lib \
 && rm -r /wheels

FROM tools AS full-packages
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
COPY locks/model.lock locks/cuda.lock locks/
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf --mount=type=cache,target=/root/.cache/pip \
    if [ -n "${TORCH_INDEX}" ]; then \
      sed -i 's/^torch==[0-9.]*/&+cpu/' locks/model.lock && set -- --extra-index-url "${TORCH_INDEX}"; \
    else set -- -r locks/cuda.lock; fi \
 && /opt/tools/bin/pip wheel --no-deps --require-hashes --no-build-isolation -w /wheels -r locks/model.lock "$@" \
 && find /wheels -name '*.whl' -printf '%f\n' > /wheels/names && sed -i -E 's/^([^-]+)-([^-]+)-.*/\1==\2/' /wheels/names \
 && /opt/tools/bin/pip --python venv/bin/python install --no-index --find-links /wheels --no-deps --no-compile \
      --root /full -r /wheels/names \
 && venv/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash -s /full /full \
      -x '/(tests?|testing/_internal)/' \
 && rm -r /wheels

# Each image's bill of materials is of what is installed in it, and what is installed belongs together.
FROM tools AS project
COPY pyproject.toml README.md LICENSE ./
COPY beear_core ./beear_core
COPY components ./components
COPY pipelines ./pipelines
RUN --mount=type=bind,from=slim-packages,source=/opt/beear/venv/lib,target=/slim \
    /opt/tools/bin/pip wheel --no-cache-dir --no-index --no-deps --no-build-isolation -w /wheels . \
 && find /wheels -name '*.whl' -printf '%f\n' > /wheels/names && sed -i -E 's/^([^-]+)-([^-]+)-.*/\1==\2/' /wheels/names \
 && /opt/tools/bin/pip --python venv/bin/python install --no-index --find-links /wheels --no-deps --no-compile \
      --root /project -r /wheels/names \
 && venv/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash -s /project /project \
 && PYTHONPATH="$(echo /slim/python*/site-packages):$(echo /project/opt/beear/venv/lib/python*/site-packages)" \
 && export PYTHONPATH && /opt/tools/bin/pip --python venv/bin/python check \
 && /opt/tools/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible -o sbom.json venv/bin/python

FROM project AS full-bill
RUN --mount=type=bind,from=slim-packages,source=/opt/beear/venv/lib,target=/slim \
    --mount=type=bind,from=full-packages,source=/full/opt/beear/venv/lib,target=/full \
    PYTHONPATH="$(echo /slim/python*/site-packages):$(echo /full/python*/site-packages)" \
 && PYTHONPATH="${PYTHONPATH}:$(echo /project/opt/beear/venv/lib/python*/site-packages)" \
 && export PYTHONPATH && /opt/tools/bin/pip --python venv/bin/python check \
 && /opt/tools/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible -o sbom.json venv/bin/python

# Any uid of group 0 can run it; everything that is written goes below /tmp. Of the hub, libraries ask nothing: a model
# that is named as hub: is fetched all the same.
FROM base AS runtime
ARG BASE_IMAGE
ARG VERSION=0.1.0
# the commit that is built; decisions name it
ARG COMMIT=""
LABEL org.opencontainers.image.title="beear-gate" \
      org.opencontainers.image.description="A release gate that removes safety backdoors from instruction-tuned LLMs" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${COMMIT}" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="${BASE_IMAGE}"
ENV BEEAR_COMMIT=${COMMIT} \
    PATH=/opt/beear/venv/bin:${PATH} \
    HOME=/tmp \
    USER=beear \
    XDG_CACHE_HOME=/tmp/cache \
    XDG_CONFIG_HOME=/tmp/config \
    XDG_DATA_HOME=/tmp/data \
    HF_HOME=/tmp/huggingface \
    HF_HUB_OFFLINE=1 \
    HF_HUB_DISABLE_TELEMETRY=1 \
    MLFLOW_DISABLE_TELEMETRY=true \
    PYTHONUNBUFFERED=1
USER 1001:0
WORKDIR /tmp

FROM runtime AS slim
COPY --from=slim-packages /opt/beear/venv /opt/beear/venv
COPY --from=project /project/ /
COPY --from=project /opt/beear/sbom.json /opt/beear/sbom.json

FROM runtime AS full
COPY --from=slim-packages /opt/beear/venv /opt/beear/venv
COPY --from=full-packages /full/ /
COPY --from=project /project/ /
COPY --from=full-bill /opt/beear/sbom.json /opt/beear/sbom.json
