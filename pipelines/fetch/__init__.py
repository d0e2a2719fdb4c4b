"""Downloads the published files of a dataset."""
