"""What an experiment is: the pydantic models that validate, document and complete `config.yaml`.

`base` holds what they share, `eps` the radius of a threat model; `datasets`, `training`, `transfer` and `figures` the
sections; `experiment` the whole file; `load` reads it, with overlays, and words every mistake; `schema` writes the JSON
schema for editors. The models named `…Settings` are the slices that define one entry of the store: the grid fills
them, the entry's `entry.json` keeps them, the stage reads them back.
"""
