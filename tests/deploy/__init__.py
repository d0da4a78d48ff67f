"""What is shipped for running Guestkey with containers: read strictly, and its parts run natively."""
