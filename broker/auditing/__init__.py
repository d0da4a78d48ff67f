"""Reading and proving what happened: events, search, exports, access at a moment."""
