"""recjax: sequential-recommendation models in JAX, from one laptop core to a TPU pod."""

__version__ = "0.1.0"
