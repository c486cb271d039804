"""Sites and their endpoints."""
