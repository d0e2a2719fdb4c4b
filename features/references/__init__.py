"""References: where encoded images and annotations lie, in directories, in archives read in place, and in buckets.

walk(directory | zip | tar | s3://… | gs://…) → Found(name, Reference, size, stamp) → Reference.read() → bytes

Names in annotations are matched against what a walk found, never joined to a path, so no name leads outside, and
nothing is unpacked onto the disk. In a directory, links to files are followed, wherever they lead: whoever made the
folder made them, and shared disks are full of such folders. Links to directories are not, so that no walk runs in
circles or leaves its tree. In an archive a link is a failure, and of several members with one name the last counts.
"""

from features.references.limits import MAX_IMAGE_BYTES
from features.references.reference import Found, Reference
from features.references.walking import is_collection, walk

__all__ = ["MAX_IMAGE_BYTES", "Found", "Reference", "is_collection", "walk"]
