"""What a user asks for: merge settings, and their text forms."""
