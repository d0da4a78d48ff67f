"""The nouns: vendors, people, teams, services, datasets, slices, connections."""
