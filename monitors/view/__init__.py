"""The state of a fabric, and how it is shown in a terminal."""
