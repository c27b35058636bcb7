"""What a result says: as text, as a card, as a page."""
