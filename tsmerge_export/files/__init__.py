"""What is written appears whole; names from files lead only where they may."""
