"""The values that flow through Tula: frozen, typed, without I/O."""
