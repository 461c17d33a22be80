"""lyra-nli: an NLI model that learns from the people who correct it."""

__version__ = "0.1.0"
