"""What runs the tasks of an emulated endpoint."""
