"""What each stage costs, in one run against a plain way to do it and against the bare library calls that it cannot do without."""

VGGFACE2 = (3_141_890, 8631)  # images and identities of its training part
