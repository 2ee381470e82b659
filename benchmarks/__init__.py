"""Speed and memory, with the naive implementation beside ours, in one run."""
