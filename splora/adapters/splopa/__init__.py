"""SPLoPA: blocks."""
