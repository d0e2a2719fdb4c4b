"""What is done to one image or one caption, and where the results are kept."""
