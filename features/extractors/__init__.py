"""Turns images into features: chooses, builds, freezes and runs extractors.

ExtractorOptions → factory → Extractor → ExtractorConfig (for the table config)
                                       → FeatureFunction → frozen_graph or compiled_model → extraction

`keras_applications`, `keras_hub`, `custom` and `pixels` each implement one kind of `Extractor`.
"""
