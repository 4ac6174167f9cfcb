"""The only code that touches the kernel, and fakes of it that can refuse."""
