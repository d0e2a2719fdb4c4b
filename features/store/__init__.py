"""Stores datasets, feature tables, caption tables and registered models as logs of commits."""

from features.store.caption_table import CaptionTable
from features.store.dataset import Dataset
from features.store.feature_table import FeatureTable
from features.store.store import Store, check_dataset_name, create_store, open_store

__all__ = ["CaptionTable", "Dataset", "FeatureTable", "Store", "check_dataset_name", "create_store", "open_store"]
