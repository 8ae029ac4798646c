"""The parts of a layer: what each loads, and how it runs as a sequence of operations."""
