"""TikTok's endpoint, the client side: the wire format and the client."""
