"""Downloads the images of lists of URLs to WebDataset shards (`capt fetch urls`).

lists → rows → records of a shard → downloads, by host → working files → NAME.tar, NAME.parquet

DIR/fetch.json                           the lists, and the options that determine the shards
DIR/00003.tar, DIR/00003.parquet         a finished shard
DIR/.unfinished/00004/000040017          a downloaded image
DIR/.unfinished/00004/outcomes.jsonl     the results of the downloads, one `Outcome` per line
"""
