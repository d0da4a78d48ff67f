"""What kinds whose datasets are tables share."""
