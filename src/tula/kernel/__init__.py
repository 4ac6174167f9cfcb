"""The only code that touches the kernel, and a fake of it that can refuse."""
