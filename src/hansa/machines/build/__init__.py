"""VM images made here: of Debian packages, without the network but for apt."""
