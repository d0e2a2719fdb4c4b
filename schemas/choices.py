"""Lists the values that options and table configs accept."""

from typing import Literal

Precision = Literal["float32", "bfloat16"]
StorageDtype = Literal["float32", "float16", "bfloat16", "int8", "uint8"]
Format = Literal["tfrecord", "parquet"]
Compression = Literal["none", "zstd"]
Pooling = Literal["none", "avg"]
ResizeMethod = Literal["pillow-bilinear", "draft-bilinear", "tf-bilinear"]
ResizeMethodOption = Literal["pillow", "draft", "tf"]
ResizeMode = Literal["stretch", "crop", "pad"]
Standardizer = Literal["keras", "alnum", "punctuation"]
Split = Literal["train", "val", "test", "unused"]
CaptionsPerImage = Literal["all", "one"]
Objective = Literal["cross_entropy", "cider_d"]
PublishedDataset = Literal["flickr8k", "flickr30k", "coco"]
RnnCell = Literal["rnn", "lstm", "gru", "adding"]
DecodingStrategy = Literal["greedy", "beam", "lexicon"]
CaptchaBackground = Literal["speckles", "plain", "noise", "gradient"]
CaptchaLayout = Literal["published", "names"]
AttentionStyle = Literal["smooth", "grid"]
AttentionScale = Literal["word", "caption"]
ExampleKind = Literal["best", "worst", "random"]
