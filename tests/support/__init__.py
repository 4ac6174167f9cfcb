"""What several suites build their cases from."""
