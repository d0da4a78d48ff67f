"""What every room rests on: errors, settings, PostgreSQL, paging, text that is checked. Nothing here knows a noun."""
