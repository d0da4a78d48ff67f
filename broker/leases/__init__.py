"""The story of a credential: issued, renewed, decided again, ended, reconciled."""
