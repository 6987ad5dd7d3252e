"""Speed benchmarks: each stage against an ordinary PyTorch implementation and against the bare library calls."""

VGGFACE2_IDENTITIES = 8631  # of the training set
