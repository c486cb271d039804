"""What only a real OpenStack can tell."""
