"""edgelm: small recurrent language models that keep learning on the device they run on."""

__version__ = "0.1.0"
