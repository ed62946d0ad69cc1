"""TikTok's endpoint, both sides: the wire format, the client and the emulator."""
