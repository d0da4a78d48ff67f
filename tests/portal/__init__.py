"""The portal, in a real Chromium against a real replica and OpenBao's own login page."""
