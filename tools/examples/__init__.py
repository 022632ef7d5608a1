"""Programs that show how edgelm is used together with others."""
