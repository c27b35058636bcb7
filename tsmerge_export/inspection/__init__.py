"""What an exported file does: where it merges, how many tokens before and after, and its floating-point operations."""
