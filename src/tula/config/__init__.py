"""YAML to the model, with the line and column of every error; and the JSON Schema.

Import ``tula.config.load`` or ``tula.config.schema``: this package itself imports nothing, so
that the command line starts without pydantic and PyYAML.
"""
