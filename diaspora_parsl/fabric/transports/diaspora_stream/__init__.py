"""The Diaspora Stream API."""
