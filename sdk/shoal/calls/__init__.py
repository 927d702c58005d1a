"""What the client asks of a controller, a module for each noun."""
