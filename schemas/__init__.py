"""What a record is: tables, recipes, manifests, and the one family of errors."""
