"""What the server takes of libraries that they promise nobody."""
