"""What the kernel must hold, and the difference from what it holds."""
