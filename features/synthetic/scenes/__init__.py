"""Generates synthetic scenes: colored shapes on a textured background, with captions that can be checked.

A scene is a function of its seed, its number and the `SceneDatasetConfig`. `grammar.parse_caption` inverts
`write_captions`: `Description.matches` compares any caption, also a predicted one, with a scene.
"""
