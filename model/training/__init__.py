"""Training runs: configuration, state, loop, evaluation, logs."""
