"""The store: where features, tokens and datasets are kept, and all that is done to it as a whole."""

from features.store.tables import CaptionTable, Dataset, FeatureTable, Store, create_store, open_store

__all__ = ["CaptionTable", "Dataset", "FeatureTable", "Store", "create_store", "open_store"]
