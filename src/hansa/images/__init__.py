"""The catalogue of VM images: what they are, where they come from, and which VO lets them run."""
