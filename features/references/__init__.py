"""References: where encoded images and annotations lie, in directories, in archives read in place, and in buckets.

walk(directory | zip | tar | s3://… | gs://…) → Found(name, Reference, size, stamp) → Reference.read() → bytes

Names in annotations are matched against what a walk found, never joined to a path, so no name leads outside, and
nothing is unpacked onto the disk. In a directory, links to files are followed, wherever they lead: whoever made the
folder made them, and shared disks are full of such folders. Links to directories are not, so that no walk runs in
circles or leaves its tree. In an archive a link is a failure, and of several members with one name the last counts.
"""

from features.io.read_limits import MAX_IMAGE_BYTES
from features.references.listing import is_collection, list_files
from features.references.reference import ListedFile, Reference

__all__ = ["MAX_IMAGE_BYTES", "ListedFile", "Reference", "is_collection", "list_files"]
