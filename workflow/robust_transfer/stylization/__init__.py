"""Images with other textures: how each gets its style, and the methods that give it."""
