"""Changes on all balancers: this one as coordinator, and as one that takes part."""
