"""What a pool reads from the fabric."""
