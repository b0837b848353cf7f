"""Rows of the HTTP table: what is sent, what the service must have seen, what the visitor must get."""
