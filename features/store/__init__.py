"""The store: where features, tokens and datasets are kept, and all that is done to it as a whole."""

from features.store.tables import Dataset, FeatureTable, Store, TextTable, create_store, open_store

__all__ = ["Dataset", "FeatureTable", "Store", "TextTable", "create_store", "open_store"]
