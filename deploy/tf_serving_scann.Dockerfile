# syntax=docker/dockerfile:1
# TensorFlow Serving 2.16.1 with the ops of ScaNN 1.3.2, compiled from public sources.
# NEVER BUILT where this was written: no container engine, no network. deploy/README.md says what was
# checked. It takes hours, 16 GB of memory and 60 GB of disk.
#   docker build -f deploy/tf_serving_scann.Dockerfile -t tf-serving-scann:2.16.1 .
FROM tensorflow/serving:2.16.1-devel AS build
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# google-research has no tags: the commit whose scann/setup.py became 1.3.2.
ARG SCANN_COMMIT=079efba2bf9adb1b45399fc5b00eab1023fc3e80
RUN mkdir /scann \
    && curl -fsSL --retry 5 \
       "https://github.com/google-research/google-research/archive/${SCANN_COMMIT}.tar.gz" \
       | tar -xz --strip-components=2 -C /scann --wildcards 'google-research-*/scann/*' \
    && grep -q 'version="1.3.2"' /scann/setup.py
COPY deploy/tf_serving_scann/link_scann.py /tmp/link_scann.py
WORKDIR /tensorflow-serving
RUN python3 /tmp/link_scann.py /tensorflow-serving /scann
# ScaNN's makers build with Clang; its kernels need AVX2 and FMA, and so does every machine that is to
# serve. The ABI and C++17 are set in TensorFlow Serving's own .bazelrc.
ARG CLANG=clang-12
RUN apt-get update && apt-get install -y --no-install-recommends "${CLANG}" \
    && rm -rf /var/lib/apt/lists/*
ARG BAZEL_OPTIONS=""
RUN CC="${CLANG}" bazel build ${BAZEL_OPTIONS} --config=release --copt=-mavx2 --copt=-mfma \
       --copt=-fsized-deallocation --output_filter=DONT_MATCH_ANYTHING \
       tensorflow_serving/model_servers:tensorflow_model_server \
    && cp bazel-bin/tensorflow_serving/model_servers/tensorflow_model_server /usr/local/bin/ \
    && grep -q 'Scann>ScannSearchBatched' /usr/local/bin/tensorflow_model_server \
    && tensorflow_model_server --version

FROM tensorflow/serving:2.16.1
COPY --from=build /usr/local/bin/tensorflow_model_server /usr/bin/tensorflow_model_server
USER 10001:10001
EXPOSE 8500 8501
# The stock image's entry point is a shell script, which no signal passes.
ENTRYPOINT ["/usr/bin/tensorflow_model_server", "--port=8500", "--rest_api_port=8501"]
CMD ["--model_name=retrieval", "--model_base_path=/models/retrieval"]
