"""Transport for the Diaspora Stream API (Mofka and files); start with `transport`."""
