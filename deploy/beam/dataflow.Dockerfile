# The pipeline's image, built with the cluster's lock, with the program that Dataflow starts.
#   docker build -f deploy/beam/dataflow.Dockerfile --build-arg PIPELINE=REGISTRY/two-tower-pipeline:TAG \
#     -t REGISTRY/two-tower-dataflow:TAG deploy/beam
ARG PIPELINE=two-tower-pipeline:0.1.0
FROM apache/beam_python3.10_sdk:2.65.0 AS beam

FROM ${PIPELINE}
COPY --from=beam /opt/apache/beam /opt/apache/beam
ENTRYPOINT ["/opt/apache/beam/boot"]
