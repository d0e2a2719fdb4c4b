"""Everything that is printed: log messages, tables, progress bars."""
