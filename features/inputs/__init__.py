"""Lists and reads encoded images and annotations in directories, archives and buckets.

    list_files(directory | zip | tar | URI) → ListedFile(name, reference, size, stamp) → reference.read() → bytes

Names in annotations are compared with the listed names and never joined to a path, so no name leads outside. Archives
are read in place. In a directory, links to files are followed, because shared disks use them. Links to directories are
not followed, so that a listing ends and does not leave its directory. In an archive, links fail; if several members
have one name, the last is used.
"""

from features.inputs.file_reference import FileReference, ListedFile
from features.inputs.listing import is_collection, list_files

__all__ = ["FileReference", "ListedFile", "is_collection", "list_files"]
