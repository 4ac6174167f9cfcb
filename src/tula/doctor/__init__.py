"""Tests a set-up for the known faults of Direct Server Return; changes nothing."""
