"""Removes user names, passwords and tokens from URLs, so that they do not reach logs, reports or manifests."""

import re

_USER = re.compile(r"(?<=//)[^/?#\s]*@")
_AFTER_PATH = re.compile(r"[?#].*", re.DOTALL)
_AFTER_HOST = re.compile(r"(?<=[^/:])[/?#].*", re.DOTALL)


def strip_user(text: str) -> str:
    """Removes user names and passwords from the URLs in a text."""
    return _USER.sub("", text)


def strip_query(url: str) -> str:
    """Removes the user, the query and the fragment from a URL: the query of a signed URL contains its signature."""
    return _AFTER_PATH.sub("", strip_user(url))


def strip_path(url: str) -> str:
    """Keeps only scheme, host and port of a URL: the path of a webhook is its secret."""
    return _AFTER_HOST.sub("", strip_user(url))
