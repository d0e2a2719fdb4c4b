"""Extractors: what turns an image's pixels into features, each a feature function that is frozen into one graph.

applications   networks of `keras.applications` by name, listed in `table`
custom         a network of the user's own, from a `.keras` file
pixels         the resized image itself
opening        from what a command asks to the extractor that answers, and what it settles for the recipe
layers         which layer of a network is kept, and how its output becomes rows
"""
