"""What runs around the user's function on a worker."""
