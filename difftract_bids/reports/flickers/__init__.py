"""What a step changed, seen by two pictures in turn."""
