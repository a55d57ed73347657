# syntax=docker/dockerfile:1
# The embedded model server with ScaNN's ops, without TFX, Beam and training code.
#   docker build -f deploy/model_server.Dockerfile -t two-tower-model-server .
FROM python:3.10-slim-bookworm AS packages
COPY serving/requirements.lock /tmp/requirements.lock
# The lock is complete and hashed, so nothing is resolved here.
RUN python -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir --no-deps --require-hashes \
       --requirement /tmp/requirements.lock

FROM python:3.10-slim-bookworm
COPY --from=packages /opt/venv /opt/venv
COPY serving /app/serving
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/app \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /app
USER 10001:10001
EXPOSE 8500 8501
# SIGTERM: finish current requests, reject new ones.
STOPSIGNAL SIGTERM
ENTRYPOINT ["python", "-m", "serving.server"]
CMD ["--bind_address=0.0.0.0", "--model_name=retrieval", "--model_base_path=/models/retrieval"]
