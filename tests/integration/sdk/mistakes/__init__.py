"""The table of mistakes: what people type wrongly, and what they have to be told."""
