"""README and pages: what they tell people to type works, and what they quote is there."""
