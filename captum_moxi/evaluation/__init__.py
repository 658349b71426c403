"""Many images: benchmarks."""
