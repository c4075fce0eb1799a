"""What is private of Parsl, and what runs beside it."""
