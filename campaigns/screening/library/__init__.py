"""Libraries of molecules, and the candidates that are read from them."""
