"""Tula: a Layer-4 load balancer for Linux with Direct Server Return."""
