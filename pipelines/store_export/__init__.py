"""Writes the rows of a dataset to files for other libraries (`capt store export`).

catalog ⨝ features by content hash, captions and label by image ID → blocks of rows → files of a format

DIR/export.json                      the settings that determine the files, and the finished files with their SHA-256
DIR/vocabulary.txt                   the words by token ID, if captions are exported
DIR/train-00000-of-00004.…           a file; that of huggingface is in DIR/data
"""
