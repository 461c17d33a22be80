"""Where reviews come from: corrections of edges, and files of reviewed pairs."""
