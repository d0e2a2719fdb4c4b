"""Retrains a registered model on new data and promotes the result if it is better.

prepare → compare with the champion's data → data checks → train → promotion gate → one commit of the model

The name of a run is a digest of its training data and settings, so nothing is trained twice and an interrupted run
resumes. The final commit changes the champion and records the reasons in one step.
"""
