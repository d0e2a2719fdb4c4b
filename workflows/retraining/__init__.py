"""Retraining: new data is prepared, compared with what the champion saw, learned from, and promoted where it is better.

prepare → compare → rules → train → contest → gate → one commit of the model

A run is named by what it learns from and how, so nothing is learned twice, and one that was killed is gone on with. The
commit that ends it changes the champion and says why, at once.
"""

from workflows.retraining.pipeline import print_retrained, retrain

__all__ = ["print_retrained", "retrain"]
