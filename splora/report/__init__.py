"""Tables and figures out of finished runs."""
