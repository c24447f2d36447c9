"""What is certain."""
