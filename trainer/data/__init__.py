"""What runs learn from and are measured on: tables joined and batched, images that people name."""
