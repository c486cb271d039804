"""Virtual machines at any provider, through one interface."""
