"""`make demo`: the whole story of Guestkey, walked by a program. Runs from a checkout; nothing of it is shipped."""
