"""What each stage costs, in one run against a plain way to do it and against the bare library calls that it cannot do without."""
