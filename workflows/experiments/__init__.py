"""Trains and compares a grid of runs on one store. Tables that trials share are prepared once."""
