"""Plots the figures and builds the HTML elements of reports."""
