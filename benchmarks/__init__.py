"""What it costs: speed and memory beside the goals of the design, ratios taken within one run. `make bench` prints the table."""
