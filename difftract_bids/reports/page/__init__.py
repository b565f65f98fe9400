"""The page of a participant: its parts in words and tables, and how it is put together."""
