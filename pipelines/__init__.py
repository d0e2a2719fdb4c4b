"""Prepares datasets with Beam: one module per `capt prepare` command, and one per dataset format.

beam ← datasets ← ingest ← jobs ← prepare_*      fetch is separate
"""

import features  # noqa: F401 (sets environment variables that TensorFlow and Keras read when they are imported)
