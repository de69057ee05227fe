"""Linear recurrences, state spaces and causal convolutions, as functions of arrays, with their sharded forms."""
