"""Tests a set-up for the known problems of Direct Server Return; changes nothing."""
