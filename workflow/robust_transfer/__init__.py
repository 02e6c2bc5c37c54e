"""Do adversarially robust models transfer better? The stages of the experiment, one module each."""

__version__ = "0.1.0"
