"""Where volume data can live: one file a driver behind the interface in `base`."""
