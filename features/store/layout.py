"""Defines the layout of a store's directory and lists its files.

STORE/capt-store.json             marks the directory as a store, with the version of its format
STORE/features/<fingerprint>/     recipe.json, log/, manifests/, network.json, <commit>/features-….tfrecord
STORE/text/<fingerprint>/         recipe.json, log/, manifests/, <commit>/captions-….parquet, transform/, vocabulary
STORE/datasets/<name>/            log/, manifests/, <commit>/catalog.parquet, labels.parquet, reports/
STORE/models/<name>/              log/, manifests/, runs/<run>/
STORE/networks/<sha256>.pb        extractors as frozen graphs of TensorFlow
STORE/networks/<sha256>.keras     extractors as Keras models, for JAX, PyTorch and GPUs
STORE/networks/<sha256>.openvino  extractors quantized to int8, for OpenVINO
STORE/work/                       work plans of running jobs; their job databases, run-<id>/ledger.sqlite
STORE/pins/                       leases of running jobs
STORE/cache/                      stat.sqlite (hash cache), damage.json (files that verification found corrupt)

Files and stored fields have older names than the code: `recipe.json` is the table config, `network.json` the record of
the table's frozen extractor, `networks/` the frozen extractors, `pins/` the leases, and `damaged` means corrupt.
`trainer.runs.directory` has the files of a run.
"""

import re
from pathlib import Path

from schemas.choices import ExtractorFormat
from schemas.table_config import SHORT_FINGERPRINT, CaptionTableConfig, FeatureTableConfig

FEATURES = "features"
TEXT = "text"
DATASETS = "datasets"
MODELS = "models"
FROZEN_EXTRACTORS = "networks"
WORK = "work"
LEASES = "pins"
CACHE = "cache"
REPORTS = "reports"
RUNS = "runs"
RECIPE = "recipe.json"
EXTRACTOR_RECORD = "network.json"

COMMIT_NAME = re.compile(rf"[0-9a-f]{{{SHORT_FINGERPRINT}}}")
EXTRACTOR_NAME = re.compile(r"[0-9a-f]{64}\.(pb|keras|openvino)")

# The writer of a temporary file younger than this may be running.
GRACE_SECONDS = 3600.0

_COMPACTION = "compact-"


def extractor_path(store: Path, sha256: str, extractor_format: ExtractorFormat = "pb") -> Path:
    """Returns the path of an extractor, by the SHA-256 of its file."""
    return store / FROZEN_EXTRACTORS / f"{sha256}.{extractor_format}"


def table_root(store: Path, table_config: FeatureTableConfig | CaptionTableConfig) -> Path:
    """Returns the directory of the table of a config."""
    parent = FEATURES if isinstance(table_config, FeatureTableConfig) else TEXT
    return store / parent / table_config.fingerprint[:SHORT_FINGERPRINT]


def table_roots(store: Path) -> list[Path]:
    """Returns the directories of a store that may be tables: feature tables, caption tables, datasets and models."""
    parents = (store / name for name in (FEATURES, TEXT, DATASETS, MODELS))
    return [path for parent in parents if parent.is_dir() for path in sorted(parent.iterdir()) if path.is_dir()]


def compaction_plan(store: Path, table: str, commit: str) -> Path:
    """Returns the directory in which a compaction records the shards that it has written."""
    return store / WORK / f"{_COMPACTION}{table}-{commit}"


def planned_commits(store: Path) -> dict[str, Path]:
    """Returns the work plans of running and killed jobs, by the `<table>-<commit>` that they will write."""
    # An unreadable directory raises here; `glob` would skip it, and garbage collection would delete its commits.
    plans = (store / WORK).iterdir() if (store / WORK).is_dir() else ()
    return {plan.name.removeprefix(_COMPACTION): plan for plan in plans if plan.is_dir()}
