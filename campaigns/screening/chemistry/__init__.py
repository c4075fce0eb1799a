"""What is computed of molecules: canonical forms, fingerprints, properties, shapes."""
