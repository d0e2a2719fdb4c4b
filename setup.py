"""Defines the package metadata of capt and its dependencies, which Beam workers also install."""

from pathlib import Path

from setuptools import find_packages, setup

INSTALL = [
    "apache-beam>=2.77,<2.78",
    "google-crc32c>=1.6",
    "keras>=3.15,<3.16",
    "matplotlib>=3.10",
    "numpy>=2.0",
    "pandas<2.4",  # of a dependency; Beam fails to import beside pandas 3 inside IPython
    "pillow>=12",
    "prometheus-client>=0.22",
    "pyarrow>=18",
    "pydantic>=2.12",
    "python-multipart>=0.0.20",  # forms, for Starlette
    "pyyaml>=6.0",
    "rich>=13",
    "starlette>=1",
    "tensorboard>=2.19",
    "tensorflow>=2.21,<2.22",
    "tensorflow-text>=2.21,<2.22",
    "tensorflow-transform>=1.21,<1.22",
    "typer>=0.15",
    "urllib3>=2",
    "uvicorn>=0.35",
]

EVALUATE = ["pycocoevalcap>=1.2,<2"]

S3 = ["boto3>=1.35"]
GCS = ["google-cloud-storage>=2.18"]
HEIF = ["pi-heif>=1.1"]
JAX = ["jax>=0.7"]
KERAS_HUB = ["keras-hub>=0.32,<0.33"]  # its layers and presets change between minor versions
OPENVINO = ["nncf>=3.4", "openvino>=2026.4"]

EXTRAS = {
    "docs": ["furo>=2025.9", "myst-parser>=5", "sphinx>=9"],
    "evaluate": EVALUATE,
    "gcs": GCS,
    "heif": HEIF,
    "jax": JAX,
    "keras_hub": KERAS_HUB,
    "openvino": OPENVINO,
    "s3": S3,
    "test": [
        *EVALUATE,
        *GCS,
        *HEIF,
        *JAX,
        *KERAS_HUB,
        *OPENVINO,
        *S3,
        "axe-playwright-python>=0.1.8",
        "duckdb>=1.1",
        "flask-cors>=5",  # with moto, a server that speaks S3
        "gcp-storage-emulator>=2026.7",
        "hypothesis>=6.100",
        "import-linter>=2.1",
        "ipykernel>=6.29",
        "moto[s3]>=5",
        "mypy>=1.13",
        "nbclient>=0.10",
        "playwright>=1.65",
        "pytest>=8.3",
        "pytest-xdist>=3.6",
        "ruff>=0.8",
        "types-PyYAML",
    ],
}

setup(
    name="capt",
    version="0.1.0",
    description="Prepare image-text data once, train many times.",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11,<3.14",
    packages=find_packages(include=["schemas*", "features*", "pipelines*", "trainer*", "workflows*"]),
    package_data={
        "features.extractors": ["*.csv", "scene_network.*"],
        "features.synthetic.captchas": ["*.txt"],
        "trainer.evaluation": ["*.yaml"],
        "trainer.reports": ["*.css"],
        "workflows.reproduction": ["recipes/*.yaml", "recipes/*.sha256", "recipes/base/*.yaml"],
        "workflows.serving": ["page/*"],
    },
    py_modules=["capt"],
    install_requires=INSTALL,
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["capt=capt:main"]},
)
