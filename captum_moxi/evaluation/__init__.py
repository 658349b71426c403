"""Many images: runs, reports, replays and benchmarks; and the paper's experiments that train models."""
