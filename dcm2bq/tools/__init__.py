"""What operators run, one module a command."""
