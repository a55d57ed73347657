# syntax=docker/dockerfile:1
# The pipeline with the `two-tower` command.
#   docker build -f deploy/pipeline.Dockerfile -t two-tower-pipeline .
#   docker run --rm -v "$PWD/data:/app/data" -v "$PWD/runs:/app/runs" --user "$(id -u):$(id -g)" \
#     two-tower-pipeline run --config movielens_100k
FROM python:3.10-slim-bookworm AS packages
# pyfarmhash, which TensorFlow Data Validation needs, has no wheel.
RUN apt-get update && apt-get install -y --no-install-recommends g++
# For a cluster with Google Cloud Storage:
#   --build-arg LOCK=deploy/kubeflow/requirements.lock
ARG LOCK=requirements.lock
COPY ${LOCK} /tmp/requirements.lock
# `--no-deps`: the lock omits packages that TFX requires but the project never imports; see pyproject.toml.
RUN python -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir --no-deps --require-hashes \
       --requirement /tmp/requirements.lock

FROM python:3.10-slim-bookworm
COPY --from=packages /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    TF_USE_LEGACY_KERAS=1 \
    TF_CPP_MIN_LOG_LEVEL=3 \
    PYTHONUNBUFFERED=1
WORKDIR /app
COPY setup.py pyproject.toml README.md ./
COPY pipeline ./pipeline
COPY components ./components
COPY models ./models
COPY serving ./serving
COPY configs ./configs
COPY schema ./schema
# Editable: the code is in the image once, under /app, the base of relative paths in configurations.
RUN pip install --no-cache-dir --no-deps --no-build-isolation --editable . \
    && python -m compileall -q pipeline components models serving \
    && mkdir data runs && chown 10001:10001 data runs
USER 10001:10001
VOLUME ["/app/data", "/app/runs"]
ENTRYPOINT ["two-tower"]
CMD ["--help"]
