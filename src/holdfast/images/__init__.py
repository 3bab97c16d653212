"""Images: names, layers on disk, how images come in and go out, and root file systems made from them."""
