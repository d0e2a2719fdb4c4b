"""Serves trained runs over HTTP: `capt serve`.

    request → access rules → options → images, bounded → queue of the model → batch → predictions → JSON

`command` starts everything, `application` has the routes, `served_model` and `batching` compute, and `page/` is the
page. Nothing that a client sends is written to a file or a log.
"""
