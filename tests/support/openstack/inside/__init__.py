"""Scripts that run in the environment of the services, not in ours."""
