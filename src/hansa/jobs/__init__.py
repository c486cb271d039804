"""Jobs: queue, pilots, results."""
