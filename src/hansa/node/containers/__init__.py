"""OCI and Docker images on a bare node: their store and the containers made of them. Standard library only."""
